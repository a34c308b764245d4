/* tg_hist.h: error bound, window by a faked clock, totals, limits, and 8 recorders with a reader.
 *
 *   cc -std=c11 -I tokengate/_native tests/native/test_hist.c -pthread
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tg_hist.h"

#define CHECK(what)                                                                    \
    do {                                                                               \
        if (!(what)) {                                                                 \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #what);         \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)

#define SLOT TG_HIST_SLOT_NS
#define THREADS 8u

static tg_hist h;
static tg_hist_view view;

static uint64_t random_state = 88172645463325252u;

static uint64_t random_next(void) /* xorshift64, G. Marsaglia */
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Even over the logarithm, as far as it matters here: a random power of two, then even within. */
static uint64_t random_duration(void)
{
    for (;;) {
        uint64_t base = UINT64_C(1) << (6u + random_next() % 38u);
        uint64_t value = base + random_next() % base;
        if (value >= 100u && value <= TG_HIST_MAX_NS) {
            return value;
        }
    }
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int near(double got, double want, double share)
{
    return got >= want * (1.0 - share) && got <= want * (1.0 + share);
}

static void test_buckets_cover_the_range_within_the_bound(void)
{
    uint32_t i;
    uint64_t end = TG_HIST_MIN_NS;
    double worst = 0.0;
    for (i = 0; i < TG_HIST_BUCKETS; i++) {
        uint64_t low = tg_hist_low_(i);
        CHECK(low == end);
        end = tg_hist_low_(i + 1u);
        CHECK(end > low);
        if (low <= TG_HIST_MAX_NS) {
            double error = (tg_hist_mid_(i) - (double)low) / (double)low;
            CHECK(tg_hist_index_(low) == i);
            CHECK(tg_hist_index_(end - 1u) == i);
            worst = error > worst ? error : worst;
        }
    }
    CHECK(end > TG_HIST_MAX_NS);
    CHECK(worst <= 0.0471);
}

static void test_empty(void)
{
    uint32_t i;
    tg_hist_init(&h);
    tg_hist_snapshot(&h, 1234567u * SLOT, &view);
    CHECK(view.count == 0 && view.total_count == 0 && view.total_max == 0 && view.dropped == 0);
    CHECK(view.mean == 0.0 && view.max == 0.0 && view.p50 == 0.0 && view.p99 == 0.0);
    CHECK(view.total_sum == 0.0);
    for (i = 0; i <= TG_HIST_BOUNDS; i++) {
        CHECK(view.le[i] == 0);
    }
}

/* One value at a time, over the whole range in steps of 0.7 %; and clamped beyond it. */
static void test_single_values(void)
{
    double next;
    for (next = 100.0; next <= 1e13; next *= 1.007) {
        uint64_t value = (uint64_t)next;
        tg_hist_init(&h);
        tg_hist_record(&h, value, 5u * SLOT);
        tg_hist_snapshot(&h, 5u * SLOT, &view);
        CHECK(view.count == 1 && view.total_count == 1);
        CHECK(view.mean == (double)value && view.max == (double)value);
        CHECK(near(view.p50, (double)value, 0.05) && near(view.p99, (double)value, 0.05));
        CHECK(view.total_sum == (double)value && view.total_max == value);
    }
    tg_hist_init(&h);
    tg_hist_record(&h, 0, SLOT);
    tg_hist_snapshot(&h, SLOT, &view);
    CHECK(view.count == 1 && view.mean == 0.0 && view.p50 == 0.0 && view.le[0] == 1);
    tg_hist_record(&h, UINT64_MAX, SLOT);
    tg_hist_snapshot(&h, SLOT, &view);
    CHECK(view.max == 1e13 && near(view.p99, 1e13, 0.05) && view.mean == 5e12);
    CHECK(view.le[TG_HIST_BOUNDS - 1u] == 1 && view.le[TG_HIST_BOUNDS] == 2);
}

/* Quantiles, mean, max and coarse counts against the sorted values. */
static void test_against_exact_quantiles(void)
{
    static uint64_t values[20000];
    static const uint32_t sizes[] = {1, 2, 3, 7, 99, 100, 101, 1000, 20000};
    uint32_t s, i, round;
    for (s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (round = 0; round < 20u; round++) {
            uint32_t n = sizes[s];
            double sum = 0.0;
            uint64_t around = random_duration();
            tg_hist_init(&h);
            for (i = 0; i < n; i++) {
                /* Over the whole range; within a factor of two; two far apart. */
                uint64_t value = random_duration();
                if (round % 3u == 1u) {
                    value = around + value % around;
                } else if (round % 3u == 2u) {
                    value = value % 100u < 97u ? 150u : around;
                }
                values[i] = value < TG_HIST_MAX_NS ? value : TG_HIST_MAX_NS;
                sum += (double)values[i];
                tg_hist_record(&h, values[i], 7u * SLOT + i % 5u * SLOT);
            }
            qsort(values, n, sizeof values[0], by_value);
            tg_hist_snapshot(&h, 11u * SLOT, &view);
            CHECK(view.count == n && view.total_count == n);
            CHECK(near(view.p50, (double)values[(n + 1u) / 2u - 1u], 0.05));
            CHECK(near(view.p99, (double)values[n - n / 100u - 1u], 0.05));
            CHECK(view.max == (double)values[n - 1u]);
            CHECK(near(view.mean, sum / n, 1e-9));
            CHECK(near(view.total_sum, sum, 1e-9));
            for (i = 0; i < TG_HIST_BOUNDS; i++) {
                double bound = (double)tg_hist_bound_ns(i);
                uint64_t least = 0, most = 0;
                uint32_t k;
                for (k = 0; k < n; k++) {
                    least += (double)values[k] <= bound * 0.95;
                    most += (double)values[k] <= bound * 1.05;
                }
                CHECK(view.le[i] >= least && view.le[i] <= most);
                CHECK(view.le[i] <= view.le[i + 1u]);
            }
            CHECK(view.le[TG_HIST_BOUNDS] == n);
        }
    }
}

static void test_coarse_bounds(void)
{
    uint32_t i;
    uint64_t decade = 1000u;
    for (i = 0; i + 2u < TG_HIST_BOUNDS; i += 3u) {
        CHECK(tg_hist_bound_ns(i) == decade);
        CHECK(tg_hist_bound_ns(i + 1u) * 2u == decade * 5u);
        CHECK(tg_hist_bound_ns(i + 2u) == decade * 5u);
        decade *= 10u;
    }
    CHECK(tg_hist_bound_ns(TG_HIST_BOUNDS - 1u) == UINT64_C(100000000000));
    CHECK(tg_hist_bound_ns(TG_HIST_BOUNDS) == UINT64_MAX);
}

/* A value is in the window for its own period and the five after it, to the nanosecond. */
static void test_window_ends(void)
{
    tg_hist_init(&h);
    tg_hist_record(&h, 1000000u, 100u * SLOT);
    tg_hist_snapshot(&h, 106u * SLOT - 1u, &view);
    CHECK(view.count == 1 && view.max == 1e6);
    tg_hist_snapshot(&h, 106u * SLOT, &view);
    CHECK(view.count == 0 && view.max == 0.0 && view.p99 == 0.0);
    CHECK(view.total_count == 1 && view.total_max == 1000000u && view.total_sum == 1e6);
    /* A clock read before the rotation and used after it counts as now. */
    tg_hist_record(&h, 2000u, 120u * SLOT);
    tg_hist_record(&h, 3000u, 119u * SLOT);
    tg_hist_snapshot(&h, 125u * SLOT, &view);
    CHECK(view.count == 2 && view.max == 3000.0);
    tg_hist_snapshot(&h, 126u * SLOT, &view);
    CHECK(view.count == 0 && view.total_count == 3);
}

/* A random walk of the clock, against a list of all that was recorded. */
static void test_rotation_against_a_model(void)
{
    enum { STEPS = 3000 };
    static uint64_t values[STEPS], periods[STEPS];
    uint64_t now = 3u * SLOT, last_total = 0;
    uint32_t n, i;
    tg_hist_init(&h);
    for (n = 0; n < STEPS; n++) {
        uint64_t dice = random_next() % 100u, count = 0, max = 0, total_max = 0;
        double sum = 0.0, total = 0.0;
        if (dice < 30u) {
            now += random_next() % SLOT;
        } else if (dice < 33u) {
            now += random_next() % (20u * SLOT);
        }
        values[n] = random_duration();
        periods[n] = now / SLOT;
        tg_hist_record(&h, values[n], now);
        tg_hist_snapshot(&h, now, &view);
        for (i = 0; i <= n; i++) {
            total += (double)values[i];
            total_max = values[i] > total_max ? values[i] : total_max;
            if (periods[i] + 6u > now / SLOT) {
                count++;
                sum += (double)values[i];
                max = values[i] > max ? values[i] : max;
            }
        }
        CHECK(view.count == count && view.max == (double)max);
        CHECK(near(view.mean, sum / (double)count, 1e-9));
        CHECK(view.total_count == n + 1u && view.total_max == total_max);
        CHECK(near(view.total_sum, total, 1e-9));
        CHECK(view.total_count > last_total);
        last_total = view.total_count;
    }
}

/* 2,000,000 waits of 10,000 s are more nanoseconds than 64 bits hold. */
static void test_total_sum_beyond_64_bits(void)
{
    uint32_t i;
    tg_hist_init(&h);
    for (i = 0; i < 2000000u; i++) {
        tg_hist_record(&h, TG_HIST_MAX_NS, SLOT * (1u + i / 200000u));
    }
    tg_hist_snapshot(&h, 10u * SLOT, &view);
    CHECK(view.total_count == 2000000u && near(view.total_sum, 2e19, 1e-12));
    CHECK(view.count == 1200000u && near(view.mean, 1e13, 1e-12));
    /* All of them in one period: the sum of a slot is full, and the slot ends early. */
    tg_hist_init(&h);
    for (i = 0; i < 2000000u; i++) {
        tg_hist_record(&h, TG_HIST_MAX_NS, SLOT);
    }
    CHECK((uint32_t)atomic_load(&h.cur) == TG_HIST_LIVE + 3u);
    tg_hist_snapshot(&h, SLOT, &view);
    CHECK(view.total_count == 2000000u && near(view.total_sum, 2e19, 1e-12));
    CHECK(view.count == 2000000u && near(view.mean, 1e13, 1e-12) && view.dropped == 0);
}

/* Counters are put near their end by hand: counting there takes too long. */
static void test_full_bucket_ends_its_slot(void)
{
    uint64_t full = TG_HIST_SLOT_FULL;
    uint32_t index = tg_hist_index_(500u), i;
    tg_hist_init(&h);
    for (i = 0; i < 20u; i++) {
        uint32_t slot;
        tg_hist_record(&h, 500u, 9u * SLOT);
        slot = (uint32_t)atomic_load(&h.cur) % TG_HIST_SLOTS;
        atomic_fetch_add(&h.slot[slot].count[index], (uint32_t)full - 1u);
        tg_hist_record(&h, 500u, 9u * SLOT); /* fills the slot and opens the next */
        CHECK((uint32_t)atomic_load(&h.cur) % TG_HIST_SLOTS != slot);
        tg_hist_snapshot(&h, 9u * SLOT, &view);
        CHECK(view.total_count == (i + 1u) * (full + 1u));
        CHECK(view.le[0] == view.total_count && view.dropped == 0);
        CHECK(view.count <= view.total_count && view.count >= (i < 5u ? i + 1u : 5u) * full);
    }
}

/* A rotator that never comes back: records stay in the old slot, then are refused, openly. */
static void test_refused_before_a_counter_wraps(void)
{
    uint32_t index = tg_hist_index_(500u), slot, i;
    tg_hist_init(&h);
    tg_hist_record(&h, 500u, 9u * SLOT);
    atomic_fetch_sub(&h.cleared, 1u);
    slot = (uint32_t)atomic_load(&h.cur) % TG_HIST_SLOTS;
    tg_hist_record(&h, 500u, 10u * SLOT);
    CHECK((uint32_t)atomic_load(&h.cur) % TG_HIST_SLOTS == slot);
    CHECK(atomic_load(&h.slot[slot].count[index]) == 2u);
    atomic_store(&h.slot[slot].count[index], TG_HIST_REFUSE - 3u);
    for (i = 0; i < 10u; i++) {
        tg_hist_record(&h, 500u, 10u * SLOT);
    }
    tg_hist_snapshot(&h, 10u * SLOT, &view);
    CHECK(view.total_count == TG_HIST_REFUSE && view.dropped == 7u);
    atomic_store(&h.slot[slot].sum, TG_HIST_REFUSE_NS);
    tg_hist_record(&h, 900000u, 10u * SLOT);
    tg_hist_snapshot(&h, 10u * SLOT, &view);
    CHECK(view.total_count == TG_HIST_REFUSE && view.dropped == 8u);
    CHECK(atomic_load(&h.slot[slot].sum) == TG_HIST_REFUSE_NS);
}

/* A recorder that slept through a whole turn of the slots adds to a slot emptied long since, or to
 * one that is being emptied: its record stays, whatever the rotator subtracts. */
static void test_late_recorder_is_kept(void)
{
    uint32_t slot, i;
    tg_hist_init(&h);
    tg_hist_record(&h, 500u, SLOT);
    slot = (uint32_t)atomic_load(&h.cur) % TG_HIST_SLOTS;
    for (i = 2; i < 40u; i++) {
        /* The two adds of tg_hist_record(), with `cur` read long ago. */
        atomic_fetch_add(&h.slot[slot].count[tg_hist_index_(700u)], 1u);
        atomic_fetch_add(&h.slot[slot].sum, 700u);
        tg_hist_snapshot(&h, i * SLOT, &view);
        CHECK(view.total_count == 2u * i - 2u);
        tg_hist_record(&h, 500u, i * SLOT);
        tg_hist_snapshot(&h, i * SLOT, &view);
        CHECK(view.total_count == 2u * i - 1u);
        CHECK(view.total_sum == 500.0 * i + 700.0 * (i - 1u));
    }
}

/* Concurrent part. Each recorder counts what it is about to record and what it has recorded, so
 * that the reader knows a least and a greatest number for what it may see. */
struct crowd {
    pthread_mutex_t start; /* held until all threads exist */
    /* clock: Written: recorders (add). Read: recorders, reader. Relaxed: time on its own. */
    _Atomic uint64_t clock;
    /* begun, ended: Written: recorders (add). Read: reader. seq_cst: a bound for what it sees. */
    _Atomic uint64_t begun, ended;
    _Atomic uint32_t running;
    uint64_t step;
    uint32_t each;
};

struct recorder {
    struct crowd *crowd;
    uint64_t seed, sum, max;
};

static void *record_many(void *argument)
{
    struct recorder *me = argument;
    struct crowd *crowd = me->crowd;
    uint32_t i;
    pthread_mutex_lock(&crowd->start);
    pthread_mutex_unlock(&crowd->start);
    for (i = 0; i < crowd->each; i++) {
        uint64_t value = 100u + (me->seed * 7919u + i * UINT64_C(104729)) % 5000000u;
        uint64_t now = atomic_fetch_add_explicit(&crowd->clock, crowd->step, memory_order_relaxed);
        me->sum += value;
        me->max = value > me->max ? value : me->max;
        atomic_fetch_add(&crowd->begun, 1u);
        tg_hist_record(&h, value, now);
        atomic_fetch_add(&crowd->ended, 1u);
    }
    atomic_fetch_sub(&crowd->running, 1u);
    return NULL;
}

/* `step`: how far each record moves the clock. Where no recorder can oversleep a turn of the slots
 * (few rotations, or one recorder, who makes them all) the reader's least number holds as well as
 * its greatest: nothing is missing even while a slot moves to the totals. */
static void run_crowd(uint32_t threads, uint32_t each, uint64_t step, int none_late, int one_window)
{
    struct crowd crowd;
    struct recorder me[THREADS];
    pthread_t thread[THREADS];
    uint64_t sum = 0, max = 0, looks = 0, last = 0;
    uint32_t i, running;
    memset(me, 0, sizeof me);
    tg_hist_init(&h);
    atomic_init(&crowd.clock, 50u * SLOT);
    atomic_init(&crowd.begun, 0u);
    atomic_init(&crowd.ended, 0u);
    atomic_init(&crowd.running, threads);
    crowd.step = step;
    crowd.each = each;
    CHECK(pthread_mutex_init(&crowd.start, NULL) == 0 && pthread_mutex_lock(&crowd.start) == 0);
    for (i = 0; i < threads; i++) {
        me[i].crowd = &crowd;
        me[i].seed = i;
        CHECK(pthread_create(&thread[i], NULL, record_many, &me[i]) == 0);
    }
    CHECK(pthread_mutex_unlock(&crowd.start) == 0);
    do {
        uint64_t least, most;
        running = atomic_load(&crowd.running);
        least = atomic_load(&crowd.ended);
        tg_hist_snapshot(&h, atomic_load_explicit(&crowd.clock, memory_order_relaxed), &view);
        most = atomic_load(&crowd.begun);
        CHECK(view.le[TG_HIST_BOUNDS] == view.total_count);
        CHECK(view.total_count <= most);
        CHECK(view.count <= view.total_count);
        CHECK(view.p50 <= view.p99 && view.p99 <= view.max);
        CHECK(view.max <= 5000100.0 && view.total_max <= 5000100u);
        CHECK(!none_late || (view.total_count >= least && view.total_count >= last));
        CHECK(!one_window || view.count == view.total_count);
        last = view.total_count;
        looks++;
    } while (running != 0u);
    for (i = 0; i < threads; i++) {
        CHECK(pthread_join(thread[i], NULL) == 0);
        sum += me[i].sum;
        max = me[i].max > max ? me[i].max : max;
    }
    CHECK(pthread_mutex_destroy(&crowd.start) == 0);
    tg_hist_snapshot(&h, atomic_load(&crowd.clock), &view);
    CHECK(view.total_count == (uint64_t)threads * each);
    CHECK(view.total_sum == (double)sum);
    CHECK(near((double)view.total_max, (double)max, 0.1) && view.dropped == 0);
    CHECK(looks > 0);
    if (one_window) {
        CHECK(view.count == (uint64_t)threads * each);
        CHECK(near(view.p50, 2500100.0, 0.1));
    }
}

static void test_crowd_in_one_window(void)
{
    run_crowd(THREADS, 100000u, 4u * SLOT / (THREADS * 100000u), 1, 1);
}

/* Thousands of rotations: a slot's turn is over while recorders are still in it. */
static void test_crowd_with_rushing_clock(void)
{
    run_crowd(THREADS, 100000u, SLOT / 50u, 0, 0);
}

/* Every record wants to rotate: most find a rotation under way. */
static void test_crowd_all_rotating(void)
{
    run_crowd(THREADS, 20000u, SLOT, 0, 0);
}

static void test_reader_beside_rotations(void)
{
    run_crowd(1u, 100000u, SLOT / 3u, 1, 0);
}

/* The two adds of a recorder that always comes late, for every phase of a slot's turn. */
static void *record_late(void *argument)
{
    uint32_t i, each = *(const uint32_t *)argument;
    for (i = 0; i < each; i++) {
        tg_hist_slot *slot = &h.slot[i % TG_HIST_SLOTS];
        atomic_fetch_add_explicit(&slot->count[tg_hist_index_(700u)], 1u, memory_order_relaxed);
        atomic_fetch_add_explicit(&slot->sum, 700u, memory_order_relaxed);
    }
    return NULL;
}

static void test_late_recorders_beside_rotations(void)
{
    pthread_t thread[3];
    uint32_t each = 1000000u, i, rotations = 30000u;
    tg_hist_init(&h);
    for (i = 0; i < 3u; i++) {
        CHECK(pthread_create(&thread[i], NULL, record_late, &each) == 0);
    }
    for (i = 1; i <= rotations; i++) {
        tg_hist_record(&h, 700u, i * SLOT);
    }
    for (i = 0; i < 3u; i++) {
        CHECK(pthread_join(thread[i], NULL) == 0);
    }
    tg_hist_snapshot(&h, rotations * SLOT, &view);
    CHECK(view.total_count == 3u * (uint64_t)each + rotations);
    CHECK(view.total_sum == 700.0 * (3.0 * each + rotations));
}

int main(void)
{
    test_buckets_cover_the_range_within_the_bound();
    test_empty();
    test_single_values();
    test_coarse_bounds();
    test_against_exact_quantiles();
    test_window_ends();
    test_rotation_against_a_model();
    test_total_sum_beyond_64_bits();
    test_full_bucket_ends_its_slot();
    test_refused_before_a_counter_wraps();
    test_late_recorder_is_kept();
    test_crowd_in_one_window();
    test_crowd_with_rushing_clock();
    test_crowd_all_rotating();
    test_reader_beside_rotations();
    test_late_recorders_beside_rotations();
    printf("hist: ok, %zu bytes\n", sizeof(tg_hist));
    return 0;
}
