/* Places: which queues may be admitted from. An operation's queue is in the fair heap exactly while it has a token that
 * pause, limit, key and reserve let start; everything here keeps that so, under the pool's lock.
 *
 * A place is taken at admission and given back when the function has returned, or the token was ended before it started.
 * An abandoned run keeps its place in the limit and its key until it returns, so that a pool of ten connections never
 * sees an eleventh caller. Places of a limit are not stored but counted: admitted - returned - dropped. The counters are
 * raised without the lock; see tg_op.gated for why no free place is overlooked. Keys are counted under the lock.
 */
#ifndef TG_PLACES_H
#define TG_PLACES_H

#include "tg_fair.h"

/* An operation without a limit leaves this many workers to the others (or an eighth of them, if that is more), so that
 * calls of one kind that are all stuck do not take the house; in a lane of fewer than TG_RESERVE_FROM workers, and in
 * one whose number of workers somebody has chosen (tg_pool_reserve), none. */
#define TG_RESERVE 2u
#define TG_RESERVE_FROM 16u
#define TG_SHORT_NS 50000 /* tokens expected to run no longer are admitted many at a time */
#define TG_QUEUES 64 /* of one operation: further priorities than this share its own */

typedef struct {
    tg_fair fair;
    bool paused;     /* all operations */
    bool reserves;   /* operations without a limit leave workers to the others */
    uint32_t cap;    /* workers an operation without a limit may hold; 0: all */
    size_t crowd;    /* at most this many places are taken in all; kept by refill */
} tg_gate;

static inline uint32_t tg_gate_cap(uint32_t max_workers)
{
    if (max_workers < TG_RESERVE_FROM)
        return 0;
    uint32_t kept = max_workers / 8 > TG_RESERVE ? max_workers / 8 : TG_RESERVE;
    return max_workers - kept;
}

/* Tokens admitted or executing. Never less than there are: what returns meanwhile is seen next time. */
static inline int64_t tg_op_places(tg_op *op)
{
    uint64_t back = atomic_load_explicit(&op->returned, memory_order_seq_cst) +
                    atomic_load_explicit(&op->dropped, memory_order_seq_cst);
    return (int64_t)(atomic_load_explicit(&op->admitted, memory_order_relaxed) - back);
}

/* Functions that have not returned. */
static inline int64_t tg_op_executing(tg_op *op)
{
    uint64_t returned = atomic_load_explicit(&op->returned, memory_order_seq_cst);
    return (int64_t)(tg_counted(&op->started) - returned);
}

static inline bool tg_gate_has_place(tg_gate *g, tg_op *op)
{
    if (op->policy.limit != 0)
        return tg_op_places(op) < (int64_t)op->policy.limit;
    if (g->cap == 0 || g->crowd < g->cap)
        return true;
    /* Of short ones many lie in the ring at a time, and hold no worker. */
    int64_t held = op->mean > TG_SHORT_NS ? tg_op_places(op) : tg_op_executing(op);
    int64_t abandoned = atomic_load_explicit(&op->abandoned_now, memory_order_seq_cst);
    return held - (abandoned > 0 ? abandoned : 0) - op->aside < (int64_t)g->cap;
}

/* Has a token that may be admitted now. */
static inline bool tg_gate_open(tg_gate *g, tg_queue *q)
{
    tg_op *op = q->op;
    if (q->head == NULL || op->paused || g->paused || (q->keyed && q->ready_head == NULL))
        return false;
    if (tg_gate_has_place(g, op))
        return true;
    /* Announced first, looked at again second: who gives a place back counts it first and looks at `gated` second. */
    atomic_store_explicit(&op->gated, 1, memory_order_seq_cst);
    return tg_gate_has_place(g, op);
}

/* Puts the queue into the heap or takes it out, as it now belongs. */
static inline void tg_gate_refresh(tg_gate *g, tg_queue *q)
{
    bool open = tg_gate_open(g, q);
    if (open && q->heap_at == 0)
        tg_fair_insert(&g->fair, q);
    else if (!open && q->heap_at != 0)
        tg_fair_remove(&g->fair, q);
}

static inline void tg_gate_refresh_op(tg_gate *g, tg_op *op)
{
    atomic_store_explicit(&op->gated, 0, memory_order_seq_cst);
    for (tg_queue *q = &op->main; q != NULL; q = q->next)
        tg_gate_refresh(g, q);
}

/* ---- keys ---------------------------------------------------------------------------------------------------- */

static inline void tg_key_refresh(tg_queue *q, tg_key *k)
{
    bool ready = k->head != NULL && k->running < q->op->policy.key_limit;
    if (ready == k->ready)
        return;
    k->ready = ready;
    if (ready) { /* last: keys are served in turn */
        k->ready_next = NULL;
        k->ready_prev = q->ready_tail;
        if (q->ready_tail != NULL)
            q->ready_tail->ready_next = k;
        else
            q->ready_head = k;
        q->ready_tail = k;
        return;
    }
    if (k->ready_prev != NULL)
        k->ready_prev->ready_next = k->ready_next;
    else
        q->ready_head = k->ready_next;
    if (k->ready_next != NULL)
        k->ready_next->ready_prev = k->ready_prev;
    else
        q->ready_tail = k->ready_prev;
}

/* in_order: by number, where the others that come back are; else last. */
static inline void tg_key_link(tg_extra *x, bool in_order)
{
    tg_queue *q = x->queue;
    tg_key *k = x->key;
    tg_token *after = in_order ? k->head : NULL;
    while (after != NULL && after->id < x->token->id)
        after = after->extra->key_next;
    x->key_next = after;
    x->key_prev = after != NULL ? after->extra->key_prev : k->tail;
    if (x->key_next != NULL)
        x->key_next->extra->key_prev = x->token;
    else
        k->tail = x->token;
    if (x->key_prev != NULL)
        x->key_prev->extra->key_next = x->token;
    else
        k->head = x->token;
    tg_key_refresh(q, k);
}

static inline void tg_key_unlink(tg_extra *x)
{
    tg_queue *q = x->queue;
    tg_key *k = x->key;
    if (x->key_prev != NULL)
        x->key_prev->extra->key_next = x->key_next;
    else
        k->head = x->key_next;
    if (x->key_next != NULL)
        x->key_next->extra->key_prev = x->key_prev;
    else
        k->tail = x->key_prev;
    x->key_next = x->key_prev = NULL;
    tg_key_refresh(q, k);
}

/* One of the key's tokens has been admitted. */
static inline void tg_key_take(tg_extra *x)
{
    tg_queue *q = x->queue;
    tg_key *k = x->key;
    k->running++;
    if (k->ready) { /* to the end of the list, if it may be served again at all */
        uint32_t running = k->running;
        k->running = UINT32_MAX;
        tg_key_refresh(q, k);
        k->running = running;
    }
    tg_key_refresh(q, k);
}

static inline void tg_key_give(tg_extra *x)
{
    x->key->running--;
    tg_key_refresh(x->queue, x->key);
}

/* ---- queues -------------------------------------------------------------------------------------------------- */

/* Last in its queue, or, where it had been admitted and comes back, in order of its number: the walk is short, for only
 * others that came back can be before it. */
static inline void tg_op_link(tg_gate *g, tg_token *t, bool in_order)
{
    tg_queue *q = tg_queue_of(t);
    tg_op *op = t->op;
    tg_token *after = in_order ? q->head : NULL;
    while (after != NULL && after->id < t->id)
        after = after->next;
    t->next = after;
    t->prev = after != NULL ? after->prev : q->tail;
    if (t->next != NULL)
        t->next->prev = t;
    else
        q->tail = t;
    if (t->prev != NULL)
        t->prev->next = t;
    else
        q->head = t;
    t->linked = true;
    if (op->waiting == 0)
        tg_fair_arrives(&g->fair, op);
    q->waiting++;
    op->waiting++;
    if (t->extra != NULL && t->extra->key != NULL)
        tg_key_link(t->extra, in_order);
    if (q->heap_at == 0)
        tg_gate_refresh(g, q);
}

static inline void tg_op_unlink(tg_gate *g, tg_token *t)
{
    tg_queue *q = tg_queue_of(t);
    tg_op *op = t->op;
    if (t->prev != NULL)
        t->prev->next = t->next;
    else
        q->head = t->next;
    if (t->next != NULL)
        t->next->prev = t->prev;
    else
        q->tail = t->prev;
    t->next = t->prev = NULL;
    t->linked = false;
    q->waiting--;
    op->waiting--;
    if (t->extra != NULL && t->extra->key != NULL)
        tg_key_unlink(t->extra);
    if (q->head == NULL)
        q->aged = false;
    if (q->heap_at != 0 && (q->head == NULL || (q->keyed && q->ready_head == NULL)))
        tg_fair_remove(&g->fair, q);
}

/* Takes out and admits the next token of a queue in the heap that is open; NULL: it had ended. */
static inline tg_token *tg_gate_admit_from(tg_gate *g, tg_queue *q, int64_t now)
{
    tg_op *op = q->op;
    tg_token *t = q->keyed ? q->ready_head->head : q->head;
    if (op->service > g->fair.clock)
        g->fair.clock = op->service; /* never back: a newcomer placed behind the others would wait for their past */
    tg_op_unlink(g, t);
    if (!tg_word_try_admit(&t->word).moved)
        return NULL; /* ended: left to who ended it, [P5] in tg_pool.h */
    tg_stamp(&t->admitted, now);
    tg_count(&op->admitted);
    q->served = now;
    t->charge = op->mean;
    if (t->extra != NULL && t->extra->key != NULL)
        tg_key_take(t->extra);
    if (q->aged) {
        q->aged = false;
        if (q->heap_at)
            tg_fair_sift(&g->fair, q->heap_at - 1);
    }
    tg_fair_charge(&g->fair, op, (int64_t)t->charge);
    g->crowd++;
    return t;
}

/* Takes out and admits the next token; NULL: none may be admitted. */
static inline tg_token *tg_gate_admit(tg_gate *g, int64_t now)
{
    while (g->fair.length > 0) {
        tg_queue *q = g->fair.queues[0];
        if (!tg_gate_open(g, q)) {
            tg_fair_remove(&g->fair, q);
            continue;
        }
        tg_token *t = tg_gate_admit_from(g, q, now);
        if (t != NULL)
            return t;
    }
    return NULL;
}

/* Puts an admitted token that has not started back where it came from. False: it has ended, or been started. */
static inline bool tg_gate_give_back(tg_gate *g, tg_token *t)
{
    tg_op *op = t->op;
    if (!tg_word_give_back(&t->word).moved)
        return false;
    atomic_fetch_sub_explicit(&op->admitted, 1, memory_order_relaxed);
    tg_fair_charge(&g->fair, op, -(int64_t)t->charge);
    if (t->extra != NULL && t->extra->key != NULL)
        tg_key_give(t->extra);
    tg_op_link(g, t, true);
    tg_gate_refresh_op(g, op); /* the place is free for its other queues, too */
    return true;
}

enum tg_start { TG_STARTED, TG_PUT_BACK, TG_NOT_STARTED };

/* Starts an admitted token of a barred operation if it may start: the operation is not paused, nor as many of it running
 * as its limit has been lowered to. `started` is counted here, under the lock, so that the next one sees it. PUT_BACK: it
 * is in its queue again, with the reference. NOT_STARTED: it had ended. */
static inline enum tg_start tg_gate_start(tg_gate *g, tg_token *t)
{
    tg_op *op = t->op;
    bool full = op->policy.limit != 0 && tg_op_executing(op) >= (int64_t)op->policy.limit;
    if (op->paused || g->paused || full)
        return tg_gate_give_back(g, t) ? TG_PUT_BACK : TG_NOT_STARTED;
    if (op->policy.limit == 0 || tg_op_places(op) <= (int64_t)op->policy.limit)
        atomic_store_explicit(&op->barred, 0, memory_order_relaxed);
    if (!tg_word_try_start(&t->word).moved)
        return TG_NOT_STARTED;
    tg_count(&op->started);
    return TG_STARTED;
}

/* The queue of an operation for one priority, or for its tokens with keys, made on first use. NULL: no memory, or too
 * many priorities. `queues` is how many there are in all. */
static inline tg_queue *tg_gate_queue(tg_gate *g, tg_op *op, int32_t priority, bool keyed, size_t *queues)
{
    int count = 0;
    for (tg_queue *q = &op->main; q != NULL; q = q->next, count++)
        if (q->keyed == keyed && (keyed || q->priority == priority))
            return q;
    if ((!keyed && count >= TG_QUEUES) || !tg_fair_reserve(&g->fair, *queues + 1))
        return NULL;
    tg_queue *q = (tg_queue *)calloc(1, sizeof *q);
    if (q == NULL)
        return NULL;
    ++*queues;
    q->op = op;
    q->priority = priority;
    q->keyed = keyed;
    q->next = op->main.next;
    op->main.next = q;
    g->fair.priorities |= priority != 0;
    return q;
}

#endif
