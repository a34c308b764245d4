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

#include "tg_crew.h"

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
            w->parked = false;
        }
        tg_mutex_unlock(&p->lock);
        if (w == NULL)
            return;
        tg_worker_wake(w);
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

/* How many tokens of an operation (NULL: of all) have not started, at the most: what lies in the ring may be others'. */
static inline size_t tg_pool_unstarted(tg_pool *p, tg_op *only)
{
    tg_mutex_lock(&p->lock);
    size_t count = tg_ring_length(&p->ring);
    for (tg_op *op = p->ops; op != NULL; op = op->next_op)
        if (only == NULL || op == only)
            count += op->waiting;
    tg_mutex_unlock(&p->lock);
    return count;
}

/* Takes up to `most` tokens that have not started out of the ring and out of an operation's queues (NULL: of all), the
 * oldest first, and admits them to the caller, who now holds their references [P5] and ends them, unless somebody else was
 * first. Returns how many. After as many as tg_pool_unstarted told of one operation, all that it counted have been taken, or
 * started, but for those that newer ones of a higher priority have kept waiting. */
static inline size_t tg_pool_detach(tg_pool *p, tg_op *only, tg_token **out, size_t most)
{
    size_t count = 0;
    tg_mutex_lock(&p->lock);
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

/* Copies out up to `most` waiting tokens and takes a reference to each, as tg_pool_find does; returns how many wait, of
 * which those past `most` are not among them. */
static inline size_t tg_pool_list(tg_pool *p, tg_token **out, size_t most, void (*hold)(void *owner))
{
    size_t count = 0;
    tg_mutex_lock(&p->lock);
    for (tg_op *op = p->ops; op != NULL; op = op->next_op)
        for (tg_queue *q = &op->main; q != NULL; q = q->next)
            for (tg_token *t = q->head; t != NULL; t = t->next, count++)
                if (count < most) {
                    out[count] = t;
                    hold(t->owner);
                }
    tg_mutex_unlock(&p->lock);
    return count;
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
 * is resumed. Quietly: who can go on now is chosen later, as with tg_pool_abandon_quietly. */
static inline void tg_pool_pause_quietly(tg_pool *p, tg_op *only, bool paused)
{
    tg_mutex_lock(&p->lock);
    if (only != NULL)
        only->paused = paused;
    else
        p->gate.paused = paused;
    for (tg_op *op = p->ops; op != NULL; op = op->next_op)
        if (only == NULL || op == only)
            tg_op_bar(p, op);
    tg_mutex_unlock(&p->lock);
}

static inline tg_summons tg_pool_pause(tg_pool *p, tg_op *only, bool paused)
{
    tg_pool_pause_quietly(p, only, paused);
    return tg_pool_nudge(p, tg_now());
}

/* Another policy, from now on and for what waits. Quietly: as above. */
static inline void tg_pool_configure_quietly(tg_pool *p, tg_op *op, const tg_policy *policy)
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
    tg_mutex_unlock(&p->lock);
}

static inline tg_summons tg_pool_configure(tg_pool *p, tg_op *op, const tg_policy *policy)
{
    tg_pool_configure_quietly(p, op, policy);
    return tg_pool_nudge(p, tg_now());
}

/* tg_pool_freed, quietly. */
static inline void tg_pool_freed_quietly(tg_pool *p, tg_op *op)
{
    tg_mutex_lock(&p->lock);
    tg_gate_refresh_op(&p->gate, op);
    tg_mutex_unlock(&p->lock);
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

/* The number of CPUs has changed. Any thread. initial: as for tg_pool_steer. */
static inline void tg_pool_cpus(tg_pool *p, uint32_t cpus, uint32_t initial)
{
    tg_mutex_lock(&p->lock);
    p->steer.cpus = cpus;
    p->steer.initial = initial;
    tg_mutex_unlock(&p->lock);
}

static inline uint32_t tg_pool_cpus_now(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    uint32_t cpus = p->steer.cpus;
    tg_mutex_unlock(&p->lock);
    return cpus;
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

/* At most one worker is active, those that have been replaced apart. Any thread. */
static inline bool tg_pool_alone(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    bool alone = tg_pool_active(p) - tg_pool_replaced(p) <= 1;
    tg_mutex_unlock(&p->lock);
    return alone;
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
    uint32_t looks, held; /* see tg_op */
} tg_op_view;

static inline void tg_pool_look_op(tg_pool *p, tg_op *op, tg_op_view *v)
{
    tg_mutex_lock(&p->lock);
    v->waiting = op->waiting;
    v->paused = op->paused || p->gate.paused;
    v->policy = op->policy;
    v->looks = op->looks;
    v->held = op->held;
    v->oldest = 0;
    for (tg_queue *q = &op->main; q != NULL; q = q->next)
        if (q->head != NULL && (v->oldest == 0 || q->head->created < v->oldest))
            v->oldest = q->head->created;
    tg_mutex_unlock(&p->lock);
}

#endif
