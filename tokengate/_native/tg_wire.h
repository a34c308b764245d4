/* What the thread of a remote worker says to it and hears from it: system calls that return at once, so that the
 * interpreter need not be let go for them - that thread has work to do, and would wait for a busy one to get it back.
 * Only tg_wire_listen blocks, and is called without it.
 */
#ifndef TG_WIRE_H
#define TG_WIRE_H

#include "tg_base.h"

#if !defined(_WIN32)
#  include <errno.h>
#  include <poll.h>
#  include <sys/socket.h>
#  include <sys/types.h>
#  include <unistd.h>
#endif

#define TG_WIRE_FULL (-1)   /* nothing can be sent, or has come, just now */
#define TG_WIRE_BROKEN (-2)

/* Until one of three descriptors can be read (a negative one: never), or for so long, ms; -1: for ever. Bit i says that
 * descriptor i can be, or that its other end has been closed. */
static inline unsigned tg_wire_listen(int first, int second, int third, int timeout_ms)
{
    unsigned bits = 0;
#if !defined(_WIN32)
    struct pollfd each[3] = {{first, POLLIN, 0}, {second, POLLIN, 0}, {third, POLLIN, 0}};
    int found;
    do
        found = poll(each, 3, timeout_ms);
    while (found < 0 && errno == EINTR); /* signals are the main thread's business */
    for (unsigned i = 0; i < 3 && found > 0; i++)
        bits |= each[i].revents != 0 ? 1u << i : 0u;
#else
    (void)first, (void)second, (void)third, (void)timeout_ms;
#endif
    return bits;
}

/* How many bytes a socket takes now. */
static inline int64_t tg_wire_send(int socket, const void *data, size_t size)
{
#if !defined(_WIN32)
    int flags = MSG_DONTWAIT;
#  if defined(MSG_NOSIGNAL)
    flags |= MSG_NOSIGNAL;
#  endif
    ssize_t sent;
    do
        sent = send(socket, data, size, flags);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return (int64_t)sent;
    return errno == EAGAIN || errno == EWOULDBLOCK ? TG_WIRE_FULL : TG_WIRE_BROKEN;
#else
    (void)socket, (void)data, (void)size;
    return TG_WIRE_BROKEN;
#endif
}

/* How many bytes have come, up to `size`; 0: the other end has been closed. */
static inline int64_t tg_wire_receive(int socket, void *data, size_t size)
{
#if !defined(_WIN32)
    ssize_t got;
    do
        got = recv(socket, data, size, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got >= 0)
        return (int64_t)got;
    return errno == EAGAIN || errno == EWOULDBLOCK ? TG_WIRE_FULL : TG_WIRE_BROKEN;
#else
    (void)socket, (void)data, (void)size;
    return TG_WIRE_BROKEN;
#endif
}

/* What is written to a descriptor to wake who listens, an eventfd or the end of a pipe that does not block. */
static inline void tg_wire_clear(int bell)
{
#if !defined(_WIN32)
    char said[4096];
    ssize_t got;
    do
        got = read(bell, said, sizeof said);
    while (got < 0 && errno == EINTR);
#else
    (void)bell;
#endif
}

#endif
