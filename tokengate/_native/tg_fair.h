/* Fair share between operations: a binary heap of operations with waiting tokens, least service first.
 *
 * Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with measured cost: an operation is charged the
 * expected run time of a token when it is admitted, and corrected by the measured one when it returns. One that was
 * away comes back at the virtual clock, the service of the last operation picked, so that it neither has saved up
 * the right to flood the workers nor has to make up for others' past.
 *
 * All of it is plain data under the pool's lock.
 */
#ifndef TG_FAIR_H
#define TG_FAIR_H

#include "tg_token.h"

typedef struct {
    tg_op **ops;
    size_t length, room;
    uint64_t clock; /* ns of service: the virtual time */
} tg_fair;

static inline void tg_fair_place(tg_fair *f, size_t at, tg_op *op)
{
    f->ops[at] = op;
    op->heap_at = at + 1;
}

static inline void tg_fair_sift(tg_fair *f, size_t at)
{
    tg_op *op = f->ops[at];
    while (at > 0 && op->service < f->ops[(at - 1) / 2]->service) {
        tg_fair_place(f, at, f->ops[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= f->length)
            break;
        if (child + 1 < f->length && f->ops[child + 1]->service < f->ops[child]->service)
            child++;
        if (op->service <= f->ops[child]->service)
            break;
        tg_fair_place(f, at, f->ops[child]);
        at = child;
    }
    tg_fair_place(f, at, op);
}

/* Makes room for one more operation. False: no memory, nothing changed. */
static inline bool tg_fair_reserve(tg_fair *f, size_t ops)
{
    if (ops <= f->room)
        return true;
    size_t room = f->room ? f->room * 2 : 8;
    while (room < ops)
        room *= 2;
    tg_op **grown = (tg_op **)realloc(f->ops, room * sizeof *grown);
    if (grown == NULL)
        return false;
    f->ops = grown;
    f->room = room;
    return true;
}

static inline void tg_fair_insert(tg_fair *f, tg_op *op)
{
    assert(op->heap_at == 0 && f->length < f->room);
    if (op->service < f->clock)
        op->service = f->clock;
    tg_fair_place(f, f->length++, op);
    tg_fair_sift(f, f->length - 1);
}

static inline void tg_fair_remove(tg_fair *f, tg_op *op)
{
    size_t at = op->heap_at - 1;
    tg_op *last = f->ops[--f->length];
    op->heap_at = 0;
    if (last != op) {
        tg_fair_place(f, at, last);
        tg_fair_sift(f, at);
    }
}

/* Adds (or, where a token ran shorter than expected, takes back) service. */
static inline void tg_fair_charge(tg_fair *f, tg_op *op, int64_t ns)
{
    if (ns < 0 && op->service < (uint64_t)-ns)
        op->service = 0;
    else
        op->service += (uint64_t)ns;
    if (op->heap_at)
        tg_fair_sift(f, op->heap_at - 1);
}

#endif
