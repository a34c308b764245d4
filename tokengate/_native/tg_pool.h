/* The pool: admission, the ring of admitted tokens, and the workers that park and are woken one by one.
 *
 *   submit -> [operation queues, fair heap]  --refill-->  [ring]  --pop-->  worker
 *              under the lock                              lock-free
 *
 * Rules, cited as [P1] ... :
 * [P1] Nothing here knows the interpreter. The lock is held for tens of instructions and never across a wake-up,
 *      a park, or a call out.
 * [P2] Only refill pushes into the ring, under the lock, so that "there is room" stays true until the push.
 * [P3] At most one worker is on its way at a time (`waking`): chosen under the lock by who made work, cleared by that
 *      worker once it has claimed (and, in Python, attached to the interpreter); it then chooses the next while work
 *      remains. So no more wake than there is work, and none who could not run yet.
 * [P4] No lost wake-up: a worker enters the idle stack under the lock after a refill that found nothing; a submitter
 *      links its token under the same lock and then sees either the idle worker or the one on its way.
 * [P5] A queue's or the ring's reference to a token belongs to the winner of the edge out of WAITING or ADMITTED; a
 *      token found ended at refill is left to who ended it (it comes for it in tg_pool_unlink), one found ended after
 *      a pop belongs to that worker.
 */
#ifndef TG_POOL_H
#define TG_POOL_H

#include "tg_law.h"
#include "tg_parker.h"
#include "tg_places.h"
#include "tg_port.h"
#include "tg_ring.h"

#ifndef TG_RING_MIN
#  define TG_RING_MIN 4u /* tests build with 2 */
#endif

/* Abandoned runs hold their worker; this many are replaced by further workers, so that stuck calls do not take the
 * lane. Beyond it the lane shrinks. */
#define TG_REPLACEMENTS 256

/* A worker settles its account, and with it admits and wakes, at least this often (ns of execution; tokens). Tokens
 * shorter than this are admitted several at a time, so that tiny work takes the lock once for many: the ring is
 * shared, so nothing is ever held hostage behind a slow token, and it never holds more than this much expected
 * work for each active worker. */
#define TG_SETTLE_NS TG_SHORT_NS
#define TG_SETTLE_TOKENS 32

typedef struct tg_worker {
    tg_parker parker;
    /* the account not settled yet; the owner's alone */
    tg_op *due_op;
    int64_t due_run, due_charge;
    uint32_t due_tokens;
    struct tg_worker *next_idle, *next_free, *next_all; /* under the pool's lock */
    uint32_t index;   /* reused by a successor; for names and pinning */
    bool summoned;    /* under the lock: this worker is the one on its way [P3] */
    bool present;     /* under the lock: a thread owns this record */
    bool guest;       /* the owner's alone: let in past the limit, for one token */
    int32_t clock;    /* CPU clock of its thread; written by the owner under the lock at entry, read under it */
#if !defined(_WIN32)
    pthread_t thread; /* written by the owner under the lock at entry, read under it while present */
#endif
} tg_worker;

/* The active limit, and what the keeper (tg_keeper.h) and the pool tell each other. All but the atomics under the
 * pool's lock. */
#define TG_POOL_PORTS 16u   /* event loops looked at; further ones are not */
#define TG_POOL_CHANGES 16u /* changes of the limit remembered for the log */

typedef struct {
    uint32_t from, to;
    tg_reason reason;
    double busy, level; /* what led to it: workers' CPU s per s, smoothed lag in ns */
} tg_change;

typedef struct {
    tg_parker parker;     /* the keeper's thread sleeps here */
    bool adaptive;        /* the limit is steered; else it is what was asked for */
    bool gil;
    bool alive;           /* the keeper's thread exists or is being started */
    bool awake;           /* it looks at the pool by itself, so nobody need call it */
    bool invited;         /* the next worker that arrives is a guest, see tg_pool_take_other */
    uint32_t guests;      /* workers let in past the limit */
    uint32_t initial;     /* the limit to begin with */
    uint32_t cpus;        /* CPUs this process may use */
    int64_t target;       /* ns of loop lag */
    uint64_t taken;       /* tokens taken past the ring */
    uint64_t cuts, changes;
    tg_reason reason;     /* of the last change */
    tg_change change[TG_POOL_CHANGES];
    tg_port *ports[TG_POOL_PORTS];
    uint32_t n_ports;
    /* met: the port that was last found among `ports`, so that a submitter need not look. Written: under the lock.
     * Read: submitters (relaxed); only compared, and cleared before its port can be freed. */
    _Atomic(tg_port *) met;
    /* attached, attach_ns: workers that have attached to the interpreter after a wait, and how long that took. Written:
     * they (relaxed add). Read: the keeper (relaxed). */
    _Atomic(uint64_t) attached, attach_ns;
} tg_steering;

typedef struct tg_pool {
    tg_mutex lock; /* guards everything below down to the ring */
    tg_gate gate;
    tg_op *ops;
    size_t n_ops, n_queues;
    tg_worker *idle, *spare, *all;
    uint32_t workers;     /* present or being started */
    uint32_t n_idle;
    uint32_t records;
    uint32_t max_workers;
    uint32_t limit;       /* active at once; the gate's lever */
    int64_t abandoned;    /* runs whose token has ended; signed like the counter it mirrors */
    bool waking;
    bool room;            /* a queue that somebody waits for has become shorter */
    bool accepting;
    bool closing;
    uint64_t cpu_before;  /* ns of CPU of the workers that have left */
    uint64_t wakes;       /* wake-ups and starts so far */
    tg_steering steer;
    tg_ring ring;
    /* next_id. Written: submitters (relaxed add). It orders nothing. */
    _Atomic(uint64_t) next_id;
    /* watchers: how many wait for tokens to end (drain, stop). Written: they (seq_cst add, then they look at
     * tg_op_live). Read: enders (seq_cst, after tg_op_ended). seq_cst: either the watcher sees the end or the ender
     * sees the watcher. */
    _Atomic(uint32_t) watchers;
    /* references. Written: retain (relaxed add), release (acq_rel sub: the last one sees all that others wrote). */
    _Atomic(uint32_t) references;
} tg_pool;

/* What the caller owes after it has let go of the lock: wake this worker, or start a thread. */
typedef struct {
    tg_worker *wake;
    bool start;
    bool room;   /* also: tell those who wait for room in an operation's queue */
    bool keeper; /* also: call the keeper */
} tg_summons;

static inline tg_pool *tg_pool_new(uint32_t max_workers, uint32_t limit)
{
    tg_pool *p = (tg_pool *)calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    size_t capacity = TG_RING_MIN;
    while (capacity < (size_t)max_workers + TG_REPLACEMENTS && capacity < 1024 && TG_RING_MIN > 2)
        capacity *= 2;
    if (!tg_ring_init(&p->ring, capacity)) {
        free(p);
        return NULL;
    }
    tg_mutex_init(&p->lock);
    p->max_workers = max_workers;
    p->limit = limit;
    p->gate.cap = tg_gate_cap(max_workers);
    p->gate.reserves = true;
    p->accepting = true;
    tg_parker_init(&p->steer.parker);
    p->steer.initial = limit;
    p->steer.cpus = 1;
    atomic_init(&p->steer.met, NULL);
    atomic_init(&p->steer.attached, 0);
    atomic_init(&p->steer.attach_ns, 0);
    atomic_init(&p->next_id, 0);
    atomic_init(&p->watchers, 0);
    atomic_init(&p->references, 1);
    return p;
}

static inline tg_pool *tg_pool_retain(tg_pool *p)
{
    atomic_fetch_add_explicit(&p->references, 1, memory_order_relaxed);
    return p;
}

static inline void tg_pool_release(tg_pool *p)
{
    if (atomic_fetch_sub_explicit(&p->references, 1, memory_order_acq_rel) != 1)
        return;
    while (p->all != NULL) {
        tg_worker *w = p->all;
        p->all = w->next_all;
        tg_parker_destroy(&w->parker);
        free(w);
    }
    while (p->ops != NULL) {
        tg_op *op = p->ops;
        p->ops = op->next_op;
        while (op->main.next != NULL) {
            tg_queue *q = op->main.next;
            op->main.next = q->next;
            free(q);
        }
        free(op);
    }
    for (uint32_t i = 0; i < p->steer.n_ports; i++)
        tg_port_release(p->steer.ports[i]);
    tg_parker_destroy(&p->steer.parker);
    free(p->gate.fair.queues);
    tg_ring_destroy(&p->ring);
    tg_mutex_destroy(&p->lock);
    free(p);
}

/* A new operation; hint: ns a token is expected to run until one has been measured. NULL: no memory. */
static inline tg_op *tg_pool_add_op(tg_pool *p, uint64_t hint, const tg_policy *policy)
{
    tg_op *op = (tg_op *)calloc(1, sizeof *op);
    if (op == NULL)
        return NULL;
    op->mean = hint;
    op->policy = *policy;
    op->main.op = op;
    op->main.priority = policy->priority;
    tg_hist_init(&op->times.wait);
    tg_hist_init(&op->times.run);
    tg_mutex_lock(&p->lock);
    /* room in the heap is made here, where failing is easy, so that submitting cannot fail */
    bool room = tg_fair_reserve(&p->gate.fair, p->n_queues + 1);
    if (room) {
        op->paused = false;
        op->next_op = p->ops;
        p->ops = op;
        p->n_ops++;
        p->n_queues++;
        atomic_store_explicit(&op->barred, p->gate.paused, memory_order_relaxed);
        p->gate.fair.priorities |= policy->priority != 0;
    }
    tg_mutex_unlock(&p->lock);
    if (!room) {
        free(op);
        return NULL;
    }
    return op;
}

/* ---- under the lock ------------------------------------------------------------------------------------------ */

static inline int64_t tg_pool_active(tg_pool *p)
{
    return (int64_t)p->workers - (int64_t)p->n_idle;
}

static inline int64_t tg_pool_replaced(tg_pool *p)
{
    return p->abandoned < 0 ? 0 : p->abandoned > TG_REPLACEMENTS ? TG_REPLACEMENTS : p->abandoned;
}

/* Active workers that count against the limit. */
static inline int64_t tg_pool_places(tg_pool *p)
{
    return tg_pool_active(p) - tg_pool_replaced(p) - (int64_t)p->steer.guests;
}

/* The keeper is needed, and nobody has called it: the limit keeps tokens from workers, or, where one lock lets one
 * worker at a time run, several are at work and a loop could starve. */
static inline bool tg_pool_call_keeper(tg_pool *p)
{
    tg_steering *g = &p->steer;
    int64_t places = tg_pool_places(p);
    if (!g->adaptive || g->awake || p->closing || (places < (int64_t)p->limit && !(g->gil && places >= 2)))
        return false;
    return true;
}

/* How many admitted tokens the ring may hold when `op` is next: one for each worker that is free to take it, and of tokens
 * expected to be short as many as make TG_SETTLE_NS of work for each active worker. Longer ones busy workers take straight
 * from the queues, so that the choice is as fresh as can be and nothing waits behind what was chosen before it came. */
static inline size_t tg_pool_depth(tg_pool *p, tg_op *op)
{
    int64_t active = tg_pool_active(p) - tg_pool_replaced(p);
    if (active < 0)
        active = 0; /* one worker may have been replaced twice: it waits, and its token has ended */
    if (!op->measured || op->mean > TG_SETTLE_NS) {
        int64_t room = (int64_t)p->limit - active, hands = (int64_t)p->max_workers - active;
        int64_t free = (room < hands ? room : hands) + p->waking;
        return free > 0 ? (size_t)free : 0;
    }
    size_t each = op->mean * TG_SETTLE_TOKENS <= TG_SETTLE_NS ? TG_SETTLE_TOKENS : 1 + (size_t)(TG_SETTLE_NS / (op->mean + 1));
    return (active > 0 ? (size_t)active : 1) * each;
}

static inline tg_token *tg_pool_admit(tg_pool *p, int64_t now)
{
    tg_token *t = tg_gate_admit(&p->gate, now);
    if (t != NULL && t->op->room_wanted)
        p->room = true;
    return t;
}

static inline void tg_pool_refill(tg_pool *p, int64_t now)
{
    tg_fair *fair = &p->gate.fair;
    if (fair->length == 0)
        return;
    tg_fair_age(fair, now);
    p->gate.crowd = (size_t)p->workers - p->n_idle + tg_ring_length(&p->ring);
    while (fair->length > 0) {
        if (tg_ring_length(&p->ring) >= tg_pool_depth(p, fair->queues[0]->op) || !tg_ring_has_room(&p->ring))
            return;
        tg_token *t = tg_pool_admit(p, now);
        if (t == NULL)
            return;
        bool pushed = tg_ring_push(&p->ring, t); /* [P2] */
        assert(pushed);
        (void)pushed;
    }
}

/* The next token for the worker that asks; NULL: there is no work at all. The ring may be empty although refill left
 * tokens waiting: other workers emptied it meanwhile, or one has taken its place in a slot and not yet let go of it.
 * Those workers may be busy for long, so nobody may go idle on that account [P4]: the token is admitted past the ring,
 * which is empty (only refill pushes), so the order stays. */
static inline tg_token *tg_pool_take(tg_pool *p, int64_t now)
{
    tg_pool_refill(p, now);
    tg_token *t = (tg_token *)tg_ring_pop(&p->ring);
    if (t == NULL && (t = tg_pool_admit(p, now)) != NULL)
        p->steer.taken++;
    return t;
}

static inline tg_summons tg_pool_choose(tg_pool *p)
{
    tg_summons s = {NULL, false, p->room, false};
    p->room = false;
    int64_t replaced = tg_pool_replaced(p);
    /* what could be admitted counts too: the ring can be empty for the moment although refill had no room for it */
    if (tg_ring_length(&p->ring) == 0 && p->gate.fair.length == 0)
        return s;
    s.keeper = tg_pool_call_keeper(p);
    if (p->waking || tg_pool_places(p) >= (int64_t)p->limit + (p->steer.invited ? 1 : 0))
        return s;
    if (p->idle != NULL) {
        s.wake = p->idle;
        p->idle = s.wake->next_idle;
        p->n_idle--;
        s.wake->summoned = true;
    } else if ((int64_t)p->workers - replaced < (int64_t)p->max_workers) {
        s.start = true;
        p->workers++;
    } else {
        return s;
    }
    p->waking = true;
    p->wakes++;
    return s;
}

static inline void tg_pool_arrive(tg_pool *p, tg_worker *w)
{
    if (w->summoned) {
        w->summoned = false;
        p->waking = false;
    }
}

static inline uint64_t tg_pool_new_id(tg_pool *p)
{
    return atomic_fetch_add_explicit(&p->next_id, 1, memory_order_relaxed) + 1;
}

/* How many ids have been given out. */
static inline uint64_t tg_pool_new_ids(tg_pool *p)
{
    return atomic_load_explicit(&p->next_id, memory_order_relaxed);
}

static inline void tg_pool_watch(tg_pool *p, bool on)
{
    atomic_fetch_add_explicit(&p->watchers, on ? 1u : UINT32_MAX, memory_order_seq_cst);
}

static inline bool tg_pool_watched(tg_pool *p)
{
    return atomic_load_explicit(&p->watchers, memory_order_seq_cst) != 0;
}

/* ---- submitters ---------------------------------------------------------------------------------------------- */

/* What became of tokens handed over. */
typedef struct {
    size_t taken;   /* of those handed over, from the first on; fewer: the queue is full, or the pool closed */
    bool closed;    /* nothing is taken any more */
    tg_token *shed; /* older ones that had to make room, by `prev` (`next` may become an inbox's at any time), ADMITTED to
                     * the caller, who ends them [P5] */
    tg_summons summons;
} tg_receipt;

/* Makes room in a full queue: takes out the operation's oldest waiting token, ADMITTED to the caller. */
static inline tg_token *tg_pool_shed(tg_pool *p, tg_op *op)
{
    for (;;) {
        tg_token *oldest = NULL;
        for (tg_queue *q = &op->main; q != NULL; q = q->next)
            if (q->head != NULL && (oldest == NULL || q->head->created < oldest->created))
                oldest = q->head;
        if (oldest == NULL)
            return NULL;
        tg_op_unlink(&p->gate, oldest);
        if (!tg_word_try_admit(&oldest->word).moved)
            continue; /* [P5] */
        tg_count(&op->admitted);
        if (oldest->extra != NULL && oldest->extra->key != NULL)
            tg_key_take(oldest->extra); /* who ends it gives that back */
        return oldest;
    }
}

/* Before a token with a key is handed over: the queue for such tokens. NULL: no memory. */
static inline tg_queue *tg_pool_key_queue(tg_pool *p, tg_op *op)
{
    tg_mutex_lock(&p->lock);
    tg_queue *q = tg_gate_queue(&p->gate, op, op->main.priority, true, &p->n_queues);
    tg_mutex_unlock(&p->lock);
    return q;
}

/* As many of the operation wait as may. Those for which there are free workers, and places in its limit, do not count:
 * they would be executing but for the moment that takes, or the adaptive limit, which is none of the caller's business. */
static inline bool tg_pool_full(tg_pool *p, tg_op *op)
{
    if (op->policy.max_waiting == 0 || op->waiting < op->policy.max_waiting)
        return false;
    if (op->paused || p->gate.paused)
        return true;
    int64_t free = (int64_t)p->max_workers - (tg_pool_active(p) - tg_pool_replaced(p)) + p->waking -
                   (int64_t)tg_ring_length(&p->ring);
    int64_t places = (int64_t)op->policy.limit - tg_op_places(op);
    if (op->policy.limit != 0 && places < free)
        free = places;
    return (int64_t)op->waiting >= (int64_t)op->policy.max_waiting + (free > 0 ? free : 0);
}

/* Hands over up to `count` tokens of one operation, oldest first, with the reference the caller held to each that is
 * taken. patient: where the queue is full, others need not make room. Any thread; wakes nobody itself: the caller does
 * what the receipt says. */
static inline tg_receipt tg_pool_submit(tg_pool *p, tg_op *op, tg_token **tokens, size_t count, bool patient, int64_t now)
{
    tg_receipt r = {0, false, NULL, {NULL, false, false, false}};
    tg_mutex_lock(&p->lock);
    if (!p->accepting) {
        tg_mutex_unlock(&p->lock);
        r.closed = true;
        return r;
    }
    for (; r.taken < count; r.taken++) {
        tg_token *t = tokens[r.taken];
        if (tg_pool_full(p, op)) {
            tg_pool_refill(p, now); /* what can be admitted at once does not wait */
            if (tg_pool_full(p, op)) {
                if (patient || op->policy.overflow != TG_SHED_OLDEST)
                    break;
                tg_token *old = tg_pool_shed(p, op);
                if (old != NULL) {
                    old->prev = r.shed;
                    r.shed = old;
                }
            }
        }
        if (t->extra != NULL && t->extra->key == NULL && t->extra->priority != op->main.priority)
            t->extra->queue = tg_gate_queue(&p->gate, op, t->extra->priority, false, &p->n_queues);
        tg_step step = tg_word_submit(&t->word);
        assert(step.moved); /* nobody else knows the token yet */
        (void)step;
        tg_op_link(&p->gate, t, false);
    }
    atomic_fetch_add_explicit(&op->submitted, r.taken, memory_order_relaxed);
    tg_pool_refill(p, now);
    r.summons = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    return r;
}

/* After winning the edge out of WAITING: the token leaves its queue, if refill has not already taken it out [P5]. True:
 * somebody waits for the room it leaves. */
static inline bool tg_pool_unlink(tg_pool *p, tg_token *t)
{
    tg_mutex_lock(&p->lock);
    if (t->linked)
        tg_op_unlink(&p->gate, t);
    bool room = t->op->room_wanted;
    tg_mutex_unlock(&p->lock);
    return room;
}

/* A place has been given back although the operation was out of the heap for want of one (tg_op_give_place), or a key:
 * whoever can be admitted now is. */
static inline tg_summons tg_pool_freed(tg_pool *p, tg_op *op, int64_t now)
{
    tg_mutex_lock(&p->lock);
    tg_gate_refresh_op(&p->gate, op);
    tg_pool_refill(p, now);
    tg_summons s = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    return s;
}

/* The function of a token with a key has returned, or such a token was ended after its admission. The caller then lets
 * go of the key. */
static inline void tg_pool_give_key(tg_pool *p, tg_token *t)
{
    tg_mutex_lock(&p->lock);
    tg_key_give(t->extra);
    tg_gate_refresh_op(&p->gate, t->op);
    /* for whoever comes next: it asks because `gated` is set */
    atomic_store_explicit(&t->op->gated, 1, memory_order_seq_cst);
    tg_mutex_unlock(&p->lock);
}

/* ---- workers ------------------------------------------------------------------------------------------------- */

/* A thread that tg_summons asked for takes a worker's record. NULL: no memory; call tg_pool_start_failed. */
static inline tg_worker *tg_pool_enter(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    tg_worker *w = p->spare;
    if (w != NULL) {
        p->spare = w->next_free;
    } else {
        w = (tg_worker *)calloc(1, sizeof *w);
        if (w == NULL) {
            tg_mutex_unlock(&p->lock);
            return NULL;
        }
        tg_parker_init(&w->parker);
        w->index = p->records++;
        w->next_all = p->all;
        p->all = w;
    }
    w->summoned = true;
    w->present = true;
    w->guest = false;
    w->clock = tg_own_clock();
#if !defined(_WIN32)
    w->thread = pthread_self();
#endif
    tg_mutex_unlock(&p->lock);
    return w;
}

/* The thread could not be started. Returns how many workers are left; with none, the caller ends
 * what waits, or leaves it to the next submission, which tries again. */
static inline uint32_t tg_pool_start_failed(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    uint32_t left = --p->workers;
    p->waking = false;
    p->steer.invited = false;
    tg_summons s = {NULL, false, false, false};
    if (p->idle != NULL) {
        s = tg_pool_choose(p); /* the place it held may be free for one that had to park as surplus */
        p->room |= s.room;
    }
    tg_mutex_unlock(&p->lock);
    if (s.wake != NULL)
        tg_unpark(&s.wake->parker);
    return left;
}

static inline uint64_t tg_thread_cpu(tg_worker *w)
{
#if defined(__linux__)
    clockid_t clock;
    struct timespec ts;
    if (pthread_getcpuclockid(w->thread, &clock) == 0 && clock_gettime(clock, &ts) == 0)
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
#else
    (void)w;
#endif
    return 0;
}

static inline void tg_pool_settle(tg_pool *p, tg_worker *w)
{
    tg_op *op = w->due_op;
    if (op == NULL)
        return;
    tg_fair_charge(&p->gate.fair, op, w->due_run - w->due_charge);
    if (w->due_tokens > 0) {
        int64_t each = w->due_run / w->due_tokens, mean = (int64_t)op->mean;
        int64_t weight = w->due_tokens < 8 ? w->due_tokens : 8;
        op->mean = (uint64_t)(op->measured ? mean + (each - mean) * weight / 8 : each);
        op->measured = true;
    }
    w->due_op = NULL;
    w->due_run = w->due_charge = 0;
    w->due_tokens = 0;
}

/* ---- a guest ------------------------------------------------------------------------------------------------- */

/* None of the operation's functions is at work. */
static inline bool tg_op_absent(tg_op *op)
{
    return atomic_load_explicit(&op->started, memory_order_relaxed) ==
           atomic_load_explicit(&op->returned, memory_order_relaxed);
}

/* True: a token of an operation that has no function at work may be admitted, or has been. */
static inline bool tg_pool_others_wait(tg_pool *p)
{
    if (tg_ring_length(&p->ring) > 0)
        return true; /* whose they are is seen only by taking them out */
    for (size_t i = 0; i < p->gate.fair.length; i++)
        if (tg_op_absent(p->gate.fair.queues[i]->op))
            return true;
    return false;
}

/* Takes a token of an operation that has no function at work. The ring is turned round once, so that its order stays;
 * what a worker takes meanwhile only goes first. NULL: there is none. */
static inline tg_token *tg_pool_take_other(tg_pool *p, int64_t now)
{
    tg_token *found = NULL;
    while (found == NULL) {
        tg_token *t = (tg_token *)tg_ring_pop(&p->ring);
        if (t == NULL)
            break;
        /* The others go back to their queues. One that cannot has ended or been started, and is the caller's to skip. */
        if (tg_op_absent(t->op) || !tg_gate_give_back(&p->gate, t))
            found = t;
    }
    for (size_t i = 0; found == NULL && i < p->gate.fair.length; i++) {
        tg_queue *q = p->gate.fair.queues[i];
        if (!tg_op_absent(q->op) || !tg_gate_open(&p->gate, q))
            continue;
        found = tg_gate_admit_from(&p->gate, q, now);
        if (found == NULL) {
            i = (size_t)-1; /* that one had ended, and the heap has changed */
            continue;
        }
        p->steer.taken++;
        p->room = p->room || found->op->room_wanted;
    }
    return found;
}

/* The worker that was summoned by an invitation: it takes one token of another operation, past the limit. */
static inline tg_token *tg_pool_welcome(tg_pool *p, tg_worker *w)
{
    p->steer.invited = false;
    if (tg_pool_places(p) <= (int64_t)p->limit)
        return NULL; /* a place has become free meanwhile */
    tg_token *t = tg_pool_take_other(p, tg_now());
    if (t != NULL) {
        w->guest = true;
        p->steer.guests++;
    }
    return t;
}

/* Waits for a token. Returns it ADMITTED, or NULL: the worker has left the pool and must end. Called detached from
 * the interpreter. */
static inline tg_token *tg_pool_wait(tg_pool *p, tg_worker *w)
{
    for (;;) {
        tg_mutex_lock(&p->lock);
        tg_pool_settle(p, w);
        tg_token *t = NULL;
        if (w->summoned && p->steer.invited)
            t = tg_pool_welcome(p, w);
        if (t == NULL && tg_pool_places(p) <= (int64_t)p->limit)
            t = tg_pool_take(p, tg_now());
        if (t != NULL) {
            tg_mutex_unlock(&p->lock);
            return t;
        }
        tg_pool_arrive(p, w);
        bool excess = (int64_t)p->workers - tg_pool_replaced(p) > (int64_t)p->max_workers;
        /* Closing: there is no work, or the limit keeps it from this worker and leaves it to the active ones. Either
         * way nobody parks in a closing pool, for nobody would wake it again. */
        if (excess || p->closing) {
            p->workers--;
            p->cpu_before += tg_thread_cpu(w);
            w->present = false;
            w->next_free = p->spare;
            p->spare = w;
            /* nobody to wake in its place: it found no work, or what is left active still fills the limit */
            tg_mutex_unlock(&p->lock);
            return NULL;
        }
        w->next_idle = p->idle;
        p->idle = w;
        p->n_idle++;
        tg_mutex_unlock(&p->lock);
        tg_park(&w->parker);
    }
}

/* The claimant is about to run; with it attached the next may be woken [P3]. */
static inline tg_summons tg_pool_claimed(tg_pool *p, tg_worker *w)
{
    tg_mutex_lock(&p->lock);
    tg_pool_arrive(p, w);
    tg_pool_refill(p, tg_now());
    tg_summons s = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    return s;
}

/* The slow half of tg_pool_next and tg_pool_skip: settle, admit, take, choose whom to wake. */
static inline tg_token *tg_pool_turn(tg_pool *p, tg_worker *w, tg_op *op, bool late, int64_t now, tg_summons *out)
{
    tg_token *t = NULL;
    *out = (tg_summons){NULL, false, false, false};
    tg_mutex_lock(&p->lock);
    if (late)
        p->abandoned--;
    tg_pool_settle(p, w);
    if (op != NULL && tg_op_gated(op))
        tg_gate_refresh_op(&p->gate, op);
    if (w->guest) {
        w->guest = false;
        p->steer.guests--;
    }
    if (tg_pool_places(p) <= (int64_t)p->limit) {
        t = tg_pool_take(p, now);
        *out = tg_pool_choose(p); /* without a token there is no work, so it asks for nothing */
    }
    tg_mutex_unlock(&p->lock);
    return t;
}

/* A function of `op` has returned after `run` ns: takes the next token without waiting, lock-free while the account
 * is small. NULL: nothing to run and nothing asked in `out`, go to tg_pool_wait. late: the token had been abandoned
 * before. */
static inline tg_token *tg_pool_next(tg_pool *p, tg_worker *w, tg_op *op, int64_t charge, int64_t run, bool late,
                                     int64_t now, tg_summons *out)
{
    if (w->due_op != NULL && w->due_op != op) {
        tg_mutex_lock(&p->lock);
        tg_pool_settle(p, w);
        tg_mutex_unlock(&p->lock);
    }
    w->due_op = op;
    w->due_run += run;
    w->due_charge += charge;
    w->due_tokens++;
    if (!late && !w->guest && !tg_op_gated(op) && w->due_run < TG_SETTLE_NS && w->due_tokens < TG_SETTLE_TOKENS) {
        tg_token *t = (tg_token *)tg_ring_pop(&p->ring);
        if (t != NULL) {
            *out = (tg_summons){NULL, false, false, false};
            return t;
        }
    }
    return tg_pool_turn(p, w, op, late, now, out);
}

/* A token that was popped had ended already (its charge goes back): takes the next one. */
static inline tg_token *tg_pool_skip(tg_pool *p, tg_worker *w, tg_op *op, int64_t charge, int64_t now,
                                     tg_summons *out)
{
    tg_mutex_lock(&p->lock);
    tg_fair_charge(&p->gate.fair, op, -charge);
    tg_mutex_unlock(&p->lock);
    return tg_pool_turn(p, w, op, false, now, out);
}

/* Starts a popped token of a barred operation, if it may start; see tg_gate_start. */
static inline enum tg_start tg_pool_start(tg_pool *p, tg_token *t)
{
    tg_mutex_lock(&p->lock);
    enum tg_start how = tg_gate_start(&p->gate, t);
    tg_mutex_unlock(&p->lock);
    return how;
}

/* The next token for a worker that has run none. */
static inline tg_token *tg_pool_again(tg_pool *p, tg_worker *w, int64_t now, tg_summons *out)
{
    return tg_pool_turn(p, w, NULL, false, now, out);
}

/* For a worker that is about to wait for this very token: starts it, if it has not started and pause, limit and key let
 * it. True: the caller runs it; `was` tells from which state, and from WAITING it owns the queue's reference. */
static inline bool tg_pool_help(tg_pool *p, tg_token *t, int64_t now, uint32_t *was, tg_summons *out)
{
    tg_op *op = t->op;
    tg_key *key = t->extra != NULL ? t->extra->key : NULL;
    bool ours = false;
    *out = (tg_summons){NULL, false, false, false};
    tg_mutex_lock(&p->lock);
    uint32_t state = tg_state_of(tg_word_load(&t->word));
    bool may = !op->paused && !p->gate.paused;
    if (op->policy.limit != 0 && tg_op_executing(op) >= (int64_t)op->policy.limit)
        may = false;
    if (state == TG_WAITING)
        may = may && t->linked && (op->policy.limit == 0 || tg_gate_has_place(&p->gate, op)) &&
              (key == NULL || (key->ready && key->head == t));
    else
        may = may && (op->policy.limit == 0 || tg_op_places(op) <= (int64_t)op->policy.limit) &&
              (key == NULL || key->running <= op->policy.key_limit); /* beyond it: to be ended, not run */
    if (may && (state == TG_WAITING || state == TG_ADMITTED)) {
        tg_step step = tg_word_try_start(&t->word);
        ours = step.moved;
        *was = tg_state_of(step.old);
    }
    if (ours) {
        tg_count(&op->started);
        if (*was == TG_WAITING) {
            tg_op_unlink(&p->gate, t);
            tg_stamp(&t->admitted, now);
            tg_count(&op->admitted);
            if (key != NULL)
                tg_key_take(t->extra);
            out->room = op->room_wanted;
        }
    }
    tg_mutex_unlock(&p->lock);
    return ours;
}

/* ---- administration ------------------------------------------------------------------------------------------ */

/* A worker gives up its place: its token ended while the function runs on. It no longer counts as active, and another may
 * take its place. */
static inline tg_summons tg_pool_abandon(tg_pool *p, tg_op *op, int64_t now)
{
    tg_mutex_lock(&p->lock);
    p->abandoned++;
    if (tg_op_gated(op))
        tg_gate_refresh_op(&p->gate, op);
    tg_pool_refill(p, now);
    tg_summons s = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    return s;
}

/* A function waits for other tokens: the same, and it no longer counts among those its operation may hold. */
static inline tg_summons tg_pool_aside(tg_pool *p, tg_op *op, int64_t now)
{
    tg_mutex_lock(&p->lock);
    op->aside++;
    tg_mutex_unlock(&p->lock);
    return tg_pool_abandon(p, op, now);
}

/* The wait is over, or the function has returned. */
static inline void tg_pool_back(tg_pool *p, tg_op *op)
{
    tg_mutex_lock(&p->lock);
    op->aside--;
    p->abandoned--;
    tg_mutex_unlock(&p->lock);
}

/* A worker that waits can still be replaced. */
static inline bool tg_pool_replaceable(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    bool so = p->abandoned < TG_REPLACEMENTS;
    tg_mutex_unlock(&p->lock);
    return so;
}

/* The same as tg_pool_abandon, but whoever replaces it is chosen later, by tg_pool_nudge or by whatever else happens in the pool. */
static inline void tg_pool_abandon_quietly(tg_pool *p, tg_op *op)
{
    tg_mutex_lock(&p->lock);
    p->abandoned++;
    if (tg_op_gated(op))
        tg_gate_refresh_op(&p->gate, op);
    tg_mutex_unlock(&p->lock);
}

/* Chooses whoever can take a place that became free quietly. */
static inline tg_summons tg_pool_nudge(tg_pool *p, int64_t now)
{
    tg_mutex_lock(&p->lock);
    tg_pool_refill(p, now);
    tg_summons s = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    return s;
}

/* It counts again: an abandoned run returned on a worker that goes on with another token. */
static inline void tg_pool_unabandon(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    p->abandoned--;
    tg_mutex_unlock(&p->lock);
}

/* No new tokens from now on; those that wait still run. */
static inline void tg_pool_refuse(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    p->accepting = false;
    p->room = true; /* who waits for room learns that there will be none */
    tg_mutex_unlock(&p->lock);
}

/* Wakes up to `most` idle workers, so that they may leave: only for closing and resizing, never for work. */
static inline void tg_pool_rouse(tg_pool *p, int64_t most)
{
    for (; most > 0; most--) {
        tg_mutex_lock(&p->lock);
        tg_worker *w = p->idle;
        if (w != NULL) {
            p->idle = w->next_idle;
            p->n_idle--;
        }
        tg_mutex_unlock(&p->lock);
        if (w == NULL)
            return;
        tg_unpark(&w->parker);
    }
}

/* Workers leave once nothing waits. */
static inline void tg_pool_close(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    p->accepting = false;
    p->closing = true;
    tg_mutex_unlock(&p->lock);
    tg_pool_rouse(p, INT64_MAX); /* ends: nobody parks any more */
    tg_unpark(&p->steer.parker);  /* the keeper leaves */
}

static inline void tg_pool_open(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    p->accepting = true;
    p->closing = false;
    tg_mutex_unlock(&p->lock);
}

/* Takes up to `most` tokens that have not started out of an operation's queues (NULL: of all) and out of the ring, and
 * admits them to the caller, who now holds their references [P5] and ends them, unless somebody else was first. Returns
 * how many. */
static inline size_t tg_pool_detach(tg_pool *p, tg_op *only, tg_token **out, size_t most)
{
    size_t count = 0;
    tg_mutex_lock(&p->lock);
    for (tg_op *op = p->ops; op != NULL && count < most; op = op->next_op) {
        if (only != NULL && op != only)
            continue;
        while (op->waiting > 0 && count < most) {
            tg_token *t = tg_pool_shed(p, op);
            if (t != NULL)
                out[count++] = t;
        }
        p->room |= op->room_wanted;
    }
    /* Stuck workers may never pop what lies in the ring. Those of other operations go back to their queues; one that can
     * not has ended or been started, and its reference, too, is the caller's. */
    while (count < most) {
        tg_token *t = (tg_token *)tg_ring_pop(&p->ring);
        if (t == NULL)
            break;
        if (only == NULL || t->op == only)
            tg_fair_charge(&p->gate.fair, t->op, -(int64_t)t->charge);
        else if (tg_gate_give_back(&p->gate, t))
            continue;
        out[count++] = t;
    }
    tg_mutex_unlock(&p->lock);
    return count;
}

/* Puts what lies in the ring back into its queues, so that it can be found there. Up to `most` that have ended or been
 * started are handed to the caller, who drops their references; returns how many: `most`, ask again. */
static inline size_t tg_pool_recall(tg_pool *p, tg_token **out, size_t most)
{
    size_t count = 0;
    tg_mutex_lock(&p->lock);
    while (count < most) {
        tg_token *t = (tg_token *)tg_ring_pop(&p->ring);
        if (t == NULL)
            break;
        if (!tg_gate_give_back(&p->gate, t))
            out[count++] = t;
    }
    tg_mutex_unlock(&p->lock);
    return count;
}

/* Finds a waiting token of the pool by its number; NULL: none. `hold` is called under the lock to take a reference. */
static inline tg_token *tg_pool_find(tg_pool *p, uint64_t id, void (*hold)(void *owner))
{
    tg_token *found = NULL;
    tg_mutex_lock(&p->lock);
    for (tg_op *op = p->ops; op != NULL && found == NULL; op = op->next_op)
        for (tg_queue *q = &op->main; q != NULL && found == NULL; q = q->next)
            for (tg_token *t = q->head; t != NULL && found == NULL; t = t->next)
                if (t->id == id)
                    found = t;
    if (found != NULL)
        hold(found->owner);
    tg_mutex_unlock(&p->lock);
    return found;
}

/* The token of an operation that is admitted next, if it can be; NULL: none waits. `hold` as in tg_pool_find. */
static inline tg_token *tg_pool_first(tg_pool *p, tg_op *op, void (*hold)(void *owner))
{
    tg_mutex_lock(&p->lock);
    tg_token *t = op->main.head;
    for (tg_queue *q = op->main.next; q != NULL && t == NULL; q = q->next)
        t = q->head;
    if (t != NULL)
        hold(t->owner);
    tg_mutex_unlock(&p->lock);
    return t;
}

static inline void tg_op_bar(tg_pool *p, tg_op *op)
{
    bool over = op->policy.limit != 0 && tg_op_places(op) > (int64_t)op->policy.limit;
    atomic_store_explicit(&op->barred, op->paused || p->gate.paused || over, memory_order_relaxed);
    tg_gate_refresh_op(&p->gate, op);
}

/* Stops, or lets go on, what of an operation (NULL: of all) has not started. What is paused by itself stays so when all
 * is resumed. */
static inline tg_summons tg_pool_pause(tg_pool *p, tg_op *only, bool paused)
{
    tg_mutex_lock(&p->lock);
    if (only != NULL)
        only->paused = paused;
    else
        p->gate.paused = paused;
    for (tg_op *op = p->ops; op != NULL; op = op->next_op)
        if (only == NULL || op == only)
            tg_op_bar(p, op);
    tg_pool_refill(p, tg_now());
    tg_summons s = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    return s;
}

/* Another policy, from now on and for what waits. */
static inline tg_summons tg_pool_configure(tg_pool *p, tg_op *op, const tg_policy *policy)
{
    tg_mutex_lock(&p->lock);
    bool back = policy->priority < op->main.priority;
    op->policy = *policy;
    op->main.priority = policy->priority;
    p->gate.fair.priorities |= policy->priority != 0;
    for (tg_queue *q = &op->main; q != NULL; q = q->next) {
        if (!q->keyed)
            continue;
        q->priority = policy->priority;
        for (tg_token *t = q->head; t != NULL; t = t->next)
            if (t->extra->key->head == t)
                tg_key_refresh(q, t->extra->key);
    }
    tg_fair_moved(&p->gate.fair, op, back);
    tg_op_bar(p, op);
    p->room |= op->room_wanted;
    tg_pool_refill(p, tg_now());
    tg_summons s = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    return s;
}

/* Says that somebody waits for room in the operation's queue (false: nobody any more). True: there is room already, or the
 * pool is closed. */
static inline bool tg_pool_want_room(tg_pool *p, tg_op *op, bool wanted)
{
    tg_mutex_lock(&p->lock);
    op->room_wanted = wanted;
    bool room = !p->accepting || !tg_pool_full(p, op);
    tg_mutex_unlock(&p->lock);
    return room;
}

/* Under the lock: the limit is something else now. */
static inline void tg_pool_limit(tg_pool *p, uint32_t limit, tg_reason reason, double busy, double level)
{
    tg_steering *g = &p->steer;
    if (limit == p->limit)
        return;
    g->change[g->changes++ % TG_POOL_CHANGES] = (tg_change){p->limit, limit, reason, busy, level};
    g->cuts += reason == TG_LAW_CUT_LAG || reason == TG_LAW_CUT_CPU;
    g->reason = reason;
    p->limit = limit;
}

/* Copies out the changes of the limit after the `seen` first ones, oldest first, at most TG_POOL_CHANGES: what is older
 * is forgotten. Counts `seen` up to now. */
static inline size_t tg_pool_changes(tg_pool *p, uint64_t *seen, tg_change *out)
{
    size_t n = 0;
    tg_mutex_lock(&p->lock);
    uint64_t all = p->steer.changes;
    if (*seen + TG_POOL_CHANGES < all)
        *seen = all - TG_POOL_CHANGES;
    while (*seen < all)
        out[n++] = p->steer.change[(*seen)++ % TG_POOL_CHANGES];
    tg_mutex_unlock(&p->lock);
    return n;
}

/* How the limit is steered; before any worker exists. target: ns of loop lag, 0: not at all. */
static inline void tg_pool_steer(tg_pool *p, int64_t target, uint32_t initial, uint32_t cpus, bool gil)
{
    tg_mutex_lock(&p->lock);
    p->steer.adaptive = target > 0;
    p->steer.target = target;
    p->steer.gil = gil;
    p->steer.cpus = cpus;
    p->steer.initial = initial;
    tg_mutex_unlock(&p->lock);
}

/* Tokens of this loop are on their way: the keeper looks after it. Any thread. */
static inline void tg_pool_meet(tg_pool *p, tg_port *port)
{
    tg_steering *g = &p->steer;
    if (atomic_load_explicit(&g->met, memory_order_relaxed) == port)
        return;
    tg_mutex_lock(&p->lock);
    uint32_t i = 0;
    while (i < g->n_ports && g->ports[i] != port)
        i++;
    if (i == TG_POOL_PORTS) { /* a closed one makes room */
        for (i = 0; i < g->n_ports && !tg_port_closed(g->ports[i]); i++)
            ;
        if (i < g->n_ports) {
            tg_port_release(g->ports[i]);
            g->ports[i] = tg_port_retain(port);
        }
    } else if (i == g->n_ports) {
        g->ports[g->n_ports++] = tg_port_retain(port);
    }
    if (i < g->n_ports)
        atomic_store_explicit(&g->met, port, memory_order_relaxed);
    tg_mutex_unlock(&p->lock);
}

/* A worker has attached to the interpreter, `ns` after it left its wait. */
static inline void tg_pool_attached(tg_pool *p, int64_t ns)
{
    atomic_fetch_add_explicit(&p->steer.attached, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&p->steer.attach_ns, (uint64_t)ns, memory_order_relaxed);
}

/* Whether operations without a limit leave some workers to the others; they do unless told otherwise. Holds from the next
 * admission on. */
static inline void tg_pool_reserve(tg_pool *p, bool on)
{
    tg_mutex_lock(&p->lock);
    p->gate.reserves = on;
    p->gate.cap = on ? tg_gate_cap(p->max_workers) : 0;
    tg_mutex_unlock(&p->lock);
}

static inline void tg_pool_resize(tg_pool *p, uint32_t max_workers, uint32_t limit, tg_summons *out)
{
    tg_mutex_lock(&p->lock);
    p->max_workers = max_workers;
    tg_pool_limit(p, p->steer.adaptive && p->limit < limit ? p->limit : limit, TG_LAW_RESIZED, 0, 0);
    p->gate.cap = p->gate.reserves ? tg_gate_cap(max_workers) : 0;
    for (tg_op *op = p->ops; op != NULL; op = op->next_op)
        tg_gate_refresh_op(&p->gate, op);
    int64_t surplus = (int64_t)p->workers - tg_pool_replaced(p) - (int64_t)max_workers;
    tg_pool_refill(p, tg_now());
    *out = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    tg_pool_rouse(p, surplus); /* busy ones leave when they next find nothing */
}

typedef struct {
    uint32_t workers, idle, max_workers, limit;
    uint64_t queued, admitted, wakes, cuts;
    tg_reason reason;
    double cpu_seconds;
} tg_pool_view;

static inline void tg_pool_look(tg_pool *p, tg_pool_view *v)
{
    tg_mutex_lock(&p->lock);
    v->workers = p->workers;
    v->idle = p->n_idle;
    v->max_workers = p->max_workers;
    v->limit = p->limit;
    v->wakes = p->wakes;
    v->cuts = p->steer.cuts;
    v->reason = p->steer.reason;
    v->admitted = tg_ring_length(&p->ring);
    v->queued = 0;
    for (tg_op *op = p->ops; op != NULL; op = op->next_op)
        v->queued += op->waiting;
    uint64_t cpu = p->cpu_before;
    for (tg_worker *w = p->all; w != NULL; w = w->next_all)
        if (w->present)
            cpu += tg_thread_cpu(w);
    v->cpu_seconds = (double)cpu * 1e-9;
    tg_mutex_unlock(&p->lock);
}

typedef struct {
    uint64_t waiting;
    bool paused;
    tg_policy policy;
    int64_t oldest; /* monotonic ns when the oldest waiting token was created; 0: none waits */
} tg_op_view;

static inline void tg_pool_look_op(tg_pool *p, tg_op *op, tg_op_view *v)
{
    tg_mutex_lock(&p->lock);
    v->waiting = op->waiting;
    v->paused = op->paused || p->gate.paused;
    v->policy = op->policy;
    v->oldest = 0;
    for (tg_queue *q = &op->main; q != NULL; q = q->next)
        if (q->head != NULL && (v->oldest == 0 || q->head->created < v->oldest))
            v->oldest = q->head->created;
    tg_mutex_unlock(&p->lock);
}

#endif
