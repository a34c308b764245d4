/* Bounded multi-producer multi-consumer ring of pointers, after Dmitry Vyukov's bounded MPMC queue (1024cores.net).
 *
 * Each slot carries a stamp. stamp == ticket: free for the producer of that ticket; stamp == ticket + 1: holds the
 * value for the consumer of that ticket. Neither side ever waits: push answers false when full, pop NULL when empty.
 */
#ifndef TG_RING_H
#define TG_RING_H

#include "tg_base.h"

typedef struct {
    /* stamp. Written: the producer or consumer that owns the slot's turn (release). Read: the next one (acquire).
     * The release/acquire pair on the stamp is what publishes `value`, not the tickets. */
    _Atomic(size_t) stamp;
    void *value;
} tg_slot;

typedef struct {
    tg_slot *slots;
    size_t mask;
    char pad0[TG_CACHE_LINE - sizeof(void *) - sizeof(size_t)];
    /* tail: next producer ticket. Written: producers (CAS, relaxed; the stamp orders). Read: both sides, as a hint. */
    _Atomic(size_t) tail;
    char pad1[TG_CACHE_LINE - sizeof(size_t)];
    /* head: next consumer ticket. Written: consumers (CAS, relaxed; the stamp orders). Read: both sides, as a hint. */
    _Atomic(size_t) head;
    char pad2[TG_CACHE_LINE - sizeof(size_t)];
} tg_ring;

/* capacity: a power of two, at least 2. False: no memory. */
static inline bool tg_ring_init(tg_ring *r, size_t capacity)
{
    assert(capacity >= 2 && (capacity & (capacity - 1)) == 0);
    r->slots = (tg_slot *)calloc(capacity, sizeof(tg_slot));
    if (r->slots == NULL)
        return false;
    r->mask = capacity - 1;
    for (size_t i = 0; i < capacity; i++)
        atomic_init(&r->slots[i].stamp, i);
    atomic_init(&r->tail, 0);
    atomic_init(&r->head, 0);
    return true;
}

static inline void tg_ring_destroy(tg_ring *r)
{
    free(r->slots);
    r->slots = NULL;
}

static inline bool tg_ring_push(tg_ring *r, void *value)
{
    size_t ticket = atomic_load_explicit(&r->tail, memory_order_relaxed);
    for (;;) {
        tg_slot *slot = &r->slots[ticket & r->mask];
        size_t stamp = atomic_load_explicit(&slot->stamp, memory_order_acquire);
        ptrdiff_t ahead = (ptrdiff_t)(stamp - ticket);
        if (ahead == 0) {
            if (atomic_compare_exchange_weak_explicit(&r->tail, &ticket, ticket + 1, memory_order_relaxed,
                                                      memory_order_relaxed)) {
                slot->value = value;
                atomic_store_explicit(&slot->stamp, ticket + 1, memory_order_release);
                return true;
            }
        } else if (ahead < 0) {
            return false; /* the consumer of the previous lap has not left the slot: full */
        } else {
            ticket = atomic_load_explicit(&r->tail, memory_order_relaxed);
        }
    }
}

static inline void *tg_ring_pop(tg_ring *r)
{
    size_t ticket = atomic_load_explicit(&r->head, memory_order_relaxed);
    for (;;) {
        tg_slot *slot = &r->slots[ticket & r->mask];
        size_t stamp = atomic_load_explicit(&slot->stamp, memory_order_acquire);
        ptrdiff_t ahead = (ptrdiff_t)(stamp - (ticket + 1));
        if (ahead == 0) {
            if (atomic_compare_exchange_weak_explicit(&r->head, &ticket, ticket + 1, memory_order_relaxed,
                                                      memory_order_relaxed)) {
                void *value = slot->value;
                atomic_store_explicit(&slot->stamp, ticket + r->mask + 1, memory_order_release);
                return value;
            }
        } else if (ahead < 0) {
            return NULL; /* the producer of this lap has not arrived: empty */
        } else {
            ticket = atomic_load_explicit(&r->head, memory_order_relaxed);
        }
    }
}

/* With producers serialised by a lock: true stays true until the next push, which then cannot fail. */
static inline bool tg_ring_has_room(tg_ring *r)
{
    size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    return atomic_load_explicit(&r->slots[tail & r->mask].stamp, memory_order_acquire) == tail;
}

/* Entries in the ring: exact where producers are excluded and no consumer is active, otherwise a snapshot that may
 * be too high (a pop under way is still counted), never negative. */
static inline size_t tg_ring_length(tg_ring *r)
{
    size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    return (ptrdiff_t)(tail - head) > 0 ? tail - head : 0;
}

#endif
