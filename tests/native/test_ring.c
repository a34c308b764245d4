/* The ring: bounds, order, wrap-around; many producers and consumers. */
#include "check.h"

#include "tg_ring.h"

#include <sys/types.h>

static void test_smoke(size_t capacity)
{
    tg_ring r;
    int values[64];
    CHECK(capacity <= 64 && tg_ring_init(&r, capacity));
    for (int lap = 0; lap < 100; lap++) {
        CHECK(tg_ring_pop(&r) == NULL && tg_ring_length(&r) == 0);
        for (size_t i = 0; i < capacity; i++) {
            CHECK(tg_ring_has_room(&r) && tg_ring_push(&r, &values[i]));
            CHECK_EQ(tg_ring_length(&r), i + 1);
        }
        CHECK(!tg_ring_has_room(&r) && !tg_ring_push(&r, &values[0]));
        CHECK(tg_ring_pop(&r) == &values[0]);
        CHECK(tg_ring_has_room(&r) && tg_ring_push(&r, &values[0])); /* the laps begin at every slot in turn */
        for (size_t i = 1; i < capacity; i++)
            CHECK(tg_ring_pop(&r) == &values[i]);
        CHECK(tg_ring_pop(&r) == &values[0]);
    }
    tg_ring_destroy(&r);
}

/* The tickets run over the largest size_t. */
static void test_ticket_overflow(void)
{
    tg_ring r;
    int values[4];
    size_t start = SIZE_MAX - 5;
    CHECK(tg_ring_init(&r, 4));
    for (size_t i = 0; i < 4; i++)
        atomic_store(&r.slots[(start + i) & r.mask].stamp, start + i);
    atomic_store(&r.head, start);
    atomic_store(&r.tail, start);
    for (int lap = 0; lap < 12; lap++) {
        for (int i = 0; i < 3; i++)
            CHECK(tg_ring_push(&r, &values[i]));
        CHECK_EQ(tg_ring_length(&r), 3);
        for (int i = 0; i < 3; i++)
            CHECK(tg_ring_pop(&r) == &values[i]);
        CHECK(tg_ring_length(&r) == 0 && tg_ring_pop(&r) == NULL);
    }
    tg_ring_destroy(&r);
}

/* ---- many threads -------------------------------------------------------------------------------------------- */

#define MOST_THREADS 4

typedef struct {
    unsigned producer, number; /* plain: push must publish them to pop */
    atomic_uint taken;
} item;

typedef struct {
    tg_ring ring;
    start_line line;
    unsigned producers, consumers, each;
    bool locked; /* producers take a lock and ask for room first, as the pool does */
    pthread_mutex_t lock;
    item *items;
    atomic_uint next_producer, taken;
} traffic;

static void *produce(void *arg)
{
    traffic *t = arg;
    unsigned me = atomic_fetch_add(&t->next_producer, 1);
    start_line_wait(&t->line);
    for (unsigned n = 0; n < t->each;) {
        item *it = &t->items[me * t->each + n];
        it->producer = me;
        it->number = n;
        bool pushed;
        if (t->locked) {
            pthread_mutex_lock(&t->lock);
            pushed = tg_ring_has_room(&t->ring);
            if (pushed)
                CHECK(tg_ring_push(&t->ring, it));
            pthread_mutex_unlock(&t->lock);
        } else {
            pushed = tg_ring_push(&t->ring, it);
        }
        if (pushed)
            n++;
        else
            sched_yield();
    }
    return NULL;
}

static void *consume(void *arg)
{
    traffic *t = arg;
    int64_t last[MOST_THREADS];
    for (unsigned i = 0; i < t->producers; i++)
        last[i] = -1;
    start_line_wait(&t->line);
    while (atomic_load_explicit(&t->taken, memory_order_relaxed) < t->producers * t->each) {
        item *it = tg_ring_pop(&t->ring);
        if (it == NULL) {
            sched_yield();
            continue;
        }
        CHECK((int64_t)it->number > last[it->producer]); /* what one producer pushed is popped in its order */
        last[it->producer] = it->number;
        CHECK(atomic_fetch_add_explicit(&it->taken, 1, memory_order_relaxed) == 0);
        atomic_fetch_add_explicit(&t->taken, 1, memory_order_relaxed);
    }
    return NULL;
}

static void test_traffic(size_t capacity, unsigned producers, unsigned consumers, unsigned each, bool locked)
{
    traffic t = {.producers = producers, .consumers = consumers, .each = each, .locked = locked};
    pthread_t threads[2 * MOST_THREADS];
    CHECK(producers <= MOST_THREADS && consumers <= MOST_THREADS && tg_ring_init(&t.ring, capacity));
    pthread_mutex_init(&t.lock, NULL);
    start_line_init(&t.line, producers + consumers);
    t.items = calloc((size_t)producers * each, sizeof(item));
    CHECK(t.items != NULL);
    for (unsigned i = 0; i < producers; i++)
        check_start(&threads[i], produce, &t);
    for (unsigned i = 0; i < consumers; i++)
        check_start(&threads[producers + i], consume, &t);
    for (unsigned i = 0; i < producers + consumers; i++)
        check_join(threads[i]);
    for (size_t i = 0; i < (size_t)producers * each; i++)
        CHECK_EQ(atomic_load(&t.items[i].taken), 1);
    CHECK(tg_ring_pop(&t.ring) == NULL);
    free(t.items);
    pthread_mutex_destroy(&t.lock);
    tg_ring_destroy(&t.ring);
}

int main(int argc, char **argv)
{
    unsigned each = (unsigned)check_rounds(argc, argv);
    for (size_t capacity = 2; capacity <= 64; capacity *= 2)
        test_smoke(capacity);
    test_ticket_overflow();
    for (size_t capacity = 2; capacity <= 256; capacity = capacity == 4 ? 256 : capacity * 2) {
        test_traffic(capacity, 1, 1, each, false);
        test_traffic(capacity, 4, 1, each, false);
        test_traffic(capacity, 1, 4, each, false);
        test_traffic(capacity, 4, 4, each, false);
        test_traffic(capacity, 4, 4, each, true);
    }
    return 0;
}
