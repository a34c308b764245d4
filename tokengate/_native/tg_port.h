/* Port: the native half of the way to one event loop: its inbox, its bell, and what is known of how soon it answers.
 *
 * Loop lag is the time from arming the inbox (a token ended, or the keeper pinged) to the drain that answers. It says how
 * long the loop waited for the interpreter only where the loop's own callbacks did not fill that time: the loop's
 * thread has a CPU clock, and a thread that waits for the GIL shows very little on it, one that sleeps nothing at all.
 */
#ifndef TG_PORT_H
#define TG_PORT_H

#include "tg_bell.h"
#include "tg_fork.h"
#include "tg_hist.h"
#include "tg_inbox.h"

#if defined(__linux__)
#  include <linux/futex.h>
#  include <sys/syscall.h>
#endif

#define TG_PORT_SAMPLES 16u /* drains remembered for the keeper; a power of two */

/* Loop-goes-first, ns. */
#define TG_FIRST_AFTER_NS 1000000 /* a worker that burns alone waits for the answer to a wake-up this old, */
#define TG_FIRST_LATE_NS 5000000  /* one beside others for that to one this old, */
#define TG_FIRST_WAIT_NS 500000   /* at most so long: time for the loop to wake up and take the GIL */

/* CPU clocks of other threads: Linux tells them by a number that is safe to ask for when the thread has gone. */
#define TG_NO_CLOCK 0

static inline int32_t tg_own_clock(void)
{
#if defined(__linux__)
    clockid_t clock;
    if (pthread_getcpuclockid(pthread_self(), &clock) == 0)
        return (int32_t)clock;
#endif
    return TG_NO_CLOCK;
}

/* ns of CPU of the thread with that clock; -1: unknown. */
static inline int64_t tg_clock_cpu(int32_t clock)
{
#if defined(__linux__)
    struct timespec ts;
    if (clock != TG_NO_CLOCK && clock_gettime((clockid_t)clock, &ts) == 0)
        return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
#else
    (void)clock;
#endif
    return -1;
}

/* ns of CPU of the whole process; -1: unknown. */
static inline int64_t tg_process_cpu(void)
{
#if defined(_WIN32)
    return -1;
#else
    struct timespec ts;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts) == 0)
        return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
    return -1;
#endif
}

typedef struct {
    /* armed, drained: monotonic ns of one answer. Written: the loop's thread (relaxed). Read: the keeper (relaxed,
     * between two looks at `answers`). */
    _Atomic(int64_t) armed, drained;
} tg_answer;

typedef struct tg_port {
    tg_inbox box;
    tg_hist lag;
    tg_bell *bell; /* NULL: the loop is woken by call_soon_threadsafe, and cannot be pinged from here. Read without the lock
                    * only while the loop's half lives, see tg_port_mute */
    /* references. Written: retain (relaxed add), release (acq_rel sub: the last one sees all that others wrote). */
    _Atomic(uint32_t) references;
    /* answers: drains so far; the word that workers wait on. Written: the loop's thread (release: publishes the sample
     * before it; seq_cst with `waiters`). Read: keeper and workers (acquire; seq_cst with `waiters`). */
    _Atomic(uint32_t) answers;
    /* waiters: workers that wait for the next drain. Written: they (seq_cst, then they look at `answers`). Read: the
     * loop's thread (seq_cst, after `answers`): either it sees the waiter or the waiter sees the drain. */
    _Atomic(uint32_t) waiters;
    /* clock: CPU clock of the thread that runs the loop. Written: that thread (relaxed). Read: keeper (relaxed). */
    _Atomic(int32_t) clock;
    /* closed: the loop is gone, nobody answers any more. Written: whoever finds out (relaxed). Read: keeper, workers
     * (relaxed). */
    _Atomic(uint32_t) closed;
    /* engaged: the loop's own callbacks keep it busy, so that waiting for it is in vain. Written: the keeper (relaxed).
     * Read: workers (relaxed). */
    _Atomic(uint32_t) engaged;
    /* forsaken: monotonic ns of a wake-up that went unanswered for so long that the loop cannot be waiting for the
     * interpreter: it is not running, or its own code blocks it. Its answer is no sample. Written: the keeper (relaxed). Read: the loop's thread (relaxed). */
    _Atomic(int64_t) forsaken;
    tg_answer sample[TG_PORT_SAMPLES];
#if !defined(_WIN32)
    pthread_t thread; /* the loop's thread's own */
#endif
    uint32_t known;   /* the process (tg_generation) in which `thread` was noted; 0: never */
    tg_mutex lock;        /* guards the bell, see there, and the figures of how busy the loop is */
    int64_t busy_from, busy_at, busy_cpu;
    double busy;          /* CPU s per s of the loop's thread over about the last second */
} tg_port;

static inline tg_port *tg_port_new(tg_bell *bell)
{
    tg_port *p = (tg_port *)calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    tg_inbox_init(&p->box);
    tg_hist_init(&p->lag);
    tg_mutex_init(&p->lock);
    p->bell = bell;
    atomic_init(&p->references, 1);
    atomic_init(&p->answers, 0);
    atomic_init(&p->waiters, 0);
    atomic_init(&p->clock, TG_NO_CLOCK);
    atomic_init(&p->closed, 0);
    atomic_init(&p->engaged, 0);
    atomic_init(&p->forsaken, 0);
    for (uint32_t i = 0; i < TG_PORT_SAMPLES; i++) {
        atomic_init(&p->sample[i].armed, 0);
        atomic_init(&p->sample[i].drained, 0);
    }
    return p;
}

static inline tg_port *tg_port_retain(tg_port *p)
{
    atomic_fetch_add_explicit(&p->references, 1, memory_order_relaxed);
    return p;
}

static inline void tg_port_release(tg_port *p)
{
    if (atomic_fetch_sub_explicit(&p->references, 1, memory_order_acq_rel) != 1)
        return;
    if (p->bell != NULL)
        tg_bell_release(p->bell);
    tg_mutex_destroy(&p->lock);
    free(p);
}

static inline void tg_port_close(tg_port *p)
{
    atomic_store_explicit(&p->closed, 1, memory_order_relaxed);
}

/* The loop's own half of the way is gone: nobody rings any more, and the descriptor is given back although a pool may
 * remember the port for a while. */
static inline void tg_port_mute(tg_port *p)
{
    tg_port_close(p);
    tg_mutex_lock(&p->lock);
    tg_bell *bell = p->bell;
    p->bell = NULL;
    tg_mutex_unlock(&p->lock);
    if (bell != NULL)
        tg_bell_release(bell);
}

static inline bool tg_port_closed(tg_port *p)
{
    return atomic_load_explicit(&p->closed, memory_order_relaxed) != 0;
}

/* How busy the loop's thread is by itself, 0 to 1, over about the last second of looking. Any thread. */
static inline double tg_port_busy(tg_port *p, int64_t now)
{
    int64_t cpu = tg_clock_cpu(atomic_load_explicit(&p->clock, memory_order_relaxed));
    tg_mutex_lock(&p->lock);
    int64_t span = now - p->busy_at;
    if (cpu < 0) {
        p->busy = 0;
    } else if (p->busy_at == 0 || cpu < p->busy_cpu) {
        p->busy_from = p->busy_at = now; /* the first look, or another thread runs the loop now */
        p->busy_cpu = cpu;
    } else if (span >= 10000000) {
        double share = (double)(cpu - p->busy_cpu) / (double)span;
        int64_t known = now - p->busy_from;
        double weight = (double)span / (known < 1000000000 ? (double)known : span < 1000000000 ? 1e9 : (double)span);
        p->busy += ((share > 1 ? 1 : share) - p->busy) * weight;
        p->busy_at = now;
        p->busy_cpu = cpu;
    }
    double busy = p->busy;
    tg_mutex_unlock(&p->lock);
    return busy;
}

/* By the loop's thread: this is the one that runs it. */
static inline void tg_port_adopt(tg_port *p)
{
#if !defined(_WIN32)
    pthread_t self = pthread_self();
    uint32_t generation = tg_generation();
    if (p->known == generation && pthread_equal(p->thread, self))
        return;
    p->thread = self;
    p->known = generation;
#endif
    atomic_store_explicit(&p->clock, tg_own_clock(), memory_order_relaxed);
    tg_port_busy(p, tg_now());
}

static inline int64_t tg_port_cpu(tg_port *p)
{
    return tg_clock_cpu(atomic_load_explicit(&p->clock, memory_order_relaxed));
}

/* ---- the loop's thread --------------------------------------------------------------------------------------- */

/* A drain begins: the loop has answered. */
static inline void tg_port_answer(tg_port *p, int64_t now)
{
    int64_t armed = tg_inbox_armed_at(&p->box);
    tg_port_adopt(p);
    uint32_t n = atomic_load_explicit(&p->answers, memory_order_relaxed);
    if (now > armed && armed != atomic_load_explicit(&p->forsaken, memory_order_relaxed)) {
        tg_hist_record(&p->lag, (uint64_t)(now - armed), (uint64_t)now);
        atomic_store_explicit(&p->sample[n % TG_PORT_SAMPLES].armed, armed, memory_order_relaxed);
        atomic_store_explicit(&p->sample[n % TG_PORT_SAMPLES].drained, now, memory_order_relaxed);
    } else {
        atomic_store_explicit(&p->sample[n % TG_PORT_SAMPLES].drained, 0, memory_order_relaxed); /* no sample */
    }
    atomic_store_explicit(&p->answers, n + 1, memory_order_seq_cst);
#if defined(__linux__)
    if (atomic_load_explicit(&p->waiters, memory_order_seq_cst) != 0)
        syscall(SYS_futex, &p->answers, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
#endif
}

/* ---- workers ------------------------------------------------------------------------------------------------- */

/* Was the loop woken a while ago, and has it not answered? `waited`: the wake-up the caller has waited for already.
 * `seen` is for tg_port_await: read before all else, so that an answer from here on is not waited for in vain. */
static inline bool tg_port_due(tg_port *p, int64_t now, int64_t waited, uint32_t *seen)
{
    *seen = atomic_load_explicit(&p->answers, memory_order_acquire);
    if (!tg_inbox_armed(&p->box))
        return false;
    int64_t armed = tg_inbox_armed_at(&p->box);
    return now - armed > TG_FIRST_AFTER_NS && armed != waited && !tg_port_closed(p) &&
           atomic_load_explicit(&p->engaged, memory_order_relaxed) == 0;
}

/* A wake-up that is due is so old that it is waited for whatever others do. Before that a worker beside others does not:
 * most often the GIL would go to one of them, and its own place be left unused for nothing. */
static inline bool tg_port_late(tg_port *p, int64_t now)
{
    return now - tg_inbox_armed_at(&p->box) > TG_FIRST_LATE_NS;
}

/* Waits, at most TG_FIRST_WAIT_NS, until the loop answers that wake-up. Detached from the interpreter: who only let go of
 * the GIL for a moment would get it back itself, before the loop has woken up. */
static inline void tg_port_await(tg_port *p, uint32_t seen)
{
    int64_t until = tg_now() + TG_FIRST_WAIT_NS, left;
    atomic_fetch_add_explicit(&p->waiters, 1, memory_order_seq_cst);
    while (atomic_load_explicit(&p->answers, memory_order_seq_cst) == seen && (left = until - tg_now()) > 0) {
#if defined(__linux__)
        struct timespec span = {0, (long)left};
        syscall(SYS_futex, &p->answers, FUTEX_WAIT_PRIVATE, seen, &span, NULL, 0);
#elif defined(_WIN32)
        Sleep(1);
#else
        struct timespec span = {0, 200000};
        nanosleep(&span, NULL);
#endif
    }
    atomic_fetch_sub_explicit(&p->waiters, 1, memory_order_seq_cst);
}

/* ---- the keeper ---------------------------------------------------------------------------------------------- */

/* Wakes the loop only to see how soon it answers. False: it cannot be pinged, or has been woken already. */
static inline bool tg_port_ping(tg_port *p, int64_t now)
{
    tg_mutex_lock(&p->lock);
    bool rung = p->bell != NULL && !tg_port_closed(p) && tg_inbox_arm(&p->box, now);
    if (rung)
        tg_bell_ring(p->bell); /* under the lock, against tg_port_mute; it never blocks */
    tg_mutex_unlock(&p->lock);
    return rung;
}


#endif
