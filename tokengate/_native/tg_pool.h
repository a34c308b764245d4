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

#include "tg_fair.h"
#include "tg_parker.h"
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
#define TG_SETTLE_NS 50000
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
#if !defined(_WIN32)
    pthread_t thread; /* written by the owner under the lock at entry, read under it while present */
#endif
} tg_worker;

typedef struct tg_pool {
    tg_mutex lock; /* guards everything below down to the ring */
    tg_fair fair;
    tg_op *ops;
    size_t n_ops;
    tg_worker *idle, *spare, *all;
    uint32_t workers;     /* present or being started */
    uint32_t n_idle;
    uint32_t records;
    uint32_t max_workers;
    uint32_t limit;       /* active at once; the gate's lever */
    int64_t abandoned;    /* runs whose token has ended; signed like the counter it mirrors */
    bool waking;
    bool accepting;
    bool closing;
    uint64_t cpu_before;  /* ns of CPU of the workers that have left */
    uint64_t wakes;       /* wake-ups and starts so far */
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
typedef struct { tg_worker *wake; bool start; } tg_summons;

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
    p->accepting = true;
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
        free(op);
    }
    free(p->fair.ops);
    tg_ring_destroy(&p->ring);
    tg_mutex_destroy(&p->lock);
    free(p);
}

/* A new operation; hint: ns a token is expected to run until one has been measured. NULL: no memory. */
static inline tg_op *tg_pool_add_op(tg_pool *p, uint64_t hint)
{
    tg_op *op = (tg_op *)calloc(1, sizeof *op);
    if (op == NULL)
        return NULL;
    op->mean = hint;
    tg_hist_init(&op->times.wait);
    tg_hist_init(&op->times.run);
    tg_mutex_lock(&p->lock);
    /* room in the heap is made here, where failing is easy, so that submitting cannot fail */
    bool room = tg_fair_reserve(&p->fair, p->n_ops + 1);
    if (room) {
        op->next_op = p->ops;
        p->ops = op;
        p->n_ops++;
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

static inline void tg_op_link(tg_fair *fair, tg_op *op, tg_token *t)
{
    t->next = NULL;
    t->prev = op->tail;
    if (op->tail != NULL)
        op->tail->next = t;
    else
        op->head = t;
    op->tail = t;
    t->linked = true;
    op->waiting++;
    if (op->heap_at == 0)
        tg_fair_insert(fair, op);
}

static inline void tg_op_unlink(tg_fair *fair, tg_op *op, tg_token *t)
{
    if (t->prev != NULL)
        t->prev->next = t->next;
    else
        op->head = t->next;
    if (t->next != NULL)
        t->next->prev = t->prev;
    else
        op->tail = t->prev;
    t->next = t->prev = NULL;
    t->linked = false;
    op->waiting--;
    if (op->head == NULL)
        tg_fair_remove(fair, op);
}

/* How many admitted tokens the ring may hold when `op` is next: two, or one for each active worker, or as many as
 * make TG_SETTLE_NS of work for each. Few, so that the choice stays fresh and a token cancelled after admission
 * costs little. */
static inline size_t tg_pool_depth(tg_pool *p, tg_op *op)
{
    size_t each = 1, active = (size_t)(tg_pool_active(p) - tg_pool_replaced(p));
    if (op->measured)
        each = op->mean * TG_SETTLE_TOKENS <= TG_SETTLE_NS ? TG_SETTLE_TOKENS : 1 + (size_t)(TG_SETTLE_NS / (op->mean + 1));
    if (each > TG_SETTLE_TOKENS)
        each = TG_SETTLE_TOKENS;
    size_t depth = (active ? active : 1) * each;
    return depth < 2 ? 2 : depth;
}

/* Admits the next waiting token by fair share; NULL: none waits. */
static inline tg_token *tg_pool_admit(tg_pool *p, int64_t now)
{
    while (p->fair.length > 0) {
        tg_op *op = p->fair.ops[0];
        tg_token *t = op->head;
        if (op->service > p->fair.clock)
            p->fair.clock = op->service; /* never back: a newcomer placed behind the others would wait for their past */
        tg_op_unlink(&p->fair, op, t);
        if (!tg_word_try_admit(&t->word).moved)
            continue; /* [P5] */
        tg_stamp(&t->admitted, now);
        t->charge = (int64_t)op->mean;
        tg_fair_charge(&p->fair, op, t->charge);
        tg_count(&op->admitted);
        return t;
    }
    return NULL;
}

static inline void tg_pool_refill(tg_pool *p, int64_t now)
{
    while (p->fair.length > 0) {
        if (tg_ring_length(&p->ring) >= tg_pool_depth(p, p->fair.ops[0]) || !tg_ring_has_room(&p->ring))
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
    return t != NULL ? t : tg_pool_admit(p, now);
}

static inline tg_summons tg_pool_choose(tg_pool *p)
{
    tg_summons s = {NULL, false};
    int64_t replaced = tg_pool_replaced(p);
    /* what waits counts too: the ring can be empty for the moment although refill had no room for it */
    bool work = tg_ring_length(&p->ring) > 0 || p->fair.length > 0;
    if (p->waking || !work || tg_pool_active(p) - replaced >= (int64_t)p->limit)
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

/* Hands over `count` tokens of one operation, oldest first, with the reference the caller held. Returns false, and
 * takes nothing, when the pool no longer accepts. Any thread; wakes nobody itself: the caller does what `out` says. */
static inline bool tg_pool_submit(tg_pool *p, tg_op *op, tg_token **tokens, size_t count, int64_t now, tg_summons *out)
{
    tg_mutex_lock(&p->lock);
    if (!p->accepting) {
        tg_mutex_unlock(&p->lock);
        *out = (tg_summons){NULL, false};
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        tg_step step = tg_word_submit(&tokens[i]->word);
        assert(step.moved); /* nobody else knows the token yet */
        (void)step;
        tg_op_link(&p->fair, op, tokens[i]);
    }
    atomic_fetch_add_explicit(&op->submitted, count, memory_order_relaxed);
    tg_pool_refill(p, now);
    *out = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    return true;
}

/* After winning the edge out of WAITING: the token leaves its queue, if refill has not already taken it out [P5]. */
static inline void tg_pool_unlink(tg_pool *p, tg_token *t)
{
    tg_mutex_lock(&p->lock);
    if (t->linked)
        tg_op_unlink(&p->fair, t->op, t);
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
    tg_summons s = {NULL, false};
    if (p->idle != NULL)
        s = tg_pool_choose(p); /* the place it held may be free for one that had to park as surplus */
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
    tg_fair_charge(&p->fair, op, w->due_run - w->due_charge);
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

/* Waits for a token. Returns it ADMITTED, or NULL: the worker has left the pool and must end. Called detached from
 * the interpreter. */
static inline tg_token *tg_pool_wait(tg_pool *p, tg_worker *w)
{
    for (;;) {
        tg_mutex_lock(&p->lock);
        tg_pool_settle(p, w);
        if (tg_pool_active(p) - tg_pool_replaced(p) <= (int64_t)p->limit) {
            tg_token *t = tg_pool_take(p, tg_now());
            if (t != NULL) {
                tg_mutex_unlock(&p->lock);
                return t;
            }
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
static inline tg_token *tg_pool_turn(tg_pool *p, tg_worker *w, bool late, int64_t now, tg_summons *out)
{
    tg_token *t = NULL;
    *out = (tg_summons){NULL, false};
    tg_mutex_lock(&p->lock);
    if (late)
        p->abandoned--;
    tg_pool_settle(p, w);
    if (tg_pool_active(p) - tg_pool_replaced(p) <= (int64_t)p->limit) {
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
    if (!late && w->due_run < TG_SETTLE_NS && w->due_tokens < TG_SETTLE_TOKENS) {
        tg_token *t = (tg_token *)tg_ring_pop(&p->ring);
        if (t != NULL) {
            *out = (tg_summons){NULL, false};
            return t;
        }
    }
    return tg_pool_turn(p, w, late, now, out);
}

/* A token that was popped had ended already (its charge goes back): takes the next one. */
static inline tg_token *tg_pool_skip(tg_pool *p, tg_worker *w, tg_op *op, int64_t charge, int64_t now,
                                     tg_summons *out)
{
    tg_mutex_lock(&p->lock);
    tg_fair_charge(&p->fair, op, -charge);
    tg_mutex_unlock(&p->lock);
    return tg_pool_turn(p, w, false, now, out);
}

/* ---- administration ------------------------------------------------------------------------------------------ */

/* A worker gives up its place: its token ended while the function runs on, or the function waits for other tokens. It
 * no longer counts as active, and another may take its place. */
static inline tg_summons tg_pool_abandon(tg_pool *p, int64_t now)
{
    tg_mutex_lock(&p->lock);
    p->abandoned++;
    tg_pool_refill(p, now);
    tg_summons s = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    return s;
}

/* The same, but whoever replaces it is chosen later, by tg_pool_nudge or by whatever else happens in the pool. */
static inline void tg_pool_abandon_quietly(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    p->abandoned++;
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

/* It counts again: an abandoned run returned on a worker that goes on with another token, or a wait is over. */
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
}

static inline void tg_pool_open(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    p->accepting = true;
    p->closing = false;
    tg_mutex_unlock(&p->lock);
}

/* Takes the oldest waiting token of an operation (NULL: of any) out of its queue and admits it to the caller, who now
 * holds its reference [P5] and ends it, unless somebody else was first; NULL: none waits. Of any: also those that lie
 * in the ring, which stuck workers may never pop. */
static inline tg_token *tg_pool_detach(tg_pool *p, tg_op *only)
{
    tg_token *t = NULL;
    tg_mutex_lock(&p->lock);
    for (;;) {
        tg_op *op = only != NULL ? only : p->fair.length > 0 ? p->fair.ops[0] : NULL;
        if (op == NULL || op->head == NULL)
            break;
        t = op->head;
        tg_op_unlink(&p->fair, op, t);
        if (tg_word_try_admit(&t->word).moved) {
            tg_count(&op->admitted);
            break;
        }
        t = NULL;
    }
    if (t == NULL && only == NULL)
        t = (tg_token *)tg_ring_pop(&p->ring);
    tg_mutex_unlock(&p->lock);
    return t;
}

static inline void tg_pool_resize(tg_pool *p, uint32_t max_workers, uint32_t limit, tg_summons *out)
{
    tg_mutex_lock(&p->lock);
    p->max_workers = max_workers;
    p->limit = limit;
    int64_t surplus = (int64_t)p->workers - tg_pool_replaced(p) - (int64_t)max_workers;
    tg_pool_refill(p, tg_now());
    *out = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    tg_pool_rouse(p, surplus); /* busy ones leave when they next find nothing */
}

typedef struct {
    uint32_t workers, idle, max_workers, limit;
    uint64_t queued, admitted, wakes;
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
    v->admitted = tg_ring_length(&p->ring);
    v->queued = 0;
    for (size_t i = 0; i < p->fair.length; i++)
        v->queued += p->fair.ops[i]->waiting;
    uint64_t cpu = p->cpu_before;
    for (tg_worker *w = p->all; w != NULL; w = w->next_all)
        if (w->present)
            cpu += tg_thread_cpu(w);
    v->cpu_seconds = (double)cpu * 1e-9;
    tg_mutex_unlock(&p->lock);
}

typedef struct {
    uint64_t waiting;
    int64_t oldest; /* monotonic ns when the oldest waiting token was created; 0: none waits */
} tg_op_view;

static inline void tg_pool_look_op(tg_pool *p, tg_op *op, tg_op_view *v)
{
    tg_mutex_lock(&p->lock);
    v->waiting = op->waiting;
    v->oldest = op->head != NULL ? op->head->created : 0;
    tg_mutex_unlock(&p->lock);
}

#endif
