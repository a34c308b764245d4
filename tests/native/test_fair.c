/* Fair share: the heap against a brute-force model, and what it promises between operations and between priorities. */
#include "check.h"

#include "tg_fair.h"

#define OPS 13
#define EACH 3 /* queues of an operation: two of its own priority, as with keys, and one of another */
#define QUEUES (OPS * EACH)
#define MS 1000000

static tg_op *ops[OPS];
static tg_queue *queues[QUEUES]; /* of ops[i]: from i * EACH on */
static tg_token heads[QUEUES];   /* one token in each queue, always */
static tg_fair fair;

static void reset(void)
{
    free(fair.queues);
    fair = (tg_fair){0};
    CHECK(tg_fair_reserve(&fair, QUEUES));
    for (size_t i = 0; i < QUEUES; i++) {
        tg_queue *q = queues[i];
        tg_queue *next = q->next;
        *q = (tg_queue){.head = &heads[i], .tail = &heads[i], .waiting = 1, .op = ops[i / EACH], .next = next};
        heads[i].created = 0;
        q->op->service = 0;
    }
}

static void check_heap(const bool *inside)
{
    size_t count = 0;
    for (size_t i = 0; i < fair.length; i++) {
        CHECK(fair.queues[i]->heap_at == i + 1);
        CHECK(i == 0 || !tg_fair_before(fair.queues[i], fair.queues[(i - 1) / 2]));
    }
    for (size_t i = 0; i < QUEUES; i++) {
        CHECK((queues[i]->heap_at != 0) == inside[i]);
        count += inside[i];
        CHECK(!inside[i] || !tg_fair_before(queues[i], fair.queues[0]));
    }
    CHECK_EQ(fair.length, count);
}

static void test_reserve(void)
{
    tg_fair f = {0};
    CHECK(tg_fair_reserve(&f, 1) && f.room >= 1);
    size_t room = f.room;
    CHECK(tg_fair_reserve(&f, room) && f.room == room);
    CHECK(tg_fair_reserve(&f, room + 1) && f.room > room);
    CHECK(tg_fair_reserve(&f, 1000) && f.room >= 1000);
    free(f.queues);
}

/* Aged first, then the higher priority, then the least service. */
static void test_before(void)
{
    reset();
    tg_queue *a = queues[0], *b = queues[EACH];
    CHECK(!tg_fair_before(a, b) && !tg_fair_before(b, a));
    b->op->service = 1;
    CHECK(tg_fair_before(a, b) && !tg_fair_before(b, a));
    b->priority = 1;
    CHECK(!tg_fair_before(a, b) && tg_fair_before(b, a));
    a->priority = -5;
    a->aged = true;
    CHECK(tg_fair_before(a, b) && !tg_fair_before(b, a));
    b->aged = true;
    CHECK(!tg_fair_before(a, b) && tg_fair_before(b, a));
}

static bool any_inside(const bool *inside, size_t op)
{
    bool any = false;
    for (size_t n = 0; n < EACH; n++)
        any |= inside[op * EACH + n];
    return any;
}

/* Random steps; `service` is kept a second time beside the heap. */
static void test_model(int rounds)
{
    uint64_t seed = 88172645463325252u, service[OPS] = {0};
    bool inside[QUEUES] = {false};
    int32_t was;
    reset();
    for (int round = 0; round < rounds; round++) {
        size_t i = random_below(&seed, QUEUES), op = i / EACH;
        switch (random_below(&seed, 8)) {
        case 0:
        case 1:
            if (inside[i])
                break;
            tg_fair_insert(&fair, queues[i]);
            if (!any_inside(inside, op) && service[op] + TG_CREDIT_NS < fair.clock)
                service[op] = fair.clock - TG_CREDIT_NS;
            inside[i] = true;
            break;
        case 2:
            if (inside[i]) {
                tg_fair_remove(&fair, queues[i]);
                inside[i] = false;
            }
            break;
        case 3: {
            int64_t ns = (int64_t)random_below(&seed, 2000 * MS) - 1000 * MS;
            tg_fair_charge(&fair, ops[op], ns);
            service[op] = ns < 0 && service[op] < (uint64_t)-ns ? 0 : service[op] + (uint64_t)ns;
            break;
        }
        case 4: /* another priority, for the two queues that share it */
            was = queues[op * EACH]->priority;
            queues[op * EACH]->priority = queues[op * EACH + 1]->priority = (int32_t)random_below(&seed, 3) - 1;
            tg_fair_moved(&fair, ops[op], queues[op * EACH]->priority < was);
            break;
        case 5:
            if (inside[i]) {
                queues[i]->aged = !queues[i]->aged;
                tg_fair_sift(&fair, queues[i]->heap_at - 1);
            }
            break;
        case 6:
            if (!any_inside(inside, op)) {
                tg_fair_arrives(&fair, ops[op]);
                service[op] = service[op] < fair.clock ? fair.clock : service[op];
            }
            break;
        default:
            if (fair.length > 0) {
                tg_op *picked = fair.queues[0]->op;
                if (picked->service > fair.clock)
                    fair.clock = picked->service;
                for (op = 0; ops[op] != picked;)
                    op++;
                tg_fair_charge(&fair, picked, 500 * MS);
                service[op] += 500 * MS;
            }
        }
        for (size_t n = 0; n < OPS; n++)
            CHECK_EQ(ops[n]->service, service[n]);
        check_heap(inside);
    }
}

/* All queues of an operation change their place at once, whatever lies between them in the heap. */
static void test_siblings(void)
{
    for (int order = 0; order < 2; order++) {
        bool inside[QUEUES] = {false};
        reset();
        tg_queue *upper = queues[order], *lower = queues[1 - order], *other = queues[EACH];
        ops[1]->service = 5;
        ops[2]->service = 9;
        tg_fair_insert(&fair, upper);
        tg_fair_insert(&fair, lower);
        tg_fair_insert(&fair, queues[2 * EACH]);
        tg_fair_insert(&fair, other);
        inside[0] = inside[1] = inside[EACH] = inside[2 * EACH] = true;
        check_heap(inside);
        tg_fair_charge(&fair, ops[0], 7);
        check_heap(inside);
        CHECK(fair.queues[0] == other);
        tg_fair_charge(&fair, ops[0], -6);
        check_heap(inside);
        tg_fair_charge(&fair, ops[1], 100);
        tg_fair_charge(&fair, ops[0], 50);
        check_heap(inside);
        tg_fair_charge(&fair, ops[0], -51);
        check_heap(inside);
    }
    /* one queue of it inside, with little service for it has the lower priority; then a second one comes */
    bool inside[QUEUES] = {false};
    reset();
    queues[0]->priority = queues[EACH]->priority = -1;
    ops[1]->service = 3;
    fair.clock = 10 * (uint64_t)TG_CREDIT_NS;
    ops[0]->service = fair.clock - TG_CREDIT_NS - 2;
    ops[1]->service = fair.clock - TG_CREDIT_NS - 1;
    uint64_t had[2] = {ops[0]->service, ops[1]->service};
    tg_fair_insert(&fair, queues[0]);
    tg_fair_insert(&fair, queues[EACH]);
    ops[0]->service = had[0];
    ops[1]->service = had[1];
    tg_fair_moved(&fair, ops[0], false);
    tg_fair_moved(&fair, ops[1], false);
    tg_fair_insert(&fair, queues[2]);
    inside[0] = inside[2] = inside[EACH] = true;
    check_heap(inside);
    CHECK_EQ(ops[0]->service, had[0]); /* it was not away */
}

/* Admits `picks` tokens as the gate does; counts how many went to each operation. */
static void pick(int picks, const int64_t *cost, unsigned *turns)
{
    for (int n = 0; n < picks; n++) {
        tg_op *op = fair.queues[0]->op;
        size_t i = 0;
        while (ops[i] != op)
            i++;
        if (op->service > fair.clock)
            fair.clock = op->service;
        tg_fair_charge(&fair, op, cost[i]);
        turns[i]++;
    }
}

static void arrive(size_t op)
{
    tg_fair_arrives(&fair, ops[op]);
    tg_fair_insert(&fair, queues[op * EACH]);
}

static void test_least_service(void)
{
    const int64_t cost[3] = {1000, 10000, 100000};
    unsigned turns[3] = {0};
    reset();
    for (size_t i = 0; i < 3; i++)
        arrive(i);
    pick(1110, cost, turns);
    CHECK(turns[0] + turns[1] + turns[2] == 1110);
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < 3; j++) { /* equal time, to within one token of the dearest */
            int64_t ahead = (int64_t)(turns[i] * (uint64_t)cost[i]) - (int64_t)(turns[j] * (uint64_t)cost[j]);
            CHECK(ahead <= 100000);
        }
}

/* Who was away neither brings credit along nor owes what others had meanwhile. */
static void test_newcomer(void)
{
    const int64_t cost[2] = {1000, 1000};
    unsigned turns[2] = {0};
    reset();
    arrive(0);
    pick(500, cost, turns);
    CHECK(turns[0] == 500);
    arrive(1);
    CHECK_EQ(ops[1]->service, fair.clock);
    turns[0] = turns[1] = 0;
    pick(1, cost, turns);
    CHECK(turns[1] == 1); /* at once: it has had the least */
    pick(99, cost, turns);
    CHECK(turns[0] >= 49 && turns[1] >= 49); /* and from then on half each */
    tg_fair_remove(&fair, queues[0]);
    pick(100, cost, turns);
    tg_fair_remove(&fair, queues[EACH]);
    uint64_t had = ops[1]->service;
    arrive(1);
    CHECK_EQ(ops[1]->service, had); /* leaving and coming back gains nothing */
}

/* Who had work but no place is owed its share, up to a second of it. */
static void test_held_back(void)
{
    const int64_t cost[2] = {MS, MS};
    unsigned turns[2] = {0};
    reset();
    arrive(0);
    arrive(1);
    pick(100, cost, turns);
    tg_fair_remove(&fair, queues[EACH]);
    pick(100, cost, turns);
    CHECK(turns[0] == 150 && turns[1] == 50);
    tg_fair_insert(&fair, queues[EACH]);
    pick(100, cost, turns);
    CHECK(turns[1] >= 149 && turns[1] <= 151);
    tg_fair_remove(&fair, queues[EACH]);
    pick(5000, cost, turns);
    turns[0] = turns[1] = 0;
    tg_fair_insert(&fair, queues[EACH]);
    pick(3000, cost, turns);
    CHECK(turns[1] >= 1990 && turns[1] <= 2010); /* a thousand of them first, then half of the rest */
}

static void test_corrections(void)
{
    reset();
    for (size_t i = 0; i < 3; i++)
        arrive(i);
    tg_fair_charge(&fair, ops[0], 900);
    tg_fair_charge(&fair, ops[1], 600);
    tg_fair_charge(&fair, ops[2], 300);
    CHECK(fair.queues[0]->op == ops[2]);
    tg_fair_charge(&fair, ops[0], -800); /* ran shorter than expected */
    CHECK(fair.queues[0]->op == ops[0] && ops[0]->service == 100);
    tg_fair_charge(&fair, ops[0], 5000); /* ran longer */
    CHECK(fair.queues[0]->op == ops[2]);
    tg_fair_charge(&fair, ops[1], -10000);
    CHECK(fair.queues[0]->op == ops[1] && ops[1]->service == 0);
    tg_fair_remove(&fair, queues[EACH]);
    tg_fair_charge(&fair, ops[1], 70); /* returns after its queue has run dry */
    CHECK(ops[1]->service == 70 && queues[EACH]->heap_at == 0 && fair.queues[0]->op == ops[2]);
}

/* ---- priorities ---------------------------------------------------------------------------------------------- */

/* Takes the first one's turn at that time; returns its priority. */
static int32_t turn(int64_t now)
{
    tg_fair_age(&fair, now);
    tg_queue *q = fair.queues[0];
    q->served = now;
    q->head->created = now - MS; /* there is always one that has just come */
    if (q->aged) {
        q->aged = false;
        tg_fair_sift(&fair, q->heap_at - 1);
    }
    tg_fair_charge(&fair, q->op, MS);
    return q->priority;
}

/* Strict, but for one turn of each lower priority every two seconds and a little. */
static void test_ageing(void)
{
    const int64_t longest = TG_AGE_NS + 2 * (int64_t)TG_AGE_LOOK_NS;
    int64_t last[3] = {0}, now = 1;
    unsigned turns[3] = {0};
    bool inside[QUEUES] = {false};
    reset();
    fair.priorities = true;
    for (size_t i = 0; i < 6; i++) { /* two operations of each priority */
        queues[i * EACH]->priority = (int32_t)(i / 2);
        heads[i * EACH].created = now;
        tg_fair_insert(&fair, queues[i * EACH]);
        inside[i * EACH] = true;
    }
    for (; now < 20 * (int64_t)1000 * MS; now += 5 * MS) {
        int32_t priority = turn(now);
        turns[priority]++;
        last[priority] = now;
        check_heap(inside);
        for (int i = 0; i < 3; i++)
            CHECK(now - last[i] <= longest);
    }
    for (int i = 0; i < 2; i++) /* and no more than that: each of the two queues once in two seconds */
        CHECK(turns[i] >= 16 && turns[i] <= 20);
    /* nothing ages where all are of one priority */
    reset();
    arrive(0);
    arrive(1);
    fair.priorities = true;
    tg_fair_age(&fair, 100 * (int64_t)1000 * MS);
    CHECK(!queues[0]->aged && !queues[EACH]->aged);
}

/* Against the rule, for every queue: lower than the first, not served and with a token for longer than TG_AGE_NS. */
static void test_ageing_model(int rounds)
{
    uint64_t seed = 2862933555777941757u;
    for (int round = 0; round < rounds / 10; round++) {
        bool inside[QUEUES] = {false}, ages[QUEUES] = {false};
        int64_t now = 20 * (int64_t)TG_AGE_NS;
        reset();
        fair.priorities = true;
        for (size_t i = 0; i < QUEUES; i++) {
            queues[i]->priority = (int32_t)random_below(&seed, 4);
            queues[i]->served = now - (int64_t)random_below(&seed, 2 * (uint64_t)TG_AGE_NS);
            heads[i].created = now - (int64_t)random_below(&seed, 2 * (uint64_t)TG_AGE_NS);
            inside[i] = random_below(&seed, 3) != 0;
        }
        for (size_t i = 0; i < OPS; i++)
            ops[i]->service = random_below(&seed, 1000);
        for (size_t i = 0; i < QUEUES; i++)
            if (inside[i])
                tg_fair_insert(&fair, queues[i]);
        if (fair.length < 2)
            continue;
        int32_t top = fair.queues[0]->priority;
        for (size_t i = 0; i < QUEUES; i++)
            ages[i] = inside[i] && queues[i]->priority < top && now - heads[i].created > TG_AGE_NS &&
                      now - queues[i]->served > TG_AGE_NS;
        tg_fair_age(&fair, now);
        check_heap(inside);
        for (size_t i = 0; i < QUEUES; i++)
            CHECK(queues[i]->aged == ages[i]);
        tg_fair_age(&fair, now + TG_AGE_LOOK_NS / 2); /* not so soon again */
        for (size_t i = 0; i < QUEUES; i++)
            CHECK(queues[i]->aged == ages[i]);
    }
}

int main(int argc, char **argv)
{
    int rounds = check_rounds(argc, argv);
    for (size_t i = 0; i < OPS; i++) {
        CHECK((ops[i] = calloc(1, sizeof *ops[i])) != NULL);
        queues[i * EACH] = &ops[i]->main;
        for (size_t n = 1; n < EACH; n++)
            CHECK((queues[i * EACH + n] = calloc(1, sizeof(tg_queue))) != NULL);
        queues[i * EACH]->next = queues[i * EACH + 1];
        queues[i * EACH + 1]->next = queues[i * EACH + 2];
    }
    test_reserve();
    test_before();
    test_least_service();
    test_newcomer();
    test_held_back();
    test_corrections();
    test_ageing();
    test_ageing_model(rounds);
    test_siblings();
    test_model(rounds);
    for (size_t i = 0; i < OPS; i++) {
        for (size_t n = 1; n < EACH; n++)
            free(queues[i * EACH + n]);
        free(ops[i]);
    }
    free(fair.queues);
    return 0;
}
