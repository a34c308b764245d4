/* The pool's side of a worker that runs nothing itself: it claims tokens, sends them to where they run, and finishes them
 * as replies come. Between the claim and the start a token stays ADMITTED, so it can be given back. Rules [P1] to [P5]:
 * tg_pool.h.
 */
#ifndef TG_CARRY_H
#define TG_CARRY_H

#include "tg_pool.h"

/* How a token that was claimed may go on. Puts it back where its operation has been paused meanwhile, or its limit
 * lowered. KEPT: ADMITTED, as it was. NOT_STARTED: it had ended, or been started by somebody who waits for it. */
static inline enum tg_start tg_pool_keep(tg_pool *p, tg_token *t)
{
    tg_op *op = t->op;
    if (!tg_op_barred(op))
        return tg_state_of(tg_word_load(&t->word)) == TG_ADMITTED ? TG_STARTED : TG_NOT_STARTED;
    enum tg_start how = TG_STARTED;
    tg_mutex_lock(&p->lock);
    bool over = op->policy.limit != 0 && tg_op_places(op) > (int64_t)op->policy.limit;
    if (op->paused || p->gate.paused || over)
        how = tg_gate_give_back(&p->gate, t) ? TG_PUT_BACK : TG_NOT_STARTED;
    else if (tg_state_of(tg_word_load(&t->word)) != TG_ADMITTED)
        how = TG_NOT_STARTED;
    else
        atomic_store_explicit(&op->barred, 0, memory_order_relaxed);
    tg_mutex_unlock(&p->lock);
    return how;
}

/* A claimed token had ended: its charge goes back. */
static inline void tg_pool_uncharge(tg_pool *p, tg_op *op, int64_t charge)
{
    tg_mutex_lock(&p->lock);
    tg_fair_charge(&p->gate.fair, op, -charge);
    tg_mutex_unlock(&p->lock);
}

/* Puts an admitted token back into its queue. False: it has ended. Who can take it is chosen by tg_pool_nudge. */
static inline bool tg_pool_give_back(tg_pool *p, tg_token *t)
{
    tg_mutex_lock(&p->lock);
    bool back = tg_gate_give_back(&p->gate, t);
    tg_mutex_unlock(&p->lock);
    return back;
}

/* One token more for a worker that has some already. NULL: there is none, or only as many as other workers are free to
 * take, which would otherwise wait behind this one's. */
static inline tg_token *tg_pool_fetch(tg_pool *p, tg_worker *w, int64_t now, tg_summons *out)
{
    tg_token *t = NULL;
    tg_mutex_lock(&p->lock);
    tg_pool_settle(p, w);
    tg_pool_refill(p, now);
    int64_t free = (int64_t)p->max_workers - (tg_pool_active(p) - tg_pool_replaced(p)) + p->waking;
    int64_t found = (int64_t)tg_ring_length(&p->ring);
    for (size_t i = 0; i < p->gate.fair.length && found <= free; i++) {
        tg_queue *q = p->gate.fair.queues[i];
        int64_t places = (int64_t)q->op->policy.limit - tg_op_places(q->op);
        found += q->op->policy.limit != 0 && places < (int64_t)q->waiting ? places : (int64_t)q->waiting;
    }
    if (found > free)
        t = tg_pool_take(p, now);
    *out = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    return t;
}

/* What all that waits and may be admitted is expected to run, ns for each worker; counted up to `enough` only. */
static inline int64_t tg_pool_backlog(tg_pool *p, int64_t unknown, int64_t enough)
{
    tg_mutex_lock(&p->lock);
    const tg_fair *fair = &p->gate.fair;
    double workers = p->max_workers > 0 ? (double)p->max_workers : 1.0, sum = 0.0, most = (double)enough * workers;
    for (size_t i = 0; i < fair->length && sum < most; i++) {
        const tg_queue *q = fair->queues[i];
        sum += (double)q->waiting * (double)(q->op->measured ? (int64_t)q->op->mean : unknown);
    }
    tg_mutex_unlock(&p->lock);
    return sum < most ? (int64_t)(sum / workers) : enough;
}

/* What a token is expected to run, ns: its operation's mean, or `unknown` until it has been measured. */
static inline int64_t tg_pool_expected(tg_pool *p, tg_op *op, int64_t unknown)
{
    tg_mutex_lock(&p->lock);
    int64_t mean = op->measured ? (int64_t)op->mean : unknown;
    tg_mutex_unlock(&p->lock);
    return mean;
}

#endif
