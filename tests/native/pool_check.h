/* The whole pool looked over at one moment, under its lock; any thread may call it at any time. */
#ifndef POOL_CHECK_H
#define POOL_CHECK_H

#include "check.h"

#include "tg_pool.h"

static inline uint64_t check_queue(tg_op *op)
{
    uint64_t waiting = 0;
    tg_token *before = NULL;
    for (tg_token *t = op->head; t != NULL; before = t, t = t->next) {
        uint32_t state = tg_state_of(tg_word_load(&t->word));
        CHECK(t->prev == before && t->op == op && t->linked);
        CHECK(state != TG_CREATED && state != TG_ADMITTED); /* not WAITING: the winner of that edge comes to unlink it */
        waiting++;
    }
    CHECK(op->tail == before);
    CHECK_EQ(op->waiting, waiting);
    CHECK((op->heap_at != 0) == (waiting != 0));
    return waiting;
}

/* starts_fail: the test makes threads fail to start, after which nothing is tried until the next event. */
static inline void check_pool(tg_pool *p, bool starts_fail)
{
    uint64_t queued = 0;
    size_t ops = 0, ready = 0, idle = 0, present = 0, summoned = 0, records = 0;
    tg_mutex_lock(&p->lock);
    for (tg_op *op = p->ops; op != NULL; op = op->next_op, ops++) {
        queued += check_queue(op);
        ready += op->heap_at != 0;
    }
    CHECK_EQ(p->n_ops, ops);
    CHECK_EQ(p->fair.length, ready);
    for (size_t i = 0; i < p->fair.length; i++) {
        CHECK(p->fair.ops[i]->heap_at == i + 1);
        CHECK(i == 0 || p->fair.ops[(i - 1) / 2]->service <= p->fair.ops[i]->service);
    }
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
    /* [P4]: where work remains and a worker could take it, one is on its way. Sound at any moment: both sums can only
     * have been greater when the lock was last let go. */
    bool work = queued > 0 || tg_ring_length(&p->ring) > 0;
    bool place = tg_pool_active(p) - tg_pool_replaced(p) < (int64_t)p->limit;
    bool hand = p->idle != NULL || (!starts_fail && (int64_t)p->workers - tg_pool_replaced(p) < (int64_t)p->max_workers);
    CHECK(!(work && place && hand) || p->waking);
    tg_mutex_unlock(&p->lock);
}

#endif
