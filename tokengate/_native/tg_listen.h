/* Listening on a few descriptors at once: what the thread of a remote worker does while there is nothing to do. */
#ifndef TG_LISTEN_H
#define TG_LISTEN_H

#include "tg_base.h"

#if !defined(_WIN32)
#  include <errno.h>
#  include <poll.h>
#endif

/* Until one of three descriptors can be read (a negative one: never), or for so long, ms; -1: for ever. Bit i says that
 * descriptor i can be, or that its other end has been closed. */
static inline unsigned tg_listen(int first, int second, int third, int timeout_ms)
{
#if !defined(_WIN32)
    struct pollfd each[3] = {{first, POLLIN, 0}, {second, POLLIN, 0}, {third, POLLIN, 0}};
    int found;
    do
        found = poll(each, 3, timeout_ms);
    while (found < 0 && errno == EINTR); /* signals are the main thread's business */
    unsigned bits = 0;
    for (unsigned i = 0; i < 3 && found > 0; i++)
        bits |= each[i].revents != 0 ? 1u << i : 0u;
    return bits;
#else
    (void)first, (void)second, (void)third, (void)timeout_ms;
    return 0;
#endif
}

#endif
