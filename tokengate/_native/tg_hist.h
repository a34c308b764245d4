/* Log-linear histogram of durations (HdrHistogram, G. Tene) over a window of rotating time slots.
 *
 * What it answers: count, mean, max, p50 and p99 of the last 60 s, and totals since tg_hist_init().
 * Units: nanoseconds. C11, no Python, no allocation, no lock, no fence.
 *
 * Buckets. Each power of two from 64 ns to 2^44 ns (4.9 h) is cut in eight at 64 70 76 83 90 98 107
 * 117 (times 2^k), which spreads the error evenly: with the midpoint reported for every member, it
 * is at most (128 - 117) / 2 / 117 = 4.71 % of the true value; eight equal parts would be 6.25 % off.
 * 304 buckets. Longer than 10,000 s counts as 10,000 s; shorter than 64 ns counts in the first
 * bucket. Sums and maxima are kept apart from the buckets and are exact within that clamp.
 *
 * Window. Seven slots of 10 s: six live (the current one and the five before), one empty. The first
 * recorder that comes with a later 10 s period makes the empty slot the current one by one
 * compare-and-swap, then adds the oldest slot to the totals and empties it for the next turn.
 * The window is therefore the current period and the five before it: 50 to 60 s.
 *
 * Guarantees
 *  1. tg_hist_record() is wait-free, for any number of threads: two atomic adds, one load, and
 *     now and then a bounded number of steps more. It never waits for a rotation under way.
 *  2. A record is in the totals once: never twice, never lost. tg_hist_snapshot() sees every record
 *     that happened before it (but for the sleeper below).
 *  3. No counter wraps. A slot that holds 2^31 of one bucket or a sum of 2^63 ns is closed early
 *     (the window is shorter then, the totals are exact). Only a thread that stops for good in the
 *     middle of a rotation can make that impossible; records are then refused, and counted in
 *     `dropped`, before a counter is full.
 *  4. tg_hist_snapshot() is lock-free, for any number of threads: it starts again only if a
 *     rotation ended meanwhile.
 *
 * Approximations
 *  - A recorder that read `cur` just before a rotation records in the slot before: its value leaves
 *    the window up to one period early. One that sleeps for 50 s between its load and its adds is
 *    counted in the slot's next turn, and a snapshot can miss it for the microsecond in which that
 *    slot is emptied.
 *  - While a rotation is under way the next one must wait; records meanwhile stay in the old slot.
 *  - A snapshot may see a record in the counts and not yet in the sum (mean, total_sum), or the
 *    other way round; by as many records as are under way at that moment.
 *  - A value within 5 % of one of the coarse bounds may be counted on the other side of it.
 *
 * This code assumes that now_ns is monotonic; a now_ns that is behind is counted as now. A forked
 * child calls tg_hist_init() again: a rotation under way in the parent never ends in the child.
 */
#ifndef TG_HIST_H
#define TG_HIST_H

#include <stdatomic.h>
#include <stdint.h>

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

#define TG_HIST_SUBS 8u                                   /* buckets in one power of two */
#define TG_HIST_BUCKETS (38u * TG_HIST_SUBS)              /* 2^6 ns .. 2^44 ns */
#define TG_HIST_LIVE 6u                                   /* slots that are in the window */
#define TG_HIST_SLOTS (TG_HIST_LIVE + 1u)                 /* and one that is empty */
#define TG_HIST_SLOT_NS UINT64_C(10000000000)             /* 10 s */
#define TG_HIST_MIN_NS UINT64_C(64)
#define TG_HIST_MAX_NS UINT64_C(10000000000000)           /* 10,000 s */
#define TG_HIST_BOUNDS 25u                                /* 1 us .. 100 s; see tg_hist_bound_ns() */
#define TG_HIST_SLOT_FULL (UINT32_C(1) << 31)             /* one bucket of one slot */
#define TG_HIST_SLOT_FULL_NS (UINT64_C(1) << 63)          /* the sum of one slot */
/* Where records are refused: short of the end, for as many may be under way at that moment. */
#define TG_HIST_REFUSE (UINT32_MAX - (UINT32_C(1) << 20))
#define TG_HIST_REFUSE_NS (UINT64_MAX - (UINT64_C(1) << 62))
#define TG_HIST_MAX_TURNS 16u

typedef struct tg_hist_slot {
    /* count: records by bucket. Written: recorders (add 1), the rotator (subtracts what it has
     * moved to the totals). Read: rotator, snapshot. Recorders relaxed: additions commute, and
     * nothing is published by them. The rotator's subtraction is release: see tg_hist_rotate_(). */
    _Atomic uint32_t count[TG_HIST_BUCKETS];
    /* sum: ns. Written and read like count. */
    _Atomic uint64_t sum;
    /* max: ns. Written: recorders (CAS upwards), rotator (CAS to 0). Read: recorders, rotator,
     * snapshot. Orders as for count. */
    _Atomic uint64_t max;
    /* period: now_ns / TG_HIST_SLOT_NS of this slot. Written: the rotator that opens it. Read:
     * snapshot, once the slot is no longer current: the next rotator's release on `cur` publishes
     * it. release / acquire: a snapshot that meets the period of the slot's next turn also sees
     * that `folded` has moved. */
    _Atomic uint64_t period;
} tg_hist_slot;

/* Totals of all slots up to one sequence number. There are two, written in turn, so that a snapshot
 * reads one while the rotator makes the next. */
typedef struct tg_hist_total {
    /* All fields. Written: the rotator, and there is one at a time. Read: the next rotator,
     * snapshot. release / acquire: a snapshot that meets a value of the next but one generation
     * then also sees that `folded` has moved, and starts again. */
    _Atomic uint64_t count[TG_HIST_BOUNDS + 1u]; /* by coarse bound, not added up */
    _Atomic uint64_t sum_s;                      /* the sum's whole seconds: in ns it would wrap */
    _Atomic uint64_t sum_ns;                     /* and the rest, < 10^9 */
    _Atomic uint64_t max;
} tg_hist_total;

typedef struct tg_hist {
    /* cur: the current slot, period << 32 | sequence number; the slot is sequence % TG_HIST_SLOTS.
     * Written: the recorder that rotates (CAS). Read: recorders relaxed (any recent slot will do),
     * snapshot acquire: pairs with the CAS's release and publishes the periods of older slots.
     * The sequence would wrap after 1,361 years. */
    _Atomic uint64_t cur;
    /* folded: the totals hold the slots up to this sequence number. Written: rotator, release:
     * publishes total[folded & 1]. Read: snapshot, acquire, before and after all else. */
    _Atomic uint32_t folded;
    /* cleared: the slots up to this sequence number are empty. Written: rotator, release, last.
     * Read: who wants to rotate, acquire: one rotator follows the other, the second sees all that
     * the first did; snapshot, acquire: the empty slot no longer holds what the totals have. */
    _Atomic uint32_t cleared;
    /* dropped: records refused. Written: recorders (add). Read: snapshot. Relaxed. */
    _Atomic uint64_t dropped;
    tg_hist_total total[2];
    tg_hist_slot slot[TG_HIST_SLOTS];
} tg_hist;

/* 9,168 bytes: 7 slots of 1,240, two totals of 232, 24 for the rest. */
_Static_assert(sizeof(tg_hist) <= 9216, "a histogram stays below 9 KiB");

typedef struct tg_hist_view {
    uint64_t count; /* the window: the last 50 to 60 s; all 0 when nothing was recorded in it */
    double mean;    /* ns; exact */
    double max;     /* ns; exact */
    double p50;     /* ns; within 5 % */
    double p99;
    uint64_t total_count; /* since tg_hist_init() */
    double total_sum;     /* ns; a million tokens that wait fill 2^64 ns in 5 hours */
    uint64_t total_max;   /* ns */
    /* le[i]: how many were at most tg_hist_bound_ns(i), as in Prometheus; the last: total_count. */
    uint64_t le[TG_HIST_BOUNDS + 1u];
    uint64_t dropped; /* see guarantee 3; 0 in a healthy process */
} tg_hist_view;

/* Upper bound i of the coarse buckets: 1, 2.5, 5, 10 us ... 100 s. UINT64_MAX for the last one. */
static inline uint64_t tg_hist_bound_ns(uint32_t i)
{
    static const uint64_t bound[TG_HIST_BOUNDS] = {
        1000u,       2500u,       5000u,        10000u,       25000u,       50000u,
        100000u,     250000u,     500000u,      1000000u,     2500000u,     5000000u,
        10000000u,   25000000u,   50000000u,    100000000u,   250000000u,   500000000u,
        1000000000u, 2500000000u, 5000000000u,  10000000000u, 25000000000u, 50000000000u,
        100000000000u,
    };
    return i < TG_HIST_BOUNDS ? bound[i] : UINT64_MAX;
}

static inline uint32_t tg_hist_log2_(uint64_t value) /* value > 0 */
{
#if defined(__GNUC__) || defined(__clang__)
    return 63u - (uint32_t)__builtin_clzll(value);
#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_ARM64))
    unsigned long bit;
    _BitScanReverse64(&bit, value);
    return (uint32_t)bit;
#else
    uint32_t bit = 0;
    uint32_t step;
    for (step = 32u; step != 0u; step >>= 1) {
        if ((value >> step) != 0u) {
            value >>= step;
            bit += step;
        }
    }
    return bit;
#endif
}

/* Bucket of a value up to TG_HIST_MAX_NS. */
static inline uint32_t tg_hist_index_(uint64_t ns)
{
    /* By the six bits below the leading one; the cuts are those of tg_hist_low_(). */
    static const uint8_t sub[64] = {
        0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2,
        2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4,
        4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6,
        6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    };
    uint64_t value = ns < TG_HIST_MIN_NS ? TG_HIST_MIN_NS : ns;
    uint32_t power = tg_hist_log2_(value) - 6u;
    return power * TG_HIST_SUBS + sub[(value >> power) & 63u];
}

/* Least value of a bucket; of TG_HIST_BUCKETS, the end of the last. */
static inline uint64_t tg_hist_low_(uint32_t index)
{
    static const uint8_t cut[TG_HIST_SUBS] = {64, 70, 76, 83, 90, 98, 107, 117};
    return (uint64_t)cut[index % TG_HIST_SUBS] << (index / TG_HIST_SUBS);
}

static inline double tg_hist_mid_(uint32_t index)
{
    return (double)(tg_hist_low_(index) + tg_hist_low_(index + 1u)) * 0.5;
}

/* Adds counts by bucket to counts by coarse bound: each bucket goes where its midpoint lies. */
static inline void tg_hist_coarsen_(const uint64_t *count, uint64_t *coarse)
{
    uint32_t bound = 0;
    uint32_t i;
    for (i = 0; i < TG_HIST_BUCKETS; i++) {
        /* Low and end are integers: comparing twice the midpoint stays exact. */
        while (bound < TG_HIST_BOUNDS &&
               tg_hist_low_(i) + tg_hist_low_(i + 1u) > 2u * tg_hist_bound_ns(bound)) {
            bound++;
        }
        coarse[bound] += count[i];
    }
}

/* The maximum, given the highest bucket in use: a recorder that gave up in tg_hist_raise_(), or one
 * between its two adds, is thereby known within 5 % all the same. */
static inline uint64_t tg_hist_top_(const uint64_t *count, uint64_t max)
{
    uint32_t i = TG_HIST_BUCKETS;
    while (i != 0u && count[i - 1u] == 0u) {
        i--;
    }
    if (i > 1u && tg_hist_low_(i - 1u) > max) {
        return tg_hist_low_(i - 1u);
    }
    return max;
}

/* Opens the next slot for `period`, unless another did or the slot is not empty yet; returns the
 * word of the slot to record in. */
static inline uint64_t tg_hist_rotate_(tg_hist *h, uint64_t cur, uint64_t period)
{
    uint32_t seq = (uint32_t)cur + 1u;
    uint32_t oldest = seq - TG_HIST_LIVE; /* leaves the window now, is the empty one afterwards */
    uint64_t opened = period << 32 | seq;
    tg_hist_slot *slot = &h->slot[oldest % TG_HIST_SLOTS];
    tg_hist_total *from = &h->total[(oldest - 1u) & 1u];
    tg_hist_total *to = &h->total[oldest & 1u];
    uint64_t count[TG_HIST_BUCKETS];
    uint64_t coarse[TG_HIST_BOUNDS + 1u];
    uint64_t sum, max, sum_ns, total_max;
    uint32_t i;

    /* acquire: pairs with the release at the end of the rotation before. */
    if (atomic_load_explicit(&h->cleared, memory_order_acquire) != oldest - 1u) {
        return cur;
    }
    /* release: publishes the period stored in the rotation before, seen by the load above. */
    if (!atomic_compare_exchange_strong_explicit(&h->cur, &cur, opened, memory_order_release,
                                                 memory_order_relaxed)) {
        return cur;
    }
    /* From here to the store to `cleared` no other thread can rotate. */
    atomic_store_explicit(&h->slot[seq % TG_HIST_SLOTS].period, period, memory_order_release);

    /* 1. The new totals are the old ones plus the oldest slot, which stays as it is. */
    for (i = 0; i <= TG_HIST_BOUNDS; i++) {
        coarse[i] = atomic_load_explicit(&from->count[i], memory_order_relaxed);
    }
    for (i = 0; i < TG_HIST_BUCKETS; i++) {
        count[i] = atomic_load_explicit(&slot->count[i], memory_order_relaxed);
    }
    sum = atomic_load_explicit(&slot->sum, memory_order_relaxed);
    max = atomic_load_explicit(&slot->max, memory_order_relaxed);
    tg_hist_coarsen_(count, coarse);
    for (i = 0; i <= TG_HIST_BOUNDS; i++) {
        atomic_store_explicit(&to->count[i], coarse[i], memory_order_release);
    }
    sum_ns = sum % UINT64_C(1000000000) +
             atomic_load_explicit(&from->sum_ns, memory_order_relaxed);
    atomic_store_explicit(
        &to->sum_s,
        atomic_load_explicit(&from->sum_s, memory_order_relaxed) +
            sum / UINT64_C(1000000000) + sum_ns / UINT64_C(1000000000),
        memory_order_release);
    atomic_store_explicit(&to->sum_ns, sum_ns % UINT64_C(1000000000), memory_order_release);
    total_max = atomic_load_explicit(&from->max, memory_order_relaxed);
    if (tg_hist_top_(count, max) > total_max) {
        total_max = tg_hist_top_(count, max);
    }
    atomic_store_explicit(&to->max, total_max, memory_order_release);

    /* 2. From here a snapshot takes the totals instead of the slot. */
    atomic_store_explicit(&h->folded, oldest, memory_order_release);

    /* 3. Empty the slot by what was moved and no more: a recorder that is still at work on it after
     * 50 s stays counted. release: a snapshot that meets a reduced count (or one that a recorder
     * has raised since: the release sequence holds on) sees the store to `folded`, and starts
     * again. */
    for (i = 0; i < TG_HIST_BUCKETS; i++) {
        if (count[i] != 0u) {
            atomic_fetch_sub_explicit(&slot->count[i], (uint32_t)count[i],
                                      memory_order_release);
        }
    }
    atomic_fetch_sub_explicit(&slot->sum, sum, memory_order_release);
    atomic_compare_exchange_strong_explicit(&slot->max, &max, 0, memory_order_release,
                                            memory_order_relaxed);

    /* release: pairs with the load above, in the next rotation. */
    atomic_store_explicit(&h->cleared, oldest, memory_order_release);
    return opened;
}

static inline void tg_hist_raise_(tg_hist_slot *slot, uint64_t seen, uint64_t ns)
{
    /* Bounded, so that a crowd of rising values cannot hold a recorder up: see tg_hist_top_(). */
    uint32_t turn;
    for (turn = 0; turn < TG_HIST_MAX_TURNS && seen < ns; turn++) {
        if (atomic_compare_exchange_strong_explicit(&slot->max, &seen, ns, memory_order_relaxed,
                                                    memory_order_relaxed)) {
            return;
        }
    }
}

/* Makes an empty histogram. Before any other call; no other thread may use it meanwhile. */
static inline void tg_hist_init(tg_hist *h)
{
    uint32_t i, k;
    atomic_init(&h->cur, (uint64_t)TG_HIST_LIVE);
    atomic_init(&h->folded, 0u);
    atomic_init(&h->cleared, 0u);
    atomic_init(&h->dropped, 0u);
    for (k = 0; k < 2u; k++) {
        for (i = 0; i <= TG_HIST_BOUNDS; i++) {
            atomic_init(&h->total[k].count[i], 0u);
        }
        atomic_init(&h->total[k].sum_s, 0u);
        atomic_init(&h->total[k].sum_ns, 0u);
        atomic_init(&h->total[k].max, 0u);
    }
    for (k = 0; k < TG_HIST_SLOTS; k++) {
        for (i = 0; i < TG_HIST_BUCKETS; i++) {
            atomic_init(&h->slot[k].count[i], 0u);
        }
        atomic_init(&h->slot[k].sum, 0u);
        atomic_init(&h->slot[k].max, 0u);
        atomic_init(&h->slot[k].period, 0u);
    }
}

/* Counts one duration, at the monotonic time now_ns. Any thread; wait-free. */
static inline void tg_hist_record(tg_hist *h, uint64_t ns, uint64_t now_ns)
{
    uint64_t period = now_ns / TG_HIST_SLOT_NS;
    uint64_t value = ns < TG_HIST_MAX_NS ? ns : TG_HIST_MAX_NS;
    uint32_t index = tg_hist_index_(value);
    uint64_t cur = atomic_load_explicit(&h->cur, memory_order_relaxed);
    tg_hist_slot *slot;
    uint64_t sum, max;
    uint32_t count;

    if (period > cur >> 32) {
        cur = tg_hist_rotate_(h, cur, period);
    }
    slot = &h->slot[(uint32_t)cur % TG_HIST_SLOTS];
    count = atomic_fetch_add_explicit(&slot->count[index], 1u, memory_order_relaxed);
    sum = atomic_fetch_add_explicit(&slot->sum, value, memory_order_relaxed);
    if (count >= TG_HIST_SLOT_FULL || sum >= TG_HIST_SLOT_FULL_NS) {
        if (count >= TG_HIST_REFUSE || sum >= TG_HIST_REFUSE_NS) {
            atomic_fetch_sub_explicit(&slot->count[index], 1u, memory_order_relaxed);
            atomic_fetch_sub_explicit(&slot->sum, value, memory_order_relaxed);
            atomic_fetch_add_explicit(&h->dropped, 1u, memory_order_relaxed);
            return;
        }
        (void)tg_hist_rotate_(h, cur, cur >> 32);
    }
    max = atomic_load_explicit(&slot->max, memory_order_relaxed);
    if (max < value) {
        tg_hist_raise_(slot, max, value);
    }
}

/* The value of rank `rank` (from 1), as its bucket's midpoint. */
static inline double tg_hist_rank_(const uint64_t *count, uint64_t rank)
{
    uint32_t i = 0;
    while (rank > count[i]) {
        rank -= count[i];
        i++;
    }
    return tg_hist_mid_(i);
}

/* A part of the window, or of all that is not in the totals yet. The sum is kept as in
 * tg_hist_total. */
typedef struct tg_hist_part_ {
    uint64_t count[TG_HIST_BUCKETS];
    uint64_t sum_s, sum_ns, max;
} tg_hist_part_;

static inline void tg_hist_part_add_(tg_hist_part_ *to, const tg_hist_part_ *part)
{
    uint32_t i;
    for (i = 0; i < TG_HIST_BUCKETS; i++) {
        to->count[i] += part->count[i];
    }
    to->sum_s += part->sum_s;
    to->sum_ns += part->sum_ns;
    to->max = part->max > to->max ? part->max : to->max;
}

static inline void tg_hist_part_read_(tg_hist_part_ *to, tg_hist_slot *slot)
{
    uint64_t sum;
    uint32_t i;
    /* acquire: pairs with the rotator's release when it empties the slot, and keeps the snapshot's
     * second load of `folded` behind these loads. */
    for (i = 0; i < TG_HIST_BUCKETS; i++) {
        to->count[i] = atomic_load_explicit(&slot->count[i], memory_order_acquire);
    }
    sum = atomic_load_explicit(&slot->sum, memory_order_acquire);
    to->sum_s = sum / UINT64_C(1000000000);
    to->sum_ns = sum % UINT64_C(1000000000);
    to->max = tg_hist_top_(to->count, atomic_load_explicit(&slot->max, memory_order_acquire));
}

/* Reads the window that ends at now_ns, and the totals, into *out. Any thread; does not block;
 * about 4 us; 8 kB of stack. */
static inline void tg_hist_snapshot(const tg_hist *hist, uint64_t now_ns, tg_hist_view *out)
{
    /* C11 as first published has no atomic_load of a const object; nothing is written here. */
    tg_hist *h = (tg_hist *)hist;
    static const tg_hist_part_ nothing = {{0}, 0, 0, 0};
    uint64_t period = now_ns / TG_HIST_SLOT_NS;
    uint64_t cur, slot_period, total_s, total_ns;
    tg_hist_part_ window, live, part;
    tg_hist_total *total;
    uint32_t folded, last, seq, i;

    /* A turn is repeated only if a rotation ended during it, and those are 10 s apart. */
    do {
        window = live = nothing;
        /* acquire: pairs with the rotator's release; the totals of that generation are complete. */
        folded = atomic_load_explicit(&h->folded, memory_order_acquire);
        cur = atomic_load_explicit(&h->cur, memory_order_acquire);
        total = &h->total[folded & 1u];
        /* acquire: as in tg_hist_part_read_(); pairs with the rotation after the next. */
        for (i = 0; i <= TG_HIST_BOUNDS; i++) {
            out->le[i] = atomic_load_explicit(&total->count[i], memory_order_acquire);
        }
        total_s = atomic_load_explicit(&total->sum_s, memory_order_acquire);
        total_ns = atomic_load_explicit(&total->sum_ns, memory_order_acquire);
        out->total_max = atomic_load_explicit(&total->max, memory_order_acquire);

        /* The live slots; the empty one too, unless it is just being emptied, for the sake of a
         * recorder that came late (approximations, above). More than seven apart: `folded` has
         * moved since, and this turn is void. */
        last = (uint32_t)cur;
        if (atomic_load_explicit(&h->cleared, memory_order_acquire) == folded ||
            last - folded > TG_HIST_SLOTS) {
            last = folded + TG_HIST_SLOTS;
        }
        for (seq = folded + 1u; seq != last + 1u; seq++) {
            tg_hist_slot *slot = &h->slot[seq % TG_HIST_SLOTS];
            slot_period = cur >> 32;
            if (seq != (uint32_t)cur) {
                slot_period = atomic_load_explicit(&slot->period, memory_order_acquire);
            }
            tg_hist_part_read_(&part, slot);
            tg_hist_part_add_(&live, &part);
            if (slot_period + TG_HIST_LIVE > period) {
                tg_hist_part_add_(&window, &part);
            }
        }
    } while (atomic_load_explicit(&h->folded, memory_order_acquire) != folded);

    tg_hist_coarsen_(live.count, out->le);
    for (i = 1; i <= TG_HIST_BOUNDS; i++) {
        out->le[i] += out->le[i - 1u];
    }
    out->total_count = out->le[TG_HIST_BOUNDS];
    out->total_sum = (double)(total_s + live.sum_s) * 1e9 + (double)(total_ns + live.sum_ns);
    out->total_max = live.max > out->total_max ? live.max : out->total_max;
    /* dropped: relaxed, a count on its own. */
    out->dropped = atomic_load_explicit(&h->dropped, memory_order_relaxed);

    out->count = 0;
    for (i = 0; i < TG_HIST_BUCKETS; i++) {
        out->count += window.count[i];
    }
    out->mean = out->max = out->p50 = out->p99 = 0.0;
    if (out->count != 0u) {
        /* The maximum bounds all: a midpoint can lie above the values of its bucket, and the sum be
         * ahead of the count. */
        out->max = (double)window.max;
        out->mean = ((double)window.sum_s * 1e9 + (double)window.sum_ns) / (double)out->count;
        out->mean = out->mean < out->max ? out->mean : out->max;
        out->p50 = tg_hist_rank_(window.count, out->count - out->count / 2u);
        out->p50 = out->p50 < out->max ? out->p50 : out->max;
        out->p99 = tg_hist_rank_(window.count, out->count - out->count / 100u);
        out->p99 = out->p99 < out->max ? out->p99 : out->max;
    }
}

#endif /* TG_HIST_H */
