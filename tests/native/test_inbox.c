/* The inbox: order, one wake-up for many, and no token left behind by a lost one. */
#include "check.h"

#include "tg_inbox.h"
#include "tg_parker.h"

#define PRODUCERS 4

static void test_order(void)
{
    tg_inbox box;
    tg_token tokens[3] = {{.id = 0}, {.id = 1}, {.id = 2}};
    tg_inbox_init(&box);
    CHECK(tg_inbox_take(&box) == NULL);
    CHECK(tg_inbox_push(&box, &tokens[0], 10)); /* the first wakes the consumer */
    CHECK(!tg_inbox_push(&box, &tokens[1], 11));
    CHECK(!tg_inbox_push(&box, &tokens[2], 12));
    CHECK(atomic_load(&box.armed_at) == 10);
    tg_token *t = tg_inbox_take(&box);
    for (int i = 0; i < 3; i++, t = t->next)
        CHECK(t == &tokens[i]);
    CHECK(t == NULL && tg_inbox_take(&box) == NULL);
    CHECK(tg_inbox_push(&box, &tokens[0], 13)); /* taken: the next one wakes again */
    CHECK(atomic_load(&box.armed_at) == 13);
    CHECK(tg_inbox_take(&box) == &tokens[0]);
}

static void test_arm(void)
{
    tg_inbox box;
    tg_token token = {.id = 1};
    tg_inbox_init(&box);
    CHECK(tg_inbox_arm(&box, 5) && atomic_load(&box.armed_at) == 5);
    CHECK(!tg_inbox_arm(&box, 6) && atomic_load(&box.armed_at) == 5);
    CHECK(!tg_inbox_push(&box, &token, 7)); /* the consumer comes by itself */
    CHECK(tg_inbox_take(&box) == &token);
}

/* ---- a token that comes while the consumer takes the one before ------------------------------------------------ */

typedef struct {
    tg_inbox box;
    tg_parker parker;
    start_line line;
    unsigned rounds;
    tg_token tokens[2];
} duel;

static void *duel_push(void *arg)
{
    duel *d = arg;
    uint64_t seed = 2463534242u;
    for (unsigned i = 0; i < d->rounds; i++) {
        for (int n = 0; n < 2; n++) {
            if (tg_inbox_push(&d->box, &d->tokens[n], 1))
                tg_unpark(&d->parker);
            linger(random_below(&seed, 2u << i % 9));
        }
        start_line_wait(&d->line);
    }
    return NULL;
}

static void test_duel(unsigned rounds)
{
    duel d = {.rounds = rounds};
    pthread_t producer;
    uint64_t seed = 362436069u;
    tg_inbox_init(&d.box);
    tg_parker_init(&d.parker);
    start_line_init(&d.line, 2);
    check_start(&producer, duel_push, &d);
    for (unsigned i = 0; i < rounds; i++) {
        tg_token *expected = d.tokens, *end = d.tokens + 2;
        while (expected < end) {
            tg_park(&d.parker);
            linger(random_below(&seed, 2u << i % 9));
            for (tg_token *t = tg_inbox_take(&d.box); t != NULL; t = t->next)
                CHECK(t == expected++);
        }
        start_line_wait(&d.line);
    }
    check_join(producer);
    tg_parker_destroy(&d.parker);
}

/* ---- many producers, a consumer that sleeps ------------------------------------------------------------------- */

typedef struct {
    tg_token token;
    unsigned producer, number; /* plain: the push must publish them */
    unsigned taken;
} letter;

typedef struct {
    tg_inbox box;
    tg_parker parker;
    start_line line;
    unsigned each;
    letter *letters;
    atomic_uint next_producer, wakes;
} post;

static void *post_letters(void *arg)
{
    post *p = arg;
    unsigned me = atomic_fetch_add(&p->next_producer, 1);
    start_line_wait(&p->line);
    for (unsigned n = 0; n < p->each; n++) {
        letter *l = &p->letters[me * p->each + n];
        l->producer = me;
        l->number = n;
        l->token.owner = l;
        if (tg_inbox_push(&p->box, &l->token, (int64_t)n + 1)) {
            atomic_fetch_add(&p->wakes, 1);
            tg_unpark(&p->parker);
        }
        if (n % 64 == 63)
            sched_yield(); /* lets the consumer fall asleep now and then */
    }
    return NULL;
}

/* slices: the consumer deals with a few, then arms the box for itself and comes again without sleeping. */
static void test_post(unsigned each, bool slices)
{
    post p = {.each = each};
    pthread_t threads[PRODUCERS];
    unsigned left = PRODUCERS * each, next[PRODUCERS] = {0}, naps = 0;
    tg_inbox_init(&p.box);
    tg_parker_init(&p.parker);
    start_line_init(&p.line, PRODUCERS);
    p.letters = calloc((size_t)PRODUCERS * each, sizeof(letter));
    CHECK(p.letters != NULL);
    for (int i = 0; i < PRODUCERS; i++)
        check_start(&threads[i], post_letters, &p);
    tg_token *kept = NULL;
    bool own_turn = false;
    while (left > 0) {
        if (!own_turn) {
            tg_park(&p.parker); /* a lost wake-up hangs here */
            naps++;
        }
        own_turn = false;
        if (kept == NULL)
            kept = tg_inbox_take(&p.box);
        for (unsigned n = 0; kept != NULL && !(slices && n == 8); n++) {
            letter *l = kept->owner;
            kept = kept->next;
            CHECK(l->taken++ == 0);
            CHECK_EQ(l->number, next[l->producer]++);
            left--;
        }
        if (kept != NULL) {
            tg_inbox_arm(&p.box, 1);
            own_turn = true;
        } else if (slices && left > 0) {
            /* what came while the box was armed for this turn was pushed without a wake-up */
            kept = tg_inbox_take(&p.box);
            own_turn = kept != NULL;
        }
    }
    for (int i = 0; i < PRODUCERS; i++)
        check_join(threads[i]);
    CHECK(tg_inbox_take(&p.box) == NULL);
    CHECK(naps <= atomic_load(&p.wakes));
    CHECK(atomic_load(&p.wakes) <= PRODUCERS * each);
    free(p.letters);
    tg_parker_destroy(&p.parker);
}

int main(int argc, char **argv)
{
    unsigned each = (unsigned)check_rounds(argc, argv);
    test_order();
    test_arm();
    test_duel(each);
    test_post(each, false);
    test_post(each, true);
    return 0;
}
