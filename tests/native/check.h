/* What every native test needs: a check that NDEBUG does not silence, threads, a start line, random numbers.
 * Included first: it asks the system headers for what -std=c11 hides (futex, yield, thread clocks).
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#  define _GNU_SOURCE 1
#endif

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* abort(), so that the sanitizers print where every thread is */
#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__, __func__, #condition); \
            abort(); \
        } \
    } while (0)

/* Both as unsigned 64-bit integers; prints them when they differ. */
#define CHECK_EQ(left, right) \
    do { \
        uint64_t left_ = (uint64_t)(left), right_ = (uint64_t)(right); \
        if (left_ != right_) { \
            fprintf(stderr, "%s:%d: %s: %s is %llu, expected %s, which is %llu\n", __FILE__, __LINE__, __func__, #left, \
                    (unsigned long long)left_, #right, (unsigned long long)right_); \
            abort(); \
        } \
    } while (0)

/* How often to repeat: the program's one argument. */
static inline int check_rounds(int argc, char **argv)
{
    int rounds = argc == 2 ? atoi(argv[1]) : 0;
    if (rounds <= 0) {
        fprintf(stderr, "usage: %s ROUNDS\n", argv[0]);
        exit(2);
    }
    return rounds;
}

static inline void check_start(pthread_t *thread, void *(*body)(void *), void *arg)
{
    CHECK(pthread_create(thread, NULL, body, arg) == 0);
}

static inline void check_join(pthread_t thread) { CHECK(pthread_join(thread, NULL) == 0); }

/* Lets `threads` threads go at the same moment, again and again. They yield instead of sleeping: a sleeper starts
 * microseconds late, and the race that the test wants is over by then. */
typedef struct {
    unsigned threads;
    atomic_uint arrived, turn;
} start_line;

static inline void start_line_init(start_line *line, unsigned threads)
{
    line->threads = threads;
    atomic_init(&line->arrived, 0);
    atomic_init(&line->turn, 0);
}

static inline void start_line_wait(start_line *line)
{
    unsigned turn = atomic_load(&line->turn);
    if (atomic_fetch_add(&line->arrived, 1) + 1 == line->threads) {
        atomic_store(&line->arrived, 0);
        atomic_fetch_add(&line->turn, 1);
        return;
    }
    while (atomic_load(&line->turn) == turn)
        sched_yield();
}

/* A few nanoseconds to a microsecond or so: shifts two threads against each other until their steps meet. */
static inline void linger(uint64_t turns)
{
    for (atomic_uint n = 0; n < turns;)
        atomic_fetch_add_explicit(&n, 1, memory_order_relaxed);
}

/* xorshift64*: the same numbers in every run from the same seed, which must not be 0 */
static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

static inline uint64_t random_below(uint64_t *state, uint64_t bound) { return (random_next(state) >> 16) % bound; }

#endif
