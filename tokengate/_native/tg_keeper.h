/* The keeper: the one thread of a pool that looks at it from outside, without the interpreter. It feeds the control law
 * with what it sees, sets the active limit, pings loops that nobody has woken, and lets a guest in where one operation
 * holds every place.
 *
 * Asleep it costs nothing: it parks without a timeout when nothing is to be steered. The pool calls it (tg_summons)
 * when the limit keeps tokens from workers, or where several workers share one GIL.
 *
 * Everything here belongs to the keeper's thread; what it shares with others is in the pool under its lock.
 */
#ifndef TG_KEEPER_H
#define TG_KEEPER_H

#include "tg_ground.h"
#include "tg_pool.h"

#if defined(__linux__)
#  include <fcntl.h>
#  include <stdio.h>
#endif

#define TG_KEEPER_QUICK_NS 1000000   /* between two looks while the limit may grow fast, */
#define TG_KEEPER_STEADY_NS 5000000  /* while it is steered, */
#define TG_KEEPER_CALM_NS 20000000   /* while it is as high as it may be and nobody burns */
#define TG_KEEPER_PING_NS 5000000    /* a loop that has been heard of within this is not pinged, */
#define TG_KEEPER_ASK_NS 1500000     /* nor within this, where the answer decides whether more may burn, */
#define TG_KEEPER_KNOWN_NS 25000000  /* nor within this, where the answer is known */
#define TG_KEEPER_LINGER_NS 50000000 /* it looks on for so long after the last work, so that bursts need not call it */
#define TG_KEEPER_LEARNT_NS 1000000000 /* what was learnt is kept for so long without work */
#define TG_KEEPER_IGNORE_NS 50000000 /* a loop that starves with one worker at work for so long is not running */
#define TG_KEEPER_SHORT_NS 20000000  /* nothing taken for so long: a guest is let in for short tokens, */
#define TG_KEEPER_GUEST_NS 50000000  /* nothing taken but by such guests: for any */
#define TG_KEEPER_CPUS_NS 1000000000 /* whether the CPUs it may use have changed is looked at so often */
#define TG_KEEPER_ASKED 16u          /* workers looked at for whether they are ready to run */
#define TG_KEEPER_PAST 64u           /* looks remembered, a power of two */
#define TG_KEEPER_OWN 0.4            /* lag of which the loop's own CPU time is this part is its own */
#define TG_KEEPER_SERVED 0.8         /* a thread that is ready to run and used less than this part of a CPU has to wait for one */
#define TG_KEEPER_BLOCKED 0.0005     /* with less CPU time than this part of so much, or more, a loop was not even */
#define TG_KEEPER_BLOCKED_NS 10000000 /* waiting for the GIL */

typedef enum {
    TG_KEEPER_LEAVE, /* the pool is closing: the thread must end */
    TG_KEEPER_ACT,   /* carry out the summons, then come back */
    TG_KEEPER_LOG,   /* the limit has changed, and somebody wants to read that */
    TG_KEEPER_CPUS,  /* the CPUs this process may use may have changed: count them */
} tg_errand;

/* What the keeper knows of one thread. */
typedef struct {
    int64_t cpu;
    uint32_t seen;         /* the look that found it active */
    int32_t clock;         /* whose clock that is; the descriptor belongs to it */
    int fd;                /* what the system tells of that thread; 0: not opened, -1: cannot be */
} tg_page;

/* What the keeper knows of one loop. */
typedef struct {
    tg_port *port;         /* a reference */
    uint32_t answers;      /* seen so far */
    uint32_t looks;
    int64_t heard;         /* when it last answered or was pinged */
    int64_t armed;         /* an unanswered wake-up seen at the last look; 0: none */
    int64_t told;          /* its age that has been counted */
    bool ignored;          /* not running, as it seems, until it answers */
    double busy;           /* CPU share of its thread over the last looks */
    tg_page page;          /* its thread */
    struct { int64_t at, cpu; } past[TG_KEEPER_PAST];
} tg_watch;

typedef struct {
    tg_pool *pool;         /* a reference */
    tg_law law;
    uint32_t generation;   /* number of the look, from 1 */
    int64_t last, work;    /* when it last looked, and last saw work */
    int64_t process;
    struct { uint64_t count; int64_t at; } dequeued, turns; /* tokens taken; but by SHORT guests */
    tg_watch watch[TG_POOL_PORTS];
    uint32_t n_watch;
    tg_page *book;         /* by the worker's index */
    struct { uint32_t index; int32_t clock; bool idle; } *now;
    uint32_t pages;
    bool rested;           /* the limit is the initial one again */
    const char *ground;    /* files to look at, see tg_ground.h; NULL: none. They live longer than the keeper runs */
    uint64_t print;        /* of them when the CPUs were last counted */
    int64_t compared;      /* when it was last compared */
    /* log: changes are wanted in Python as they happen. Written: who calls the keeper (relaxed). Read: the keeper
     * (relaxed). */
    _Atomic(uint32_t) log;
} tg_keeper;

/* ---- threads ------------------------------------------------------------------------------------------------- */

static inline void tg_page_close(tg_page *page)
{
#if defined(__linux__)
    if (page->fd > 0)
        close(page->fd);
#endif
    page->fd = 0;
}

/* It is about the thread with that clock from now on. */
static inline void tg_page_turn(tg_page *page, int32_t clock)
{
    if (page->clock == clock)
        return;
    tg_page_close(page);
    *page = (tg_page){.clock = clock};
}

/* 1: the thread runs or is ready to; 0: it sleeps, be it for the GIL; -1: the system does not tell. On a crowded machine
 * one that wants a CPU and has none would otherwise look like one that sleeps. */
static inline int tg_page_ready(tg_page *page)
{
#if defined(__linux__)
    char text[96];
    if (page->fd == 0) {
        /* the number of a thread's CPU clock holds the thread's id, inverted, above three bits */
        snprintf(text, sizeof text, "/proc/self/task/%d/stat", (int)~(page->clock >> 3));
        page->fd = open(text, O_RDONLY | O_CLOEXEC);
    }
    ssize_t n = page->fd > 0 ? pread(page->fd, text, sizeof text - 1, 0) : -1;
    if (n > 0) {
        text[n] = 0;
        const char *name = strrchr(text, ')'); /* id (name) state ...; a name is 15 characters at most */
        return name == NULL ? -1 : name[1] == ' ' && name[2] == 'R';
    }
#else
    (void)page;
#endif
    return -1;
}

/* ---- the keeper ---------------------------------------------------------------------------------------------- */

static inline tg_keeper *tg_keeper_new(tg_pool *p)
{
    tg_keeper *k = (tg_keeper *)calloc(1, sizeof *k);
    if (k == NULL)
        return NULL;
    k->pool = tg_pool_retain(p);
    atomic_init(&k->log, 0);
    return k;
}

static inline void tg_keeper_free(tg_keeper *k)
{
    for (uint32_t i = 0; i < k->n_watch; i++) {
        tg_port_release(k->watch[i].port);
        tg_page_close(&k->watch[i].page);
    }
    for (uint32_t i = 0; i < k->pages; i++)
        tg_page_close(&k->book[i]);
    free(k->book);
    free(k->now);
    tg_pool_release(k->pool);
    free(k);
}

/* What the number of CPUs was read from, and the fingerprint of it before that. By its own thread, or before it runs. */
static inline void tg_keeper_stand(tg_keeper *k, const char *ground, uint64_t print)
{
    k->ground = ground;
    k->print = print;
    k->compared = tg_now();
}

/* The pool asked for the keeper. True: the caller must start its thread. Any thread. */
static inline bool tg_keeper_call(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    bool start = !p->steer.alive;
    p->steer.alive = true;
    /* the flag is set here and not where it was found missing: a call that gets lost is then repeated by the next event */
    p->steer.awake = true;
    tg_mutex_unlock(&p->lock);
    if (!start)
        tg_unpark(&p->steer.parker);
    return start;
}

static inline void tg_keeper_want_log(tg_keeper *k, bool on)
{
    atomic_store_explicit(&k->log, on, memory_order_relaxed);
}

/* Its thread could not be started, or has ended by itself. */
static inline void tg_keeper_gone(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    p->steer.alive = p->steer.awake = false;
    tg_mutex_unlock(&p->lock);
}

/* ---- loops --------------------------------------------------------------------------------------------------- */

/* CPU time of the loop's thread at a moment that has been, from the looks around it; -1: unknown. */
static inline int64_t tg_watch_cpu(const tg_watch *w, int64_t at)
{
    uint32_t kept = w->looks < TG_KEEPER_PAST ? w->looks : TG_KEEPER_PAST;
    if (kept == 0)
        return -1;
    uint32_t later = w->looks - 1;
    for (uint32_t i = 0; i < kept; i++) {
        uint32_t n = w->looks - 1 - i;
        int64_t t = w->past[n % TG_KEEPER_PAST].at, cpu = w->past[n % TG_KEEPER_PAST].cpu;
        if (t <= at) {
            int64_t t2 = w->past[later % TG_KEEPER_PAST].at, cpu2 = w->past[later % TG_KEEPER_PAST].cpu;
            return t2 <= t ? cpu : cpu + (int64_t)((double)(cpu2 - cpu) * (double)(at - t) / (double)(t2 - t));
        }
        later = n;
    }
    return w->past[later % TG_KEEPER_PAST].cpu; /* longer ago than it remembers */
}

typedef enum { TG_CAUSE_STARVED, TG_CAUSE_OWN, TG_CAUSE_BLOCKED } tg_cause;

static inline tg_cause tg_watch_cause(const tg_watch *w, int64_t from, int64_t to)
{
    int64_t before = tg_watch_cpu(w, from), after = tg_watch_cpu(w, to);
    if (before < 0 || after < before)
        return TG_CAUSE_STARVED; /* no clock to tell */
    double own = (double)(after - before) / (double)(to - from);
    return own >= TG_KEEPER_OWN ? TG_CAUSE_OWN : own < TG_KEEPER_BLOCKED && to - from >= TG_KEEPER_BLOCKED_NS ? TG_CAUSE_BLOCKED : TG_CAUSE_STARVED;
}

static inline void tg_watch_note(tg_look *l, tg_cause cause, int64_t lag)
{
    if (lag < TG_LAW_PROMPT_NS) {
        l->prompt++;
    } else if (cause == TG_CAUSE_STARVED) {
        l->starved_lag = (l->starved_lag * l->starved + lag) / (l->starved + 1);
        l->starved++;
    }
}

static inline void tg_watch_look(tg_watch *w, tg_look *l, int64_t ping)
{
    tg_port *port = w->port;
    int64_t now = l->now, cpu = tg_port_cpu(port);
    tg_port_busy(port, now);
    if (cpu >= 0) {
        if (w->looks > 0 && cpu < w->past[(w->looks - 1) % TG_KEEPER_PAST].cpu)
            w->looks = 0; /* another thread runs it now */
        w->past[w->looks % TG_KEEPER_PAST].at = now;
        w->past[w->looks % TG_KEEPER_PAST].cpu = cpu;
        w->looks++;
        int64_t before = tg_watch_cpu(w, now - TG_LAW_STEP_NS);
        int64_t back = w->looks >= TG_KEEPER_PAST ? TG_LAW_STEP_NS : now - w->past[0].at;
        if (back > TG_LAW_STEP_NS)
            back = TG_LAW_STEP_NS;
        w->busy = back >= TG_LAW_STEP_NS / 2 ? (double)(cpu - before) / (double)back : 0;
        atomic_store_explicit(&port->engaged, w->busy >= 0.6, memory_order_relaxed);
    }
    uint32_t answers = atomic_load_explicit(&port->answers, memory_order_acquire);
    uint32_t fresh = answers - w->answers;
    if (fresh > TG_PORT_SAMPLES / 2)
        fresh = TG_PORT_SAMPLES / 2; /* the older ones may be overwritten while they are read */
    for (; fresh > 0; fresh--) {
        tg_answer *a = &port->sample[(answers - fresh) % TG_PORT_SAMPLES];
        int64_t armed = atomic_load_explicit(&a->armed, memory_order_relaxed);
        int64_t drained = atomic_load_explicit(&a->drained, memory_order_relaxed);
        if (drained > armed && armed > 0 && drained <= now)
            tg_watch_note(l, tg_watch_cause(w, armed, drained), drained - armed);
    }
    if (answers != w->answers) {
        w->answers = answers;
        w->heard = now;
        w->armed = 0;
        w->ignored = false;
    }
    if (tg_inbox_armed(&port->box)) {
        int64_t armed = tg_inbox_armed_at(&port->box), age = now - armed;
        if (armed != w->armed) {
            w->armed = armed; /* looked at next time: it may still be the time of the wake-up before */
            w->told = 0;
        } else if (!w->ignored && age > 0) {
            tg_cause cause = tg_watch_cause(w, armed, now);
            if ((cause == TG_CAUSE_BLOCKED && age >= 2 * TG_KEEPER_PING_NS) ||
                (cause == TG_CAUSE_STARVED && age >= TG_KEEPER_IGNORE_NS && l->active <= 1)) {
                w->ignored = true;
                atomic_store_explicit(&port->forsaken, armed, memory_order_relaxed);
            } else if (age - w->told >= 2 * TG_LAW_CUT_NS) {
                w->told = age;
                tg_watch_note(l, cause, age);
            }
        }
    } else if (ping > 0 && now - w->heard >= ping && tg_port_ping(port, now)) {
        w->heard = now;
    }
    if (!w->ignored)
        l->loop = true;
}

/* A loop's thread that wants a CPU and has none may hold the GIL all the while: then workers that wait for it look like
 * workers that sleep. `used`: its CPU time since the last look, `span` ago. */
static inline bool tg_watch_short(tg_watch *w, int64_t used, int64_t span)
{
    tg_page_turn(&w->page, atomic_load_explicit(&w->port->clock, memory_order_relaxed));
    return w->page.clock != TG_NO_CLOCK && (double)used < TG_KEEPER_SERVED * (double)span && tg_page_ready(&w->page) > 0;
}

/* Under the pool's lock: the loops the pool has met, without those that are gone. */
static inline void tg_keeper_loops(tg_keeper *k)
{
    tg_steering *g = &k->pool->steer;
    for (uint32_t i = 0; i < g->n_ports;) {
        if (!tg_port_closed(g->ports[i])) {
            i++;
            continue;
        }
        tg_port_release(g->ports[i]);
        g->ports[i] = g->ports[--g->n_ports];
        atomic_store_explicit(&g->met, NULL, memory_order_relaxed);
    }
    for (uint32_t i = 0; i < k->n_watch;) {
        if (!tg_port_closed(k->watch[i].port)) {
            i++;
            continue;
        }
        tg_port_release(k->watch[i].port);
        tg_page_close(&k->watch[i].page);
        k->watch[i] = k->watch[--k->n_watch];
    }
    for (uint32_t i = 0; i < g->n_ports; i++) {
        uint32_t j = 0;
        while (j < k->n_watch && k->watch[j].port != g->ports[i])
            j++;
        if (j == k->n_watch && j < TG_POOL_PORTS) {
            k->watch[j] = (tg_watch){.port = tg_port_retain(g->ports[i])};
            k->watch[j].answers = atomic_load_explicit(&g->ports[i]->answers, memory_order_acquire);
            k->n_watch++;
        }
    }
}

/* ---- one look ------------------------------------------------------------------------------------------------ */

/* Room for a page for each record. False: no memory; it looks on with what it has. */
static inline bool tg_keeper_room(tg_keeper *k, uint32_t records)
{
    if (records <= k->pages)
        return true;
    uint32_t pages = records + 16;
    tg_page *book = (tg_page *)realloc(k->book, pages * sizeof *book);
    if (book == NULL)
        return false;
    memset(book + k->pages, 0, (pages - k->pages) * sizeof *book);
    k->book = book;
    void *now = realloc(k->now, pages * sizeof *k->now);
    if (now == NULL)
        return false;
    k->now = now;
    k->pages = pages;
    return true;
}

static inline void tg_keeper_workers(tg_keeper *k, tg_look *l, uint32_t found, bool ask)
{
    uint32_t asked = 0, ready = 0, fresh = 0; /* fresh: not active at the last look */
    bool any = false;
    if (tg_clock_cpu(tg_own_clock()) < 0) {
        l->cpu = tg_process_cpu() < 0 ? -1 : l->process;
        l->asleep = true;
        return;
    }
    for (uint32_t i = 0; i < found; i++) {
        tg_page *page = &k->book[k->now[i].index];
        bool active = !k->now[i].idle;
        tg_page_turn(page, k->now[i].clock); /* a new thread may have taken over the record */
        if (!active && page->seen + 1 != k->generation)
            continue; /* parked then and now: it used nothing */
        int64_t cpu = tg_clock_cpu(k->now[i].clock);
        if (cpu < 0)
            continue;
        bool before = page->seen + 1 == k->generation && cpu >= page->cpu;
        /* one that was parked at the last look has used nothing since the look that found it active */
        int64_t used = page->cpu > 0 && cpu >= page->cpu ? cpu - page->cpu : 0;
        page->cpu = cpu;
        l->cpu += used;
        if (active) {
            page->seen = k->generation;
            if (before) {
                l->steady_cpu += used;
                l->steady += l->span;
            }
            if (ask && asked + fresh < TG_KEEPER_ASKED) {
                int r = tg_page_ready(page);
                any = any || r > 0;
                asked += before && r >= 0;
                ready += before && r > 0;
                fresh += !before;
            }
        }
    }
    l->asleep = !any;
    if (asked > 0)
        l->ready = l->steady / asked * ready; /* of the others as many on average */
}

#define TG_KEEPER_LOOKS 256u /* so many looks at an operation weigh; older ones less and less */

/* Whether the function that a worker is in holds the GIL, by chance: this thread's timers know nothing of it. Under the
 * pool's lock. */
static inline void tg_keeper_note_gil(tg_pool *p, tg_worker *w)
{
    tg_op *op = tg_worker_running(w);
    if (op == NULL || w->state == NULL || p->steer.holds == NULL)
        return;
    if (op->looks >= TG_KEEPER_LOOKS) {
        op->looks /= 2;
        op->held /= 2;
    }
    op->looks++;
    op->held += p->steer.holds(w->state);
}

/* Sets the limit. Returns what the caller must do about it. */
static inline tg_summons tg_keeper_apply(tg_keeper *k, uint32_t limit, tg_reason reason, double busy)
{
    tg_pool *p = k->pool;
    tg_mutex_lock(&p->lock);
    tg_pool_limit(p, limit, reason, busy, k->law.level);
    tg_pool_refill(p, tg_now());
    tg_summons s = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    if (s.wake != NULL)
        tg_unpark(&s.wake->parker);
    s.wake = NULL; /* done */
    return s;
}

/* Which guest is due, if one finds a token: nothing has been taken for so long. */
static inline tg_guest tg_keeper_due(tg_keeper *k, bool waits, uint64_t dequeued, uint64_t turns, int64_t now)
{
    if (!waits || dequeued != k->dequeued.count) {
        k->dequeued.count = dequeued;
        k->dequeued.at = now;
    }
    if (!waits || turns != k->turns.count) {
        k->turns.count = turns;
        k->turns.at = now;
    }
    return now - k->turns.at >= TG_KEEPER_GUEST_NS ? TG_GUEST_ANY
           : now - k->dequeued.at >= TG_KEEPER_SHORT_NS ? TG_GUEST_SHORT : TG_GUEST_NONE;
}

/* Sleeps, looks and steers until something must be done that needs the interpreter. Detached from it. */
static inline tg_errand tg_keeper_run(tg_keeper *k, tg_summons *out)
{
    tg_pool *p = k->pool;
    tg_steering *g = &p->steer;
    bool fresh = k->last == 0; /* there is no look before this one to compare with */
    for (;;) {
        tg_look l = {.now = tg_now()};
        uint32_t found = 0;
        if (k->ground != NULL && l.now - k->compared >= TG_KEEPER_CPUS_NS) {
            k->compared = l.now;
            if (tg_ground_print(k->ground) != k->print)
                return TG_KEEPER_CPUS;
        }
        tg_mutex_lock(&p->lock);
        if (p->closing) {
            g->alive = g->awake = false;
            tg_mutex_unlock(&p->lock);
            return TG_KEEPER_LEAVE;
        }
        uint32_t records = p->records;
        bool room = records <= k->pages;
        bool waits = tg_ring_length(&p->ring) > 0 || p->gate.fair.length > 0;
        int64_t places = tg_pool_places(p);
        if (waits || (g->gil && places >= 2))
            k->work = l.now;
        if (!g->awake || l.now - k->work > TG_KEEPER_LINGER_NS) {
            g->awake = false;
            bool stay = !g->adaptive || k->rested;
            tg_mutex_unlock(&p->lock);
            if (!tg_park_until(&p->steer.parker, stay ? INT64_MAX : l.now + TG_KEEPER_LEARNT_NS)) {
                tg_mutex_lock(&p->lock);
                if (!g->awake) { /* what it learnt is too old */
                    uint32_t initial = g->initial < p->max_workers ? g->initial : p->max_workers;
                    if (p->limit > initial)
                        tg_pool_limit(p, initial, TG_LAW_RESTED, 0, 0);
                    k->law.target = g->target;
                    tg_law_reset(&k->law, p->limit);
                    k->rested = true;
                }
                tg_mutex_unlock(&p->lock);
            }
            fresh = true;
            k->work = tg_now();
            continue;
        }
        k->rested = false;
        tg_keeper_loops(k);
        for (tg_worker *w = room ? p->all : NULL; w != NULL; w = w->next_all) {
            if (!w->present)
                continue;
            k->now[found].index = w->index;
            k->now[found].clock = w->clock;
            k->now[found++].idle = false;
            tg_keeper_note_gil(p, w);
        }
        /* parked ones: marked by their records, found again by index */
        for (tg_worker *w = room ? p->idle : NULL; w != NULL; w = w->next_idle)
            k->book[w->index].seen |= 0x80000000u;
        uint64_t dequeued = (uint64_t)atomic_load_explicit(&p->ring.head, memory_order_relaxed) + g->taken;
        uint64_t turns = dequeued - g->visited;
        l.active = (uint32_t)(places > 0 ? places : 0);
        l.max = p->max_workers;
        l.gil = g->gil;
        l.cpus = g->cpus;
        l.full = waits && !p->waking && places >= (int64_t)p->limit;
        tg_guest guest = tg_keeper_due(k, waits && !fresh, dequeued, turns, l.now);
        if (guest != TG_GUEST_NONE && !(l.full && tg_pool_others_wait(p, guest)))
            guest = TG_GUEST_NONE;
        k->law.target = g->target;
        if (k->law.limit != p->limit) {
            k->law.limit = p->limit;
            tg_law_restart(&k->law);
        }
        uint32_t limit = p->limit;
        tg_mutex_unlock(&p->lock);

        for (uint32_t i = 0; i < found; i++) {
            tg_page *page = &k->book[k->now[i].index];
            k->now[i].idle = (page->seen & 0x80000000u) != 0;
            page->seen &= 0x7fffffffu;
        }
        l.span = l.now - k->last;
        k->last = l.now;
        k->generation++;
        /* Workers that sleep starve nobody, so their loops are let alone. */
        bool burn = k->law.share >= 0.05 || (double)k->law.cpu > 0.3 * (double)k->law.span;
        int64_t ping = !burn ? 0 : k->law.level >= TG_LAW_SLOW_NS && limit == 1 ? TG_KEEPER_KNOWN_NS
                       : l.full && l.active < l.cpus && k->law.proof == 0 ? TG_KEEPER_ASK_NS : TG_KEEPER_PING_NS;
        int64_t loops = 0;
        bool ask = l.full && limit < l.max, served = true;
        for (uint32_t i = 0; i < k->n_watch; i++) {
            tg_watch *w = &k->watch[i];
            int64_t before = w->looks ? w->past[(w->looks - 1) % TG_KEEPER_PAST].cpu : -1;
            tg_watch_look(w, &l, ping);
            int64_t after = w->looks ? w->past[(w->looks - 1) % TG_KEEPER_PAST].cpu : -1;
            if (before >= 0 && after > before)
                loops += after - before;
            if (before >= 0 && after - before > l.loop_cpu)
                l.loop_cpu = after - before;
            if (ask && l.gil && before >= 0 && tg_watch_short(w, after - before, l.span))
                served = false;
        }
        int64_t process = tg_process_cpu();
        l.process = process < 0 || k->process < 0 ? -1 : process - k->process - loops;
        if (l.process < 0 && process >= 0)
            l.process = 0;
        k->process = process;
        tg_keeper_workers(k, &l, found, ask);
        l.asleep = l.asleep && served;
        l.attached = (uint32_t)atomic_exchange_explicit(&g->attached, 0, memory_order_relaxed);
        l.attach = (int64_t)atomic_exchange_explicit(&g->attach_ns, 0, memory_order_relaxed);
        if (!room)
            tg_keeper_room(k, records);
        if (fresh) {
            fresh = false;
            tg_law_restart(&k->law);
        } else {
            tg_ruling r = tg_law_judge(&k->law, &l);
            if (r.limit != limit) {
                *out = tg_keeper_apply(k, r.limit, r.reason, r.busy);
                if (out->start || out->room)
                    return TG_KEEPER_ACT;
                if (atomic_load_explicit(&k->log, memory_order_relaxed))
                    return TG_KEEPER_LOG;
            }
        }
        if (guest != TG_GUEST_NONE) {
            k->dequeued.at = l.now;
            if (guest == TG_GUEST_ANY)
                k->turns.at = l.now;
            *out = tg_pool_invite(p, guest);
            if (out->wake != NULL)
                tg_unpark(&out->wake->parker);
            out->wake = NULL; /* done */
            if (out->start || out->room)
                return TG_KEEPER_ACT;
        }
        bool quick = l.full && k->law.limit < l.max && (k->law.share < TG_LAW_ALONE || k->law.proof == 0) &&
                     k->law.span < TG_LAW_STEP_NS;
        bool calm = k->law.limit >= l.max && k->law.share < 0.05;
        tg_park_until(&p->steer.parker, l.now + (quick ? TG_KEEPER_QUICK_NS : calm ? TG_KEEPER_CALM_NS : TG_KEEPER_STEADY_NS));
    }
}

#endif
