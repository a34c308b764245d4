/* Bell: wakes an event loop that watches a file descriptor. One system call, no interpreter, so that a worker can ring
 * after it has let go of the GIL and the loop does not wake only to wait for it.
 *
 * Linux: eventfd. Elsewhere tg_bell_new answers NULL and the loop is woken through call_soon_threadsafe.
 */
#ifndef TG_BELL_H
#define TG_BELL_H

#include "tg_base.h"

#if defined(__linux__)
#  include <errno.h>
#  include <sys/eventfd.h>
#  include <unistd.h>
#endif

typedef struct {
    /* references. Written: retain (relaxed add), release (acq_rel sub). The descriptor is closed by the last one, so
     * that nobody can ring a number that has become somebody else's file. */
    _Atomic(uint32_t) references;
    int fd;
} tg_bell;

static inline tg_bell *tg_bell_new(void)
{
#if defined(__linux__)
    tg_bell *bell = (tg_bell *)malloc(sizeof *bell);
    if (bell == NULL)
        return NULL;
    bell->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (bell->fd >= 0) {
        atomic_init(&bell->references, 1);
        return bell;
    }
    free(bell);
#endif
    return NULL;
}

static inline tg_bell *tg_bell_retain(tg_bell *bell)
{
    atomic_fetch_add_explicit(&bell->references, 1, memory_order_relaxed);
    return bell;
}

static inline void tg_bell_release(tg_bell *bell)
{
    if (atomic_fetch_sub_explicit(&bell->references, 1, memory_order_acq_rel) != 1)
        return;
#if defined(__linux__)
    close(bell->fd);
#endif
    free(bell);
}

/* Makes the descriptor readable. Never blocks. */
static inline void tg_bell_ring(tg_bell *bell)
{
#if defined(__linux__)
    uint64_t one = 1;
    ssize_t written;
    do
        written = write(bell->fd, &one, sizeof one);
    while (written < 0 && errno == EINTR);
    /* EAGAIN: the counter is full, so it has been rung 2^64 - 2 times and is readable */
#else
    (void)bell;
#endif
}

/* Makes it unreadable again; the listener only. */
static inline void tg_bell_clear(tg_bell *bell)
{
#if defined(__linux__)
    uint64_t count;
    ssize_t got;
    do
        got = read(bell->fd, &count, sizeof count);
    while (got < 0 && errno == EINTR);
#else
    (void)bell;
#endif
}

#endif
