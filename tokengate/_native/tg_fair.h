/* Fair share between operations: a binary heap of queues that may be admitted from, higher priority first, then least
 * service first.
 *
 * Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with measured cost: an operation is charged the
 * expected run time of a token when it is admitted, and corrected by the measured one when it returns. One that was
 * away comes back at the virtual clock, the service of the last operation picked, so that it neither has saved up
 * the right to flood the workers nor has to make up for others' past.
 *
 * Priority is strict but for ageing: a queue that has not been served for TG_AGE_NS although it might have been goes
 * before all others once, so every priority comes to its turn at least that often.
 *
 * All of it is plain data under the pool's lock.
 */
#ifndef TG_FAIR_H
#define TG_FAIR_H

#include "tg_token.h"

typedef struct {
    tg_queue **queues;
    size_t length, room;
    uint64_t clock;  /* ns of service: the virtual time */
    bool priorities; /* some queue has had one; else nothing ages */
    int64_t age_at;  /* when to look for queues that age next */
} tg_fair;

#define TG_AGE_NS 2000000000      /* a queue that waits for its turn gets one at least this often */
#define TG_AGE_LOOK_NS 100000000  /* how often to look for such queues */
#define TG_CREDIT_NS 1000000000   /* ns of service that an operation held back by its own policy is owed at most */

static inline void tg_fair_place(tg_fair *f, size_t at, tg_queue *q)
{
    f->queues[at] = q;
    q->heap_at = at + 1;
}

/* a goes before b */
static inline bool tg_fair_before(const tg_queue *a, const tg_queue *b)
{
    if (a->aged != b->aged)
        return a->aged;
    if (a->priority != b->priority)
        return a->priority > b->priority;
    return a->op->service < b->op->service;
}

static inline size_t tg_fair_rise(tg_fair *f, size_t at)
{
    tg_queue *q = f->queues[at];
    while (at > 0 && tg_fair_before(q, f->queues[(at - 1) / 2])) {
        tg_fair_place(f, at, f->queues[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    tg_fair_place(f, at, q);
    return at;
}

static inline void tg_fair_sink(tg_fair *f, size_t at)
{
    tg_queue *q = f->queues[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= f->length)
            break;
        if (child + 1 < f->length && tg_fair_before(f->queues[child + 1], f->queues[child]))
            child++;
        if (!tg_fair_before(f->queues[child], q))
            break;
        tg_fair_place(f, at, f->queues[child]);
        at = child;
    }
    tg_fair_place(f, at, q);
}

static inline void tg_fair_sift(tg_fair *f, size_t at)
{
    tg_fair_sink(f, tg_fair_rise(f, at));
}

/* Makes room for so many queues. False: no memory, nothing changed. */
static inline bool tg_fair_reserve(tg_fair *f, size_t queues)
{
    if (queues <= f->room)
        return true;
    size_t room = f->room ? f->room * 2 : 8;
    while (room < queues)
        room *= 2;
    tg_queue **grown = (tg_queue **)realloc(f->queues, room * sizeof *grown);
    if (grown == NULL)
        return false;
    f->queues = grown;
    f->room = room;
    return true;
}

/* One of its queues is in the heap. */
static inline bool tg_fair_holds(const tg_op *op)
{
    for (const tg_queue *q = &op->main; q != NULL; q = q->next)
        if (q->heap_at != 0)
            return true;
    return false;
}

static inline void tg_fair_insert(tg_fair *f, tg_queue *q)
{
    assert(q->heap_at == 0 && f->length < f->room);
    /* One that comes back because it has a place again was not away; only so much of what it missed is made up for. (With
     * another of its queues here it has not been held back, and those queues stand where they are by its service.) */
    if (q->op->service + TG_CREDIT_NS < f->clock && !tg_fair_holds(q->op))
        q->op->service = f->clock - TG_CREDIT_NS;
    tg_fair_place(f, f->length++, q);
    tg_fair_sift(f, f->length - 1);
}

static inline void tg_fair_remove(tg_fair *f, tg_queue *q)
{
    size_t at = q->heap_at - 1;
    tg_queue *last = f->queues[--f->length];
    q->heap_at = 0;
    if (last != q) {
        tg_fair_place(f, at, last);
        tg_fair_sift(f, at);
    }
}

/* The operation had nothing waiting, and now has. */
static inline void tg_fair_arrives(tg_fair *f, tg_op *op)
{
    if (op->service < f->clock)
        op->service = f->clock;
}

/* Puts the queues of an operation, some of which now belong further back (or further in front), where they belong. The last
 * (or first) in the heap first: what takes the place of one then never stands below another that has still to move. */
static inline void tg_fair_moved(tg_fair *f, tg_op *op, bool back)
{
    for (size_t done = back ? SIZE_MAX : 0;;) {
        size_t next = 0;
        for (tg_queue *q = &op->main; q != NULL; q = q->next)
            if (q->heap_at != 0 && (back ? q->heap_at < done && q->heap_at > next
                                         : q->heap_at > done && (next == 0 || q->heap_at < next)))
                next = q->heap_at;
        if (next == 0)
            return;
        done = next;
        if (back)
            tg_fair_sink(f, next - 1);
        else
            tg_fair_rise(f, next - 1);
    }
}

/* Adds (or, where a token ran shorter than expected, takes back) service. */
static inline void tg_fair_charge(tg_fair *f, tg_op *op, int64_t ns)
{
    if (ns < 0 && op->service < (uint64_t)-ns)
        op->service = 0;
    else
        op->service += (uint64_t)ns;
    tg_fair_moved(f, op, ns >= 0);
}

/* Lets queues that have not been served for long go first. Cheap: looks at most ten times a second, and only where
 * there are priorities. */
static inline void tg_fair_age(tg_fair *f, int64_t now)
{
    if (!f->priorities || now < f->age_at || f->length < 2)
        return;
    f->age_at = now + TG_AGE_LOOK_NS;
    int32_t top = f->queues[0]->priority;
    for (size_t i = 0; i < f->length; i++) {
        tg_queue *q = f->queues[i];
        int64_t since = q->head->created > q->served ? q->head->created : q->served;
        if (q->priority < top && !q->aged && now - since > TG_AGE_NS) {
            q->aged = true;
            tg_fair_sift(f, i); /* whom it displaces may be missed now; the next look finds it */
        }
    }
}

#endif
