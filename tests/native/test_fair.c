/* Fair share: the heap against a brute-force model, and what it promises between operations. */
#include "check.h"

#include "tg_fair.h"

#define OPS 37

static tg_op *ops[OPS];
static tg_fair fair;

static void reset(void)
{
    free(fair.ops);
    fair = (tg_fair){0};
    for (size_t i = 0; i < OPS; i++) {
        ops[i]->heap_at = 0;
        ops[i]->service = 0;
    }
    CHECK(tg_fair_reserve(&fair, OPS));
}

static void check_heap(const bool *inside)
{
    size_t count = 0;
    for (size_t i = 0; i < fair.length; i++) {
        CHECK(fair.ops[i]->heap_at == i + 1);
        CHECK(i == 0 || fair.ops[(i - 1) / 2]->service <= fair.ops[i]->service);
    }
    for (size_t i = 0; i < OPS; i++) {
        CHECK((ops[i]->heap_at != 0) == inside[i]);
        count += inside[i];
        if (inside[i])
            CHECK(fair.ops[0]->service <= ops[i]->service);
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
    free(f.ops);
}

/* Random steps; `service` is kept a second time beside the heap. */
static void test_model(int rounds)
{
    uint64_t seed = 88172645463325252u, service[OPS] = {0}, clock = 0;
    bool inside[OPS] = {false};
    reset();
    for (int round = 0; round < rounds; round++) {
        size_t i = random_below(&seed, OPS);
        switch (random_below(&seed, 4)) {
        case 0:
            if (!inside[i]) {
                tg_fair_insert(&fair, ops[i]);
                inside[i] = true;
                service[i] = service[i] < clock ? clock : service[i];
            }
            break;
        case 1:
            if (inside[i]) {
                tg_fair_remove(&fair, ops[i]);
                inside[i] = false;
            }
            break;
        case 2: {
            int64_t ns = (int64_t)random_below(&seed, 2000) - 1000;
            tg_fair_charge(&fair, ops[i], ns);
            service[i] = ns < 0 && service[i] < (uint64_t)-ns ? 0 : service[i] + (uint64_t)ns;
            break;
        }
        default:
            if (fair.length > 0) {
                clock = fair.clock = fair.ops[0]->service;
                size_t picked = 0;
                while (ops[picked] != fair.ops[0])
                    picked++;
                tg_fair_charge(&fair, ops[picked], 500);
                service[picked] += 500;
            }
        }
        for (size_t n = 0; n < OPS; n++)
            CHECK_EQ(ops[n]->service, service[n]);
        check_heap(inside);
    }
}

/* Admits `picks` tokens as the pool does; returns how many went to each operation. */
static void pick(int picks, const int64_t *cost, unsigned *turns)
{
    for (int n = 0; n < picks; n++) {
        tg_op *op = fair.ops[0];
        size_t i = 0;
        while (ops[i] != op)
            i++;
        fair.clock = op->service;
        tg_fair_charge(&fair, op, cost[i]);
        turns[i]++;
    }
}

static void test_least_service(void)
{
    const int64_t cost[3] = {1000, 10000, 100000};
    unsigned turns[3] = {0};
    reset();
    for (size_t i = 0; i < 3; i++)
        tg_fair_insert(&fair, ops[i]);
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
    tg_fair_insert(&fair, ops[0]);
    pick(500, cost, turns);
    CHECK(turns[0] == 500);
    tg_fair_insert(&fair, ops[1]);
    CHECK_EQ(ops[1]->service, fair.clock);
    turns[0] = turns[1] = 0;
    pick(1, cost, turns);
    CHECK(turns[1] == 1); /* at once: it has had the least */
    pick(99, cost, turns);
    CHECK(turns[0] >= 49 && turns[1] >= 49); /* and from then on half each */
    tg_fair_remove(&fair, ops[0]);
    pick(100, cost, turns);
    tg_fair_remove(&fair, ops[1]);
    uint64_t had = ops[1]->service;
    tg_fair_insert(&fair, ops[1]);
    CHECK_EQ(ops[1]->service, had); /* leaving and coming back gains nothing */
}

static void test_corrections(void)
{
    reset();
    for (size_t i = 0; i < 3; i++)
        tg_fair_insert(&fair, ops[i]);
    tg_fair_charge(&fair, ops[0], 900);
    tg_fair_charge(&fair, ops[1], 600);
    tg_fair_charge(&fair, ops[2], 300);
    CHECK(fair.ops[0] == ops[2]);
    tg_fair_charge(&fair, ops[0], -800); /* ran shorter than expected */
    CHECK(fair.ops[0] == ops[0] && ops[0]->service == 100);
    tg_fair_charge(&fair, ops[0], 5000); /* ran longer */
    CHECK(fair.ops[0] == ops[2]);
    tg_fair_charge(&fair, ops[1], -10000);
    CHECK(fair.ops[0] == ops[1] && ops[1]->service == 0);
    tg_fair_remove(&fair, ops[1]);
    tg_fair_charge(&fair, ops[1], 70); /* returns after its queue has run dry */
    CHECK(ops[1]->service == 70 && ops[1]->heap_at == 0 && fair.ops[0] == ops[2]);
}

int main(int argc, char **argv)
{
    int rounds = check_rounds(argc, argv);
    for (size_t i = 0; i < OPS; i++)
        CHECK((ops[i] = calloc(1, sizeof *ops[i])) != NULL);
    test_reserve();
    test_model(rounds);
    test_least_service();
    test_newcomer();
    test_corrections();
    for (size_t i = 0; i < OPS; i++)
        free(ops[i]);
    free(fair.ops);
    return 0;
}
