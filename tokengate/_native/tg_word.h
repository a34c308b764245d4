/* The token word: one atomic 32-bit word holds a token's state and its flags; every edge of the lifecycle
 * is one compare-and-swap in one named function below, and no other code writes the word.
 *
 * After tokio's task state word (one word, named edges that return what the caller must do next).
 *
 * Rules, cited in the code as [W1] ... :
 * [W1] The edge is taken by exactly one thread: compare-and-swap on the whole word.
 * [W2] Function, arguments and context belong to the winner of the edge into EXECUTING, or of the edge into an
 *      ended state from CREATED, WAITING or ADMITTED.
 * [W3] The outcome is written before the edge into an ended state (release) and read after the state was seen
 *      (acquire).
 * [W4] WAITER and BLOCKED may be set at any time; whoever sets one and finds the token already ended tells the
 *      waiter itself, otherwise the winner of the ending edge does. That closes the race between awaiting and
 *      finishing: both sides touch the same word, so one of them sees the other.
 * [W5] RUNNING is set by the edge into EXECUTING and cleared by the worker when the function has returned. A token
 *      that has ended with RUNNING still set is abandoned.
 * [W6] A token is over once it has ended and RUNNING is clear: nothing of it runs any more, or ever will. WATCHED
 *      may be set at any time, as in [W4]; whoever finds the token over tells the watcher itself, otherwise who takes
 *      the step that makes it over does: the edge out of EXECUTING by its worker, tg_word_returned() of an abandoned
 *      one, the ending edge of one that had not started.
 */
#ifndef TG_WORD_H
#define TG_WORD_H

#include "tg_base.h"

enum tg_state {
    TG_CREATED = 0, TG_WAITING = 1, TG_ADMITTED = 2, TG_EXECUTING = 3,
    TG_COMPLETED = 4, TG_FAILED = 5, TG_CANCELLED = 6, TG_EXPIRED = 7, TG_KILLED = 8,
    TG_STATES = 9
};

#define TG_STATE_MASK 0x0fu
#define TG_WAITER 0x10u  /* a callback waits on the token's event loop */
#define TG_BLOCKED 0x20u /* a thread is blocked in result() */
#define TG_RUNNING 0x40u /* the function is on a worker's stack */
#define TG_WATCHED 0x80u /* somebody wants to know when it is over */

#define TG_BIT(state) (1u << (state))
#define TG_ENDED_STATES \
    (TG_BIT(TG_COMPLETED) | TG_BIT(TG_FAILED) | TG_BIT(TG_CANCELLED) | TG_BIT(TG_EXPIRED) | TG_BIT(TG_KILLED))

/* The lifecycle as data: from, to, the named edge that takes it. Tests, the docs table and the run-time check
 * are generated from this list or compared with it. */
#define TG_EDGES(X) \
    X(TG_CREATED, TG_WAITING, "submit") \
    X(TG_CREATED, TG_CANCELLED, "end") \
    X(TG_CREATED, TG_EXPIRED, "end") \
    X(TG_CREATED, TG_KILLED, "end") \
    X(TG_WAITING, TG_ADMITTED, "try_admit") \
    X(TG_WAITING, TG_EXECUTING, "try_start") \
    X(TG_WAITING, TG_FAILED, "fail_unrun") \
    X(TG_WAITING, TG_CANCELLED, "end") \
    X(TG_WAITING, TG_EXPIRED, "end") \
    X(TG_WAITING, TG_KILLED, "end") \
    X(TG_ADMITTED, TG_EXECUTING, "try_start") \
    X(TG_ADMITTED, TG_WAITING, "give_back") \
    X(TG_ADMITTED, TG_FAILED, "fail_unrun") \
    X(TG_ADMITTED, TG_CANCELLED, "end") \
    X(TG_ADMITTED, TG_EXPIRED, "end") \
    X(TG_ADMITTED, TG_KILLED, "end") \
    X(TG_EXECUTING, TG_COMPLETED, "finish") \
    X(TG_EXECUTING, TG_FAILED, "finish") \
    X(TG_EXECUTING, TG_CANCELLED, "end") \
    X(TG_EXECUTING, TG_EXPIRED, "end") \
    X(TG_EXECUTING, TG_KILLED, "end")

typedef struct { uint8_t from, to; const char *by; } tg_edge;

static inline const tg_edge *tg_edges(size_t *count)
{
#define TG_ROW(f, t, b) {f, t, b},
    static const tg_edge rows[] = {TG_EDGES(TG_ROW)};
#undef TG_ROW
    *count = sizeof rows / sizeof rows[0];
    return rows;
}

/* states from which `to` may be reached, as a bit set */
static inline uint32_t tg_word_sources(uint32_t to)
{
#define TG_TERM(f, t, b) | (to == (t) ? TG_BIT(f) : 0u)
    return 0u TG_EDGES(TG_TERM);
#undef TG_TERM
}

/* word. Written: submitter, gate, workers, callers, each by compare-and-swap. Read: anyone.
 * acq_rel on success: the release publishes the outcome [W3] or the arguments [W2], the acquire receives them;
 * the partner is the acquire load in tg_word_load() or the next edge. */
typedef _Atomic(uint32_t) tg_word;

/* What an edge answers. `moved` false: somebody else was first; `old` is the word as found. */
typedef struct { bool moved; uint32_t old; } tg_step;

static inline uint32_t tg_word_load(tg_word *w) { return atomic_load_explicit(w, memory_order_acquire); }
static inline uint32_t tg_state_of(uint32_t word) { return word & TG_STATE_MASK; }
static inline bool tg_ended(uint32_t word) { return ((1u << tg_state_of(word)) & TG_ENDED_STATES) != 0; }
static inline bool tg_abandoned(uint32_t word) { return tg_ended(word) && (word & TG_RUNNING); }
static inline bool tg_over(uint32_t word) { return tg_ended(word) && !(word & TG_RUNNING); }

static inline tg_step tg_word_move(tg_word *w, uint32_t from, uint32_t to, uint32_t set, uint32_t clear)
{
    uint32_t old = atomic_load_explicit(w, memory_order_relaxed);
    for (;;) {
        if (!((1u << tg_state_of(old)) & from)) {
            /* the loser reads what the winner published */
            old = atomic_load_explicit(w, memory_order_acquire);
            if (!((1u << tg_state_of(old)) & from))
                return (tg_step){false, old};
        }
        uint32_t next = (old & ~(TG_STATE_MASK | clear)) | to | set;
        if (atomic_compare_exchange_weak_explicit(w, &old, next, memory_order_acq_rel, memory_order_relaxed))
            return (tg_step){true, old};
    }
}

/* CREATED -> WAITING: the caller hands the token to its operation's queue. */
static inline tg_step tg_word_submit(tg_word *w) { return tg_word_move(w, TG_BIT(TG_CREATED), TG_WAITING, 0, 0); }

/* WAITING -> ADMITTED: the gate. Loser: the token has ended, leave it to who ended it. */
static inline tg_step tg_word_try_admit(tg_word *w) { return tg_word_move(w, TG_BIT(TG_WAITING), TG_ADMITTED, 0, 0); }

/* ADMITTED -> WAITING: the lane returns a token it did not start. */
static inline tg_step tg_word_give_back(tg_word *w) { return tg_word_move(w, TG_BIT(TG_ADMITTED), TG_WAITING, 0, 0); }

/* ADMITTED | WAITING -> EXECUTING: the worker that claims it, or a waiting worker that runs it itself [W2]. */
static inline tg_step tg_word_try_start(tg_word *w)
{
    return tg_word_move(w, tg_word_sources(TG_EXECUTING), TG_EXECUTING, TG_RUNNING, 0);
}

/* EXECUTING -> COMPLETED | FAILED by the worker, after the outcome is in place [W3]. Loser: the token was ended
 * from outside while the function ran; the late outcome is dropped and tg_word_returned() reports the return. */
static inline tg_step tg_word_finish(tg_word *w, uint32_t to)
{
    assert(to == TG_COMPLETED || to == TG_FAILED);
    return tg_word_move(w, TG_BIT(TG_EXECUTING), to, 0, TG_RUNNING);
}

/* Clears RUNNING of a token that had already ended when its function returned [W5]; returns the word before, with
 * whether somebody watches [W6]. */
static inline uint32_t tg_word_returned(tg_word *w)
{
    return atomic_fetch_and_explicit(w, ~TG_RUNNING, memory_order_acq_rel);
}

/* WAITING | ADMITTED -> FAILED: it could not be started. */
static inline tg_step tg_word_fail_unrun(tg_word *w)
{
    return tg_word_move(w, TG_BIT(TG_WAITING) | TG_BIT(TG_ADMITTED), TG_FAILED, 0, 0);
}

/* any unended state -> CANCELLED | EXPIRED | KILLED: caller, deadline, administration. The winner reads from `old`
 * what else it owes: a queue entry to unlink, arguments to drop [W2], a worker to replace (RUNNING). */
static inline tg_step tg_word_end(tg_word *w, uint32_t to)
{
    assert(to == TG_CANCELLED || to == TG_EXPIRED || to == TG_KILLED);
    return tg_word_move(w, tg_word_sources(to), to, 0, 0);
}

/* The same, but only if the function has not started. */
static inline tg_step tg_word_end_unstarted(tg_word *w, uint32_t to)
{
    assert(to == TG_CANCELLED || to == TG_EXPIRED || to == TG_KILLED);
    return tg_word_move(w, tg_word_sources(to) & ~TG_BIT(TG_EXECUTING), to, 0, 0);
}

/* Announces a waiter (TG_WAITER, TG_BLOCKED or TG_WATCHED); returns the word before [W4] [W6]. */
static inline uint32_t tg_word_announce(tg_word *w, uint32_t flag)
{
    return atomic_fetch_or_explicit(w, flag, memory_order_acq_rel);
}

#endif
