/* The ground a process stands on: the CPUs it may use, and the small files of the system that say how much of them. A
 * fingerprint of both (FNV-1a) tells whether anything has changed since it was last taken; what it means is found out in
 * Python (tokengate/machine), which is asked only then. Any thread; it blocks no longer than reading small files takes.
 */
#ifndef TG_GROUND_H
#define TG_GROUND_H

#if defined(__linux__) && !defined(_GNU_SOURCE)
#  define _GNU_SOURCE /* sched_getaffinity; too late where a header of the system has been included already */
#endif
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#if defined(__linux__)
#  include <fcntl.h>
#  include <sys/syscall.h>
#  include <unistd.h>
#endif

#define TG_GROUND_BYTES 8192u /* of each file; what such files hold is far shorter */

static inline uint64_t tg_ground_mix(uint64_t print, const unsigned char *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        print = (print ^ data[i]) * UINT64_C(1099511628211);
    /* the length too: bytes must not move from one part to the next unnoticed */
    return (print ^ size) * UINT64_C(1099511628211);
}

#if defined(__linux__)
/* Bytes read; -1: the file cannot be opened. Not stdio: it would allocate a buffer for each. */
static inline long tg_ground_read(const char *path, unsigned char *data)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t size = 0;
    ssize_t got;
    while (size < TG_GROUND_BYTES && (got = read(fd, data + size, TG_GROUND_BYTES - size)) > 0)
        size += (size_t)got;
    close(fd);
    return (long)size;
}
#else
static inline long tg_ground_read(const char *path, unsigned char *data)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return -1;
    size_t size = fread(data, 1, TG_GROUND_BYTES, file);
    fclose(file);
    return (long)size;
}
#endif

/* paths: one after the other, each with its NUL, then an empty one. A file that is missing counts as such. */
static inline uint64_t tg_ground_print(const char *paths)
{
    unsigned char data[TG_GROUND_BYTES];
    uint64_t print = UINT64_C(14695981039346656037);
    for (; *paths != '\0'; paths += strlen(paths) + 1) {
        long size = tg_ground_read(paths, data);
        print = size < 0 ? tg_ground_mix(print, (const unsigned char *)"", 1) : tg_ground_mix(print, data, (size_t)size);
    }
#if defined(__linux__)
    /* The main thread's, by process id: 0 would be the caller, which may be pinned. The system call itself, since its
     * wrapper wants a set of a fixed size. */
    long size = syscall(SYS_sched_getaffinity, getpid(), sizeof data, data);
    if (size > 0)
        print = tg_ground_mix(print, data, (size_t)size);
#endif
    return print;
}

#endif
