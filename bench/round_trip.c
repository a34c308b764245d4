/* The bare round trip between two threads: futex out, eventfd back. Linux only.
 *
 * This is what any dispatch of one call to a sleeping thread, and of its result to an event loop,
 * costs before a line of Python runs: the caller wakes a parked thread through a futex; that
 * thread writes to an eventfd; the caller, asleep in epoll_wait() like an event loop, reads it.
 *
 * Where the two threads sit decides most of it: to wake a CPU that sleeps can cost ten times the
 * trip within one CPU. So it is measured three times: threads where the scheduler puts them, both
 * on one CPU, and on two.
 *
 * Usage: round_trip TRIPS. Prints on one line the three medians in nanoseconds, in that order;
 * the last is 0 where this process may use one CPU only.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STOP UINT32_MAX
#define WARM_UP 200

/* request: number of the trip asked for, or STOP. Written: caller. Read: worker. The release
 * store pairs with the worker's acquire load, though here nothing but the number is passed. */
static _Atomic uint32_t request;
static int replies;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void ask(uint32_t number)
{
    atomic_store_explicit(&request, number, memory_order_release);
    if (syscall(SYS_futex, &request, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) < 0)
        fail("futex wake");
}

static void *worker(void *unused)
{
    uint32_t seen = 0;
    uint64_t one = 1;

    (void)unused;
    for (;;) {
        uint32_t number = atomic_load_explicit(&request, memory_order_acquire);
        if (number == STOP)
            return NULL;
        if (number == seen) {
            /* Returns at once if the word has changed meanwhile: no wake-up is lost. */
            syscall(SYS_futex, &request, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
            continue;
        }
        seen = number;
        if (write(replies, &one, sizeof one) != sizeof one)
            fail("eventfd write");
    }
}

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int ascending(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;

    return (a > b) - (a < b);
}

/* Median in nanoseconds; *number is the last trip's, across calls. */
static int64_t median_trip(int poll, uint32_t *number, int trips)
{
    int64_t *took = calloc((size_t)trips, sizeof *took);
    int64_t median;

    if (took == NULL)
        fail("calloc");
    for (int trip = -WARM_UP; trip < trips; trip++) {
        struct epoll_event event;
        uint64_t count;
        int64_t start = now();

        ask(++*number);
        if (epoll_wait(poll, &event, 1, -1) != 1)
            fail("epoll_wait");
        if (read(replies, &count, sizeof count) != sizeof count)
            fail("eventfd read");
        if (trip >= 0)
            took[trip] = now() - start;
    }
    qsort(took, (size_t)trips, sizeof *took, ascending);
    median = took[trips / 2];
    free(took);
    return median;
}

static void pin(pthread_t thread, int cpu)
{
    cpu_set_t only;

    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    if (pthread_setaffinity_np(thread, sizeof only, &only) != 0)
        fail("pthread_setaffinity_np");
}

/* The first CPU above `after` in `usable`, or -1. */
static int next_cpu(const cpu_set_t *usable, int after)
{
    for (int cpu = after + 1; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, usable))
            return cpu;
    return -1;
}

int main(int count, char **arguments)
{
    int trips = count == 2 ? atoi(arguments[1]) : 0;
    struct epoll_event readable = {.events = EPOLLIN};
    int64_t unpinned, together, apart = 0;
    int poll, first, second;
    uint32_t number = 0;
    cpu_set_t usable;
    pthread_t thread;

    if (trips < 1) {
        fprintf(stderr, "usage: %s TRIPS\n", arguments[0]);
        return 2;
    }
    if (sched_getaffinity(0, sizeof usable, &usable) < 0)
        fail("sched_getaffinity");
    first = next_cpu(&usable, -1);
    second = next_cpu(&usable, first);

    replies = eventfd(0, EFD_CLOEXEC);
    poll = epoll_create1(EPOLL_CLOEXEC);
    if (replies < 0 || poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, replies, &readable) < 0)
        fail("eventfd and epoll");
    if (pthread_create(&thread, NULL, worker, NULL) != 0)
        fail("pthread_create");

    unpinned = median_trip(poll, &number, trips);
    pin(pthread_self(), first);
    pin(thread, first);
    together = median_trip(poll, &number, trips);
    if (second >= 0) {
        pin(thread, second);
        apart = median_trip(poll, &number, trips);
    }

    ask(STOP);
    pthread_join(thread, NULL);
    printf("%lld %lld %lld\n", (long long)unpinned, (long long)together, (long long)apart);
    return 0;
}
