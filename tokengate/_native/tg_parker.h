/* Parker: one thread sleeps, any thread wakes it; a wake that comes first is kept (one permit).
 * After the parker of Rust's standard library and crossbeam.
 *
 * Linux: futex. Windows: WaitOnAddress would need another library, so slim lock and condition variable, as
 * elsewhere mutex and condition variable. No spinning: on two CPUs it gained nothing and cost up to 300 us.
 */
#ifndef TG_PARKER_H
#define TG_PARKER_H

#include "tg_base.h"

#if defined(__linux__)
#  include <errno.h>
#  include <linux/futex.h>
#  include <sys/syscall.h>
#  include <unistd.h>
#endif

enum { TG_PARK_EMPTY = 0, TG_PARK_NOTIFIED = 1, TG_PARK_PARKED = 2 };

typedef struct {
    /* state. Written: the owner (EMPTY <-> PARKED, NOTIFIED -> EMPTY), wakers (any -> NOTIFIED). Read: both.
     * acq_rel exchanges: what a waker wrote before unpark is seen by the owner after park. */
    _Atomic(uint32_t) state;
#if !defined(__linux__)
    tg_mutex lock; /* partner of `wake`; guards only the sleep itself */
#  if defined(_WIN32)
    CONDITION_VARIABLE wake;
#  else
    pthread_cond_t wake;
#  endif
#endif
} tg_parker;

static inline void tg_parker_init(tg_parker *p)
{
    atomic_init(&p->state, TG_PARK_EMPTY);
#if !defined(__linux__)
    tg_mutex_init(&p->lock);
#  if defined(_WIN32)
    InitializeConditionVariable(&p->wake);
#  else
    pthread_cond_init(&p->wake, NULL);
#  endif
#endif
}

static inline void tg_parker_destroy(tg_parker *p)
{
#if !defined(__linux__)
    tg_mutex_destroy(&p->lock);
#  if !defined(_WIN32)
    pthread_cond_destroy(&p->wake);
#  endif
#else
    (void)p;
#endif
}

/* One sleep of the owner while PARKED, until about `until`; may return early for any reason. Elsewhere than on Linux under
 * the parker's lock. */
static inline void tg_parker_sleep(tg_parker *p, int64_t until)
{
#if defined(__linux__)
    /* an absolute time on the monotonic clock */
    struct timespec at = {(time_t)(until / 1000000000), (long)(until % 1000000000)};
    syscall(SYS_futex, &p->state, FUTEX_WAIT_BITSET_PRIVATE, TG_PARK_PARKED, until == INT64_MAX ? NULL : &at, NULL,
            FUTEX_BITSET_MATCH_ANY);
#elif defined(_WIN32)
    int64_t left = until == INT64_MAX ? 0 : (until - tg_now()) / 1000000 + 1;
    DWORD ms = until == INT64_MAX ? INFINITE : left < 1 ? 1 : left > 1000000000 ? 1000000000 : (DWORD)left;
    SleepConditionVariableSRW(&p->wake, &p->lock, ms, 0);
#else
    if (until == INT64_MAX) {
        pthread_cond_wait(&p->wake, &p->lock);
        return;
    }
    int64_t left = until - tg_now();
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at); /* a wall clock that jumps makes this early or late; callers look again */
    left = left < 0 ? 0 : left > 1000000000 ? 1000000000 : left;
    at.tv_nsec += (long)left;
    at.tv_sec += at.tv_nsec / 1000000000;
    at.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&p->wake, &p->lock, &at);
#endif
}

/* Sleeps until unparked, or `until` (tg_now() ns; INT64_MAX: for ever); returns at once if a permit is there. False: the
 * time passed. Only the owner may call it. Detached from the interpreter: the caller holds neither the GIL nor the pool's
 * lock. */
static inline bool tg_park_until(tg_parker *p, int64_t until)
{
    uint32_t seen = TG_PARK_EMPTY;
    if (!atomic_compare_exchange_strong_explicit(&p->state, &seen, TG_PARK_PARKED, memory_order_acq_rel,
                                                 memory_order_acquire)) {
        /* Takes the permit. An exchange, not a store: a second waker may have left its own since the look above, and
         * what it wrote before must be seen too, for this is the only wake it gets. */
        atomic_exchange_explicit(&p->state, TG_PARK_EMPTY, memory_order_acq_rel);
        return true;
    }
    bool late = false;
#if !defined(__linux__)
    tg_mutex_lock(&p->lock);
#endif
    for (;;) {
        seen = TG_PARK_NOTIFIED;
        if (atomic_compare_exchange_strong_explicit(&p->state, &seen, TG_PARK_EMPTY, memory_order_acq_rel,
                                                    memory_order_acquire))
            break;
        /* not woken: a first look, a signal, a spurious return, or the time has passed */
        if (until != INT64_MAX && tg_now() >= until) {
            /* no longer PARKED; a waker that was quicker has left its permit, and this takes it */
            late = atomic_exchange_explicit(&p->state, TG_PARK_EMPTY, memory_order_acq_rel) != TG_PARK_NOTIFIED;
            break;
        }
        tg_parker_sleep(p, until);
    }
#if !defined(__linux__)
    tg_mutex_unlock(&p->lock);
#endif
    return !late;
}

/* The same without a time. */
static inline void tg_park(tg_parker *p)
{
    tg_park_until(p, INT64_MAX);
}

/* Wakes the owner, or leaves a permit for its next park. Any thread; never blocks beyond a short lock. */
static inline void tg_unpark(tg_parker *p)
{
    if (atomic_exchange_explicit(&p->state, TG_PARK_NOTIFIED, memory_order_acq_rel) != TG_PARK_PARKED)
        return;
#if defined(__linux__)
    syscall(SYS_futex, &p->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
#else
    /* taken and released: the owner is then either before its check (and sees NOTIFIED) or asleep (and hears us) */
    tg_mutex_lock(&p->lock);
    tg_mutex_unlock(&p->lock);
#  if defined(_WIN32)
    WakeConditionVariable(&p->wake);
#  else
    pthread_cond_signal(&p->wake);
#  endif
#endif
}

#endif
