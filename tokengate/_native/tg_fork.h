/* How many times this process is removed, by fork, from the one that loaded the core.
 *
 * After a fork only the forking thread exists in the child; rings, locks and parked workers it inherits are in an
 * unknown state and must never be touched again. Whoever holds something native compares its generation first.
 */
#ifndef TG_FORK_H
#define TG_FORK_H

#include "tg_base.h"

/* generation. A fact about the process, so it lives in the process: written in a forked child before any other
 * thread exists there (plain store would do), read everywhere (relaxed). Starts at 1; 0 is no generation. */
static _Atomic(uint32_t) tg_fork_generation = 1;

static inline uint32_t tg_generation(void)
{
    return atomic_load_explicit(&tg_fork_generation, memory_order_relaxed);
}

#if !defined(_WIN32)
static void tg_fork_child(void)
{
    atomic_fetch_add_explicit(&tg_fork_generation, 1, memory_order_relaxed);
}
#endif

/* Once per process. False: the system refused. */
static inline bool tg_fork_watch(void)
{
#if defined(_WIN32)
    return true; /* no fork there */
#else
    return pthread_atfork(NULL, NULL, tg_fork_child) == 0;
#endif
}

#endif
