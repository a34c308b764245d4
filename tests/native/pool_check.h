/* The whole pool looked over at one moment, under its lock; any thread may call it at any time. */
#ifndef POOL_CHECK_H
#define POOL_CHECK_H

#include "check.h"

#include "tg_pool.h"

/* What a test knows of an operation and the pool cannot: who is in the middle of something. */
typedef struct {
    tg_op *op;
    /* threads that have begun to give a place or a key back and have not yet told the pool; raised before, lowered after */
    atomic_int returning;
    /* places that may be taken beyond the limit for now: tokens admitted to somebody who only ends them */
    atomic_int beyond;
    bool loose; /* its limits are lowered while places are taken */
} op_watch;

#define MOST_WATCHED 16
static op_watch watched[MOST_WATCHED];
static size_t n_watched;

/* The record of an operation, made on first use; before other threads are started. */
static inline op_watch *watch_op(tg_op *op)
{
    for (size_t i = 0; i < n_watched; i++)
        if (watched[i].op == op)
            return &watched[i];
    CHECK(n_watched < MOST_WATCHED);
    watched[n_watched].op = op;
    return &watched[n_watched++];
}

/* The pool that they belonged to is gone. */
static inline void unwatch_all(void)
{
    memset(watched, 0, sizeof watched);
    n_watched = 0;
}

static inline op_watch find_watch(tg_op *op)
{
    for (size_t i = 0; i < n_watched; i++)
        if (watched[i].op == op)
            return (op_watch){op, atomic_load(&watched[i].returning), atomic_load(&watched[i].beyond), watched[i].loose};
    return (op_watch){op, 0, 0, false};
}

/* Whether there certainly is a place, by the counters alone. */
static inline bool check_place(tg_gate *g, tg_op *op)
{
    int64_t places = tg_op_places(op);
    if (op->policy.limit != 0)
        return places < (int64_t)op->policy.limit;
    return g->cap == 0 || places - tg_op_abandoned_now(op) - op->aside < (int64_t)g->cap;
}

/* tg_gate_open without its effect on `gated`. */
static inline bool check_open(tg_gate *g, tg_queue *q)
{
    return q->head != NULL && !q->op->paused && !g->paused && !(q->keyed && q->ready_head == NULL) &&
           check_place(g, q->op);
}

/* The tokens of one key. Returns how many. */
static inline uint64_t check_key(tg_queue *q, tg_key *k, op_watch watch)
{
    uint64_t waiting = 0;
    tg_token *before = NULL;
    for (tg_token *t = k->head; t != NULL; before = t, t = t->extra->key_next, waiting++)
        CHECK(t->extra->key == k && t->extra->queue == q && t->extra->key_prev == before && t->linked);
    CHECK(k->tail == before);
    CHECK(k->ready == (k->running < q->op->policy.key_limit));
    CHECK(watch.loose || k->running <= q->op->policy.key_limit + (unsigned)watch.beyond);
    return waiting;
}

static inline void check_keys(tg_queue *q, op_watch watch)
{
    uint64_t waiting = 0;
    size_t ready = 0, listed = 0;
    for (tg_token *t = q->head; t != NULL; t = t->next) {
        CHECK(t->extra != NULL && t->extra->key != NULL && t->extra->token == t);
        if (t->extra->key->head == t) {
            waiting += check_key(q, t->extra->key, watch);
            ready += t->extra->key->ready;
        } else {
            CHECK(t->extra->key_prev != NULL && t->extra->key_prev->extra->key_next == t);
        }
    }
    CHECK_EQ(waiting, q->waiting);
    tg_key *before = NULL;
    for (tg_key *k = q->ready_head; k != NULL; before = k, k = k->ready_next, listed++)
        CHECK(k->ready && k->head != NULL && k->ready_prev == before);
    CHECK(q->ready_tail == before);
    CHECK_EQ(listed, ready);
}

static inline void check_queue(tg_pool *p, tg_queue *q, tg_op *op, op_watch watch)
{
    uint64_t waiting = 0;
    tg_token *before = NULL;
    for (tg_token *t = q->head; t != NULL; before = t, t = t->next, waiting++) {
        uint32_t word = tg_word_load(&t->word);
        CHECK(t->prev == before && t->op == op && t->linked && tg_queue_of(t) == q);
        CHECK(tg_state_of(word) == TG_WAITING || tg_ended(word)); /* ended: its ender comes to unlink it */
    }
    CHECK(q->op == op && q->tail == before);
    CHECK_EQ(q->waiting, waiting);
    if (q->keyed)
        check_keys(q, watch);
    else
        CHECK(q->ready_head == NULL && q->ready_tail == NULL);
    if (q->heap_at != 0) {
        CHECK(q->heap_at <= p->gate.fair.length && p->gate.fair.queues[q->heap_at - 1] == q);
        CHECK(q->head != NULL && !op->paused && !p->gate.paused); /* it may have become full unnoticed */
    } else if (check_open(&p->gate, q)) {
        /* a place has just come back, and who brings it has been asked to tell */
        CHECK(tg_op_gated(op) && atomic_load(&watch_op(op)->returning) > 0);
    }
}

static inline uint64_t check_op(tg_pool *p, tg_op *op, size_t *queues, size_t *ready)
{
    uint64_t waiting = 0;
    op_watch watch = find_watch(op);
    for (tg_queue *q = &op->main; q != NULL; q = q->next, ++*queues) {
        CHECK(!q->keyed || q != &op->main);
        check_queue(p, q, op, watch);
        waiting += q->waiting;
        *ready += q->heap_at != 0;
    }
    CHECK_EQ(op->waiting, waiting);
    CHECK(tg_op_places(op) >= 0);
    if (op->policy.limit != 0 && !watch.loose)
        CHECK(tg_op_places(op) <= (int64_t)op->policy.limit + watch.beyond);
    return waiting;
}

static inline void check_heap(tg_fair *fair, size_t ready)
{
    CHECK_EQ(fair->length, ready);
    for (size_t i = 0; i < fair->length; i++) {
        CHECK(fair->queues[i]->heap_at == i + 1);
        CHECK(i == 0 || !tg_fair_before(fair->queues[i], fair->queues[(i - 1) / 2]));
        CHECK(!fair->queues[i]->aged || fair->priorities);
    }
}

/* [P4]: where work remains and a worker could take it, one is on its way. Sound at any moment: what lies in the ring can
 * only have been more when the lock was last let go; an operation to which a place is just coming back is left out. */
static inline void check_woken(tg_pool *p, bool starts_fail)
{
    bool work = tg_ring_length(&p->ring) > 0;
    for (size_t i = 0; i < p->gate.fair.length; i++) {
        tg_queue *q = p->gate.fair.queues[i];
        work |= check_open(&p->gate, q) && find_watch(q->op).returning == 0;
    }
    bool place = tg_pool_places(p) < (int64_t)p->limit;
    bool hand = p->idle != NULL || (!starts_fail && (int64_t)p->workers - tg_pool_replaced(p) < (int64_t)p->max_workers);
    CHECK(!(work && place && hand) || p->waking);
}

/* starts_fail: the test makes threads fail to start, after which nothing is tried until the next event. */
static inline void check_pool(tg_pool *p, bool starts_fail)
{
    uint64_t queued = 0;
    size_t ops = 0, queues = 0, ready = 0, idle = 0, present = 0, summoned = 0, records = 0;
    tg_mutex_lock(&p->lock);
    for (tg_op *op = p->ops; op != NULL; op = op->next_op, ops++)
        queued += check_op(p, op, &queues, &ready);
    CHECK(queued > 0 || ready == 0);
    CHECK_EQ(p->n_ops, ops);
    CHECK_EQ(p->n_queues, queues);
    CHECK(p->gate.fair.room >= queues);
    check_heap(&p->gate.fair, ready);
    for (tg_worker *w = p->all; w != NULL; w = w->next_all, records++) {
        present += w->present;
        summoned += w->summoned;
        CHECK(w->present || !w->summoned);
    }
    for (tg_worker *w = p->idle; w != NULL; w = w->next_idle, idle++)
        CHECK(w->present && !w->summoned && w->due_op == NULL);
    CHECK_EQ(p->n_idle, idle);
    CHECK_EQ(p->records, records);
    /* [P3]: one on its way; it is either known already or a thread that has not entered yet */
    CHECK(summoned <= (p->waking ? 1 : 0));
    CHECK(p->workers == present || (p->waking && summoned == 0 && p->workers == present + 1));
    check_woken(p, starts_fail);
    tg_mutex_unlock(&p->lock);
}

#endif
