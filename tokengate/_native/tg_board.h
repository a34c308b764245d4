/* The board: memory that the parent and one worker of a remote lane share. It says, for each token that was sent, whose it
 * is, and carries replies back.
 *
 * A token lies in slot `number % TG_BOARD_SLOTS`. The parent writes SENT; the worker takes it to BEGUN before it runs the
 * function, the parent to REVOKED when it wants it back: one compare-and-swap each, so that exactly one of the two has
 * it. What has begun, the parent knows without asking; what was revoked never runs. DECLARED is for a token sent to an
 * idle worker, which counts as executing from then on: it can not be revoked, but if the worker died before it woke, the
 * parent sees that the function has not run, and sends it to the next.
 *
 * Replies go through a ring of bytes, one producer and one consumer. A reply that has been posted is not lost if its
 * worker dies the next moment, so that of a dead worker's tokens at most one, the one that had begun and not been
 * answered, is in doubt.
 *
 * Compiled into both sides: the core, and the small module that a worker imports (tokengate/_board.c).
 */
#ifndef TG_BOARD_H
#define TG_BOARD_H

#include "tg_base.h"
#include <string.h>

#define TG_BOARD_SLOTS 256u
#define TG_BOARD_RING (1u << 16)

enum tg_slot { TG_SLOT_FREE = 0, TG_SLOT_SENT = 1, TG_SLOT_BEGUN = 2, TG_SLOT_REVOKED = 3, TG_SLOT_DECLARED = 4 };

typedef struct {
    /* slot: 29 bits of the token's number and a tg_slot. Written: the parent (SENT, DECLARED: release, before the frame is
     * sent; REVOKED: CAS), the worker (BEGUN: CAS). Read: both (acquire). acq_rel: who wins the slot sees what the other wrote. */
    _Atomic(uint32_t) slot[TG_BOARD_SLOTS];
    /* posted, taken: bytes of replies so far. posted: written by the worker (release: publishes the bytes), read by the
     * parent (acquire). taken: the other way round (release: the room may be used again; acquire). Any
     * thread of the parent may compare the two (acquire): a stale pair only tells of news a moment late. */
    _Atomic(uint64_t) posted;
    char apart[56]; /* the two are written by two processes */
    _Atomic(uint64_t) taken;
    char apart_too[56];
    unsigned char ring[TG_BOARD_RING];
} tg_board;

/* Head of a reply; its payload follows, padded to 8 bytes. A head never crosses the end of the ring, nor does a payload:
 * TG_REPLY_PAD fills what is left before it. */
typedef struct {
    uint64_t number;
    int64_t started, run; /* monotonic ns; ns */
    uint32_t size;        /* bytes of payload */
    uint32_t kind;
} tg_reply;

#define TG_REPLY_PAD UINT32_MAX

static inline uint32_t tg_slot_word(uint64_t number, enum tg_slot state)
{
    return (uint32_t)(number << 3) | (uint32_t)state;
}

static inline void tg_board_send(tg_board *b, uint64_t number, enum tg_slot state)
{
    atomic_store_explicit(&b->slot[number % TG_BOARD_SLOTS], tg_slot_word(number, state), memory_order_release);
}

static inline bool tg_board_move(tg_board *b, uint64_t number, enum tg_slot from, enum tg_slot to)
{
    uint32_t expected = tg_slot_word(number, from);
    return atomic_compare_exchange_strong_explicit(&b->slot[number % TG_BOARD_SLOTS], &expected, tg_slot_word(number, to),
                                                   memory_order_acq_rel, memory_order_acquire);
}

/* The worker is about to run a token. False: it has been revoked, leave it alone. */
static inline bool tg_board_begin(tg_board *b, uint64_t number)
{
    return tg_board_move(b, number, TG_SLOT_SENT, TG_SLOT_BEGUN) ||
           tg_board_move(b, number, TG_SLOT_DECLARED, TG_SLOT_BEGUN);
}

/* The parent wants a token back. False: it has begun, or has been declared so. */
static inline bool tg_board_revoke(tg_board *b, uint64_t number)
{
    return tg_board_move(b, number, TG_SLOT_SENT, TG_SLOT_REVOKED);
}

static inline bool tg_board_is(tg_board *b, uint64_t number, enum tg_slot state)
{
    return atomic_load_explicit(&b->slot[number % TG_BOARD_SLOTS], memory_order_acquire) == tg_slot_word(number, state);
}

static inline size_t tg_reply_length(uint32_t size) { return sizeof(tg_reply) + (((size_t)size + 7u) & ~(size_t)7u); }

/* The worker posts a reply. False: there is no room, now or ever. */
static inline bool tg_board_post(tg_board *b, const tg_reply *reply, const void *payload)
{
    uint64_t posted = atomic_load_explicit(&b->posted, memory_order_relaxed);
    uint64_t taken = atomic_load_explicit(&b->taken, memory_order_acquire);
    size_t length = tg_reply_length(reply->size), at = (size_t)(posted % TG_BOARD_RING), left = TG_BOARD_RING - at;
    size_t needed = left < length ? left + length : length;
    if (length > TG_BOARD_RING / 4 || needed > TG_BOARD_RING - (size_t)(posted - taken))
        return false;
    if (left < length) {
        if (left >= sizeof(tg_reply)) {
            tg_reply pad = {0, 0, 0, 0, TG_REPLY_PAD};
            memcpy(b->ring + at, &pad, sizeof pad);
        } /* less than a head: the reader knows by itself */
        posted += left;
        at = 0;
    }
    memcpy(b->ring + at, reply, sizeof *reply);
    if (reply->size > 0)
        memcpy(b->ring + at + sizeof *reply, payload, reply->size);
    atomic_store_explicit(&b->posted, posted + length, memory_order_release);
    return true;
}

/* The parent looks at the next reply. False: there is none. The payload stays where it is until tg_board_took. A worker
 * that writes nonsense is not believed beyond the ring. */
static inline bool tg_board_look(tg_board *b, tg_reply *reply, const unsigned char **payload)
{
    uint64_t taken = atomic_load_explicit(&b->taken, memory_order_relaxed);
    for (;;) {
        uint64_t posted = atomic_load_explicit(&b->posted, memory_order_acquire);
        if (taken == posted)
            return false;
        size_t at = (size_t)(taken % TG_BOARD_RING), left = TG_BOARD_RING - at;
        bool pad = left < sizeof(tg_reply);
        if (!pad) {
            memcpy(reply, b->ring + at, sizeof *reply);
            pad = reply->kind == TG_REPLY_PAD;
        }
        if (!pad) {
            if (tg_reply_length(reply->size) > left)
                return false;
            *payload = b->ring + at + sizeof *reply;
            return true;
        }
        taken += left;
        atomic_store_explicit(&b->taken, taken, memory_order_release);
    }
}

/* The parent asks whether there is one, without taking it. Any thread of the parent. */
static inline bool tg_board_has_news(tg_board *b)
{
    return atomic_load_explicit(&b->posted, memory_order_acquire) != atomic_load_explicit(&b->taken, memory_order_acquire);
}

static inline void tg_board_took(tg_board *b, const tg_reply *reply)
{
    uint64_t taken = atomic_load_explicit(&b->taken, memory_order_relaxed);
    atomic_store_explicit(&b->taken, taken + tg_reply_length(reply->size), memory_order_release);
}

#endif
