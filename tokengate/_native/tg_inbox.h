/* Inbox: unbounded intrusive multi-producer single-consumer list of ended tokens (a Treiber stack taken whole by one
 * exchange, then reversed). No producer ever waits or drops, however long the consumer is stuck; taking all at once
 * also removes the ABA question, since nothing is ever popped singly.
 */
#ifndef TG_INBOX_H
#define TG_INBOX_H

#include "tg_token.h"

typedef struct {
    /* head. Written: producers (CAS), consumer (exchange), both seq_cst, see armed. The pair publishes the token's
     * `next` and everything before it. */
    _Atomic(tg_token *) head;
    /* armed: a wake-up is on its way. Written: producers, the keeper's ping (exchange 1), consumer (store 0 before it takes
     * the list). Read: producers, workers that let the loop go first.
     * seq_cst on both, as on head: a producer that saw 1 pushed before the consumer's exchange, or a token would sleep
     * until the next one (T1 pushes, T2 clears and takes, T1 reads a stale 1). */
    _Atomic(uint32_t) armed;
    /* armed_at: monotonic ns of that wake-up. Written: whoever armed (relaxed). Read: workers and the keeper, the
     * consumer, for the loop lag, and producers, for a wake-up nobody answered (relaxed); an older value is harmless. */
    _Atomic(int64_t) armed_at;
} tg_inbox;

static inline void tg_inbox_init(tg_inbox *box)
{
    atomic_init(&box->head, NULL);
    atomic_init(&box->armed, 0);
    atomic_init(&box->armed_at, 0);
}

/* Any thread. True: the caller must wake the consumer. */
static inline bool tg_inbox_push(tg_inbox *box, tg_token *token, int64_t now)
{
    tg_token *head = atomic_load_explicit(&box->head, memory_order_relaxed);
    do
        token->next = head;
    while (!atomic_compare_exchange_weak_explicit(&box->head, &head, token, memory_order_seq_cst,
                                                  memory_order_relaxed));
    if (atomic_load_explicit(&box->armed, memory_order_seq_cst) != 0)
        return false;
    if (atomic_exchange_explicit(&box->armed, 1, memory_order_seq_cst) != 0)
        return false;
    atomic_store_explicit(&box->armed_at, now, memory_order_relaxed);
    return true;
}

/* Consumer only. Everything pushed so far, oldest first. */
static inline tg_token *tg_inbox_take(tg_inbox *box)
{
    atomic_store_explicit(&box->armed, 0, memory_order_seq_cst);
    tg_token *token = atomic_exchange_explicit(&box->head, NULL, memory_order_seq_cst);
    tg_token *first = NULL;
    while (token != NULL) {
        tg_token *next = token->next;
        token->next = first;
        first = token;
        token = next;
    }
    return first;
}

/* Any thread. True: a wake-up is on its way that has not been answered. */
static inline bool tg_inbox_armed(tg_inbox *box)
{
    return atomic_load_explicit(&box->armed, memory_order_seq_cst) != 0;
}

static inline int64_t tg_inbox_armed_at(tg_inbox *box)
{
    return atomic_load_explicit(&box->armed_at, memory_order_relaxed);
}

/* The caller wakes the consumer itself, so producers need not: the consumer, for its own next turn, or who wants to see
 * how soon it answers. True: nobody else had. */
static inline bool tg_inbox_arm(tg_inbox *box, int64_t now)
{
    if (atomic_exchange_explicit(&box->armed, 1, memory_order_seq_cst) != 0)
        return false;
    atomic_store_explicit(&box->armed_at, now, memory_order_relaxed);
    return true;
}

#endif
