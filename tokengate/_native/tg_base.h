/* Platform floor: atomics, monotonic clock, mutex. C11, no Python.h, header only.
 *
 * Everything above this file is written against these few names, so that a port touches this file and
 * tg_parker.h and nothing else.
 */
#ifndef TG_BASE_H
#define TG_BASE_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#  ifndef WIN32_LEAN_AND_MEAN
#    define WIN32_LEAN_AND_MEAN
#  endif
#  include <windows.h>
#else
#  include <pthread.h>
#  include <time.h>
#endif

#define TG_CACHE_LINE 64

/* Nanoseconds on a clock that never goes back and does not follow wall-clock changes. */
static inline int64_t tg_now(void)
{
#if defined(_WIN32)
    LARGE_INTEGER count, rate;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&rate);
    int64_t whole = count.QuadPart / rate.QuadPart;
    int64_t part = count.QuadPart % rate.QuadPart;
    return whole * 1000000000 + part * 1000000000 / rate.QuadPart;
#else
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
#endif
}

/* A plain non-recursive mutex. Its holders never touch the interpreter and never wait for anything but
 * this mutex, so a thread that holds the GIL may lock it: the wait is bounded by a few hundred
 * instructions of another thread. */
#if defined(_WIN32)
typedef SRWLOCK tg_mutex;
static inline void tg_mutex_init(tg_mutex *m) { InitializeSRWLock(m); }
static inline void tg_mutex_destroy(tg_mutex *m) { (void)m; }
static inline void tg_mutex_lock(tg_mutex *m) { AcquireSRWLockExclusive(m); }
static inline void tg_mutex_unlock(tg_mutex *m) { ReleaseSRWLockExclusive(m); }
#else
typedef pthread_mutex_t tg_mutex;
static inline void tg_mutex_init(tg_mutex *m) { pthread_mutex_init(m, NULL); }
static inline void tg_mutex_destroy(tg_mutex *m) { pthread_mutex_destroy(m); }
static inline void tg_mutex_lock(tg_mutex *m) { pthread_mutex_lock(m); }
static inline void tg_mutex_unlock(tg_mutex *m) { pthread_mutex_unlock(m); }
#endif

#endif
