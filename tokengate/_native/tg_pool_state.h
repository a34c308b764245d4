/* The state of a pool, what is done to it under its lock, and the submitters' side. Rules [P1] to [P5]: tg_pool.h. */
#ifndef TG_POOL_STATE_H
#define TG_POOL_STATE_H

#include "tg_law.h"
#include "tg_parker.h"
#include "tg_places.h"
#include "tg_port.h"
#include "tg_ring.h"

#if !defined(_WIN32)
#  include <errno.h>
#  include <unistd.h>
#endif

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

/* A worker that is let in past the limit, for tokens of operations that have no function at work. SHORT: only for those
 * that are short as measured, and not before what has a higher priority. ANY: whatever is next. Either goes on until there
 * are none, or its tokens have run for TG_GUEST_NS: about what a thread may keep the interpreter for, so that a loop
 * waits for one thread more, and not for more of it. */
typedef enum { TG_GUEST_NONE, TG_GUEST_SHORT, TG_GUEST_ANY } tg_guest;
#define TG_GUEST_NS 5000000

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
    bool parked;      /* under the lock: in the idle stack */
    tg_guest guest;   /* written by the owner under the lock, read by it alone: let in past the limit */
    int64_t stay;     /* the owner's alone: ns that its tokens have run since */
    int wake_fd;      /* not 0: woken by a write to it, for it waits for more than this pool; written by the owner under
                       * the lock at entry */
    int32_t clock;    /* CPU clock of its thread; written by the owner under the lock at entry, read under it */
#if !defined(_WIN32)
    pthread_t thread; /* written by the owner under the lock at entry, read under it while present */
#endif
    void *state;      /* what `holds` of the pool's steering is asked about; as `thread` */
    /* runs: the operation whose function it is in, NULL: none. Written: the owner (relaxed). Read: the keeper (relaxed).
     * Operations live as long as the pool. */
    _Atomic(struct tg_op *) runs;
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
    tg_guest invited;     /* the next worker that arrives is a guest, see tg_pool_welcome */
    uint32_t guests;      /* workers let in past the limit */
    uint32_t initial;     /* the limit to begin with */
    uint32_t cpus;        /* CPUs this process may use */
    int64_t target;       /* ns of loop lag */
    bool (*holds)(void *state); /* whether the worker of that `state` holds the GIL; NULL: nobody can tell */
    uint64_t taken;       /* tokens taken past the ring */
    uint64_t visited;     /* tokens taken out of the ring, or past it, by SHORT guests */
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

/* Wakes a worker that was taken out of the idle stack. */
static inline void tg_worker_wake(tg_worker *w)
{
#if !defined(_WIN32)
    if (w->wake_fd != 0) {
        uint64_t one = 1; /* an eventfd's count, or eight bytes in a pipe */
        ssize_t written;
        do
            written = write(w->wake_fd, &one, sizeof one);
        while (written < 0 && errno == EINTR); /* EAGAIN: it is readable already */
        return;
    }
#endif
    tg_unpark(&w->parker);
}

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
    /* a guest is let in past it also where a cut has left more at work than it allows */
    if (p->waking || (p->steer.invited == TG_GUEST_NONE && tg_pool_places(p) >= (int64_t)p->limit))
        return s;
    if (p->idle != NULL) {
        s.wake = p->idle;
        p->idle = s.wake->next_idle;
        p->n_idle--;
        s.wake->parked = false;
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

#endif
