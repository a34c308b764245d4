/* The native half of a token, and of an operation: plain data that the scheduler links, orders and stamps. */
#ifndef TG_TOKEN_H
#define TG_TOKEN_H

#include "tg_base.h"
#include "tg_hist.h"
#include "tg_word.h"

struct tg_op;
struct tg_queue;
struct tg_extra;

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
    struct tg_extra *extra; /* NULL for most; set before the token is shared */
    void *owner;     /* the Python object this is part of, or a test's own */
    /* Both under the pool's lock; from its admission on nobody links the token, and `charge` is its worker's to read. */
    uint64_t linked : 1,  /* in a queue of its operation */
             charge : 63; /* ns of service charged at admission */
    uint64_t id;
    /* Monotonic ns, 0: not yet. created: the submitter, before the token is shared. finished: the worker, before its edge
     * out of EXECUTING; ended: a caller, deadline or administration, before its ending edge [W3]. Two fields, so that a
     * late worker and an early end never write the same one. */
    int64_t created, finished, ended;
    /* admitted: the gate; started: the worker; both just after their edge (relaxed), for it is the edge that gives the
     * right to write. Read: anyone (relaxed); a reader may see the state and still 0. They order nothing. */
    _Atomic(int64_t) admitted, started;
} tg_token;

/* Tokens of one key: so many at once, in order. Plain data under the pool's lock. */
typedef struct tg_key {
    tg_token *head, *tail;  /* those that wait, by extra->key_next */
    uint32_t running;       /* admitted or executing; abandoned runs count until they return */
    bool ready;             /* in the operation's list of keys that may be served */
    struct tg_key *ready_next, *ready_prev;
} tg_key;

/* What only some tokens have: allocated with the token, freed with it. */
typedef struct tg_extra {
    struct tg_queue *queue;           /* not the operation's main one: for keys, or of another priority; under the pool's lock */
    tg_key *key;                      /* set before the token is shared */
    tg_token *key_next, *key_prev;    /* neighbours of the same key while WAITING; under the pool's lock */
    int32_t priority;                 /* of this token; set before it is shared */
    int64_t run_timeout;              /* ns from start to end, 0: none; set before it is shared */
    void *key_owner;                  /* the Python object `key` is part of, and a reference to it while it is in use */
    _Atomic(int64_t) deadline;        /* monotonic ns, 0: none. Written: the submitter, then under the timers' lock
                                       * (relaxed). Read: under it, and by anyone who wants to know (relaxed). */
    size_t timer_at;                  /* place in the timers' heap + 1, 0: not in it; under the timers' lock */
    tg_token *token;
} tg_extra;

/* How long an operation's tokens waited and ran; allocated with the operation. */
typedef struct {
    tg_hist wait, run;
} tg_times;

/* Tokens of one operation and one priority, first in, first out; or its tokens with keys, in order for each key. Plain
 * data under the pool's lock. */
typedef struct tg_queue {
    tg_token *head, *tail;
    uint64_t waiting;
    struct tg_op *op;
    int32_t priority;
    bool aged;              /* has waited so long for its turn that it goes before any priority */
    int64_t served;         /* monotonic ns of its last admission */
    size_t heap_at;         /* place in the ready heap + 1; 0: not in it, nothing waits or none may be admitted */
    bool keyed;             /* its tokens all have keys */
    tg_key *ready_head, *ready_tail; /* keys that may be served, in turn */
    struct tg_queue *next;  /* of the same operation */
} tg_queue;

enum tg_overflow { TG_REJECT = 0, TG_SHED_OLDEST = 1, TG_BLOCK = 2 };

/* What an operation may do; 0: no such limit (key_limit is at least 1). */
typedef struct {
    uint32_t limit;         /* at once: admitted or executing; abandoned runs count until they return */
    uint32_t key_limit;     /* the same for each key */
    uint64_t max_waiting;
    int32_t priority;
    uint8_t overflow;       /* what happens beyond max_waiting */
} tg_policy;

typedef struct tg_op {
    /* -- under the pool's lock -- */
    tg_policy policy;
    tg_queue main;          /* of the operation's own priority */
    bool paused;
    int64_t aside;          /* its functions that wait for other tokens, and whose workers have been replaced */
    bool room_wanted;       /* somebody waits until fewer wait than max_waiting */
    uint64_t waiting;       /* in all its queues */
    uint64_t service;       /* ns of execution received, on the pool's virtual clock */
    uint64_t mean;          /* ns a token is expected to run: the hint, then a moving mean of what was measured */
    bool measured;
    uint32_t looks, held;   /* how often the keeper found a worker in one of its functions, and that holding the GIL; of late */
    struct tg_op *next_op;
    /* gated. Written: under the lock (seq_cst), 1 by who takes the operation out of the heap because all its places are
     * taken and then looks at the places once more, 0 by who puts it back. Read: by who has returned a place (seq_cst,
     * after counting it in returned, dropped or abandoned_now). seq_cst on all: one of the two sees the other. */
    _Atomic(uint32_t) gated;
    /* barred. Written: under the lock (relaxed), 1 where tokens that are admitted already may have to go back (paused, or
     * its limit lowered). Read: workers before they start a token (relaxed); the lock then tells. Late is early enough:
     * what had been popped before might have started before. */
    _Atomic(uint32_t) barred;
    /* -- counters; read by stats (relaxed). submitted, started, rejected, shed, abandoned_total: written by whoever takes
     * the edge (relaxed add). They order nothing. -- */
    _Atomic(uint64_t) submitted, started, rejected, shed, abandoned_total;
    /* admitted. Written: under the lock (relaxed add; sub where a token is given back). */
    _Atomic(uint64_t) admitted;
    /* returned, dropped. Written: by the worker whose function has returned, by who ends an admitted token that no worker
     * had started (seq_cst add, then they look at gated). Read: under the lock, for the places taken (seq_cst). */
    _Atomic(uint64_t) returned, dropped;
    /* ended[state]. Written: the winner of the ending edge (seq_cst add). Read: tg_op_live (seq_cst). seq_cst: two enders
     * on two states must not both miss the other and each think that one token still lives (see tg_pool_watch). */
    _Atomic(uint64_t) ended[TG_STATES];
    /* abandoned_now. Written: who ends an executing token, and its worker when the function returns (seq_cst add: it frees
     * a place of an operation without a limit, see gated). Signed: the return may be counted before the abandonment. */
    _Atomic(int64_t) abandoned_now;
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

/* Counts something that gives a place back. True: the operation waits for one, tell the pool (tg_pool_freed). */
static inline bool tg_op_give_place(tg_op *op, _Atomic(uint64_t) *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_seq_cst);
    return atomic_load_explicit(&op->gated, memory_order_seq_cst) != 0;
}

static inline bool tg_op_gated(tg_op *op)
{
    return atomic_load_explicit(&op->gated, memory_order_seq_cst) != 0;
}

static inline bool tg_op_barred(tg_op *op)
{
    return atomic_load_explicit(&op->barred, memory_order_relaxed) != 0;
}

static inline void tg_op_abandoned_add(tg_op *op, int64_t n)
{
    atomic_fetch_add_explicit(&op->abandoned_now, n, memory_order_seq_cst);
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

/* The queue a token belongs to. Under the pool's lock. */
static inline tg_queue *tg_queue_of(tg_token *t)
{
    return t->extra != NULL && t->extra->queue != NULL ? t->extra->queue : &t->op->main;
}

#endif
