/* The native half of a token, and of an operation: plain data that the scheduler links, orders and stamps. */
#ifndef TG_TOKEN_H
#define TG_TOKEN_H

#include "tg_base.h"
#include "tg_hist.h"
#include "tg_word.h"

struct tg_op;

typedef struct tg_token {
    tg_word word;
    /* generation: the process (counted in forks) the token was made in. Written before it is
     * shared, and in a forked child, under the token's critical section, by who finds it inherited. */
    uint32_t generation;
    /* next, prev: neighbours in the operation's queue while WAITING (under the pool's lock). Once out of it (whoever ends
     * a waiting token calls tg_pool_unlink first) `next` serves its loop's inbox: owned by who pushes it there, then by
     * the drain. */
    struct tg_token *next, *prev;
    struct tg_op *op;
    void *owner;     /* the Python object this is part of, or a test's own */
    bool linked;     /* in the operation's queue; under the pool's lock */
    int64_t charge;  /* ns of service charged at admission; under the pool's lock, then the worker's */
    uint64_t id;
    /* Monotonic ns, 0: not yet. created: the submitter, before the token is shared. finished: the worker, before its edge
     * out of EXECUTING; ended: a caller, deadline or administration, before its ending edge [W3]. Two fields, so that a
     * late worker and an early end never write the same one. */
    int64_t created, finished, ended;
    /* admitted: the gate; started: the worker; both just after their edge (relaxed), for it is the edge that gives the
     * right to write. Read: anyone (relaxed); a reader may see the state and still 0. They order nothing. */
    _Atomic(int64_t) admitted, started;
} tg_token;

/* How long an operation's tokens waited and ran; allocated with the operation. */
typedef struct {
    tg_hist wait, run;
} tg_times;

typedef struct tg_op {
    /* -- under the pool's lock -- */
    tg_token *head, *tail;  /* first in, first out */
    uint64_t waiting;
    uint64_t service;       /* ns of execution received, on the pool's virtual clock */
    uint64_t mean;          /* ns a token is expected to run: the hint, then a moving mean of what was measured */
    bool measured;
    size_t heap_at;         /* place in the ready heap + 1; 0: not in it */
    struct tg_op *next_op;
    /* -- counters; written by whoever takes the edge (relaxed add), read by stats (relaxed). They order nothing. -- */
    _Atomic(uint64_t) submitted, admitted, started, returned;
    _Atomic(uint64_t) dropped;  /* admitted tokens that were ended before a worker could start them: by who ends them */
    /* ended[state]. Written: the winner of the ending edge (seq_cst add). Read: tg_op_live (seq_cst). seq_cst: two enders
     * on two states must not both miss the other and each think that one token still lives (see tg_pool_watch). */
    _Atomic(uint64_t) ended[TG_STATES];
    _Atomic(uint64_t) rejected; /* ended without ever waiting: the coordinator was stopped */
    _Atomic(uint64_t) abandoned_total;
    _Atomic(int64_t) abandoned_now; /* signed: the return may be counted before the abandonment */
    tg_times times;
} tg_op;

static inline void tg_stamp(_Atomic(int64_t) *field, int64_t now)
{
    atomic_store_explicit(field, now, memory_order_relaxed);
}

static inline int64_t tg_stamped(_Atomic(int64_t) *field)
{
    return atomic_load_explicit(field, memory_order_relaxed);
}

static inline void tg_count(_Atomic(uint64_t) *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static inline uint64_t tg_counted(_Atomic(uint64_t) *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static inline void tg_op_abandoned_add(tg_op *op, int64_t n)
{
    atomic_fetch_add_explicit(&op->abandoned_now, n, memory_order_relaxed);
}

static inline int64_t tg_op_abandoned_now(tg_op *op)
{
    int64_t now = atomic_load_explicit(&op->abandoned_now, memory_order_relaxed);
    return now < 0 ? 0 : now;
}

static inline void tg_op_ended(tg_op *op, uint32_t state)
{
    atomic_fetch_add_explicit(&op->ended[state], 1, memory_order_seq_cst);
}

/* Tokens of the operation that have not ended. Exact once submission has stopped, else a snapshot. */
static inline uint64_t tg_op_live(tg_op *op)
{
    uint64_t ended = 0;
    for (int s = TG_COMPLETED; s < TG_STATES; s++)
        ended += atomic_load_explicit(&op->ended[s], memory_order_seq_cst);
    uint64_t submitted = atomic_load_explicit(&op->submitted, memory_order_seq_cst);
    return submitted > ended ? submitted - ended : 0;
}

/* The token's memory is all zero before. */
static inline void tg_token_init(tg_token *t, tg_op *op, void *owner, uint64_t id, uint32_t generation)
{
    atomic_init(&t->word, TG_CREATED);
    t->generation = generation;
    t->op = op;
    t->owner = owner;
    t->id = id;
}

#endif
