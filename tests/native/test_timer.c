/* Timers: the heap against a model, a timers' thread against those who arm and those who end, and the sleep with a time. */
#include "check.h"

#include "tg_timer.h"

#define TOKENS 64
#define ARMERS 2
#define ENDERS 2
#define SHELF 32
#define MS INT64_C(1000000)
#define HOUR (INT64_C(3600000) * MS)

/* ---- the heap ------------------------------------------------------------------------------------------------ */

typedef struct {
    tg_token token;
    tg_extra extra;
    bool armed;
    int64_t deadline; /* as the model has it; 0: never had one */
    int holds;
} timed;

static void timed_init(timed *d)
{
    memset(d, 0, sizeof *d);
    d->token.owner = d;
    d->token.extra = &d->extra;
    d->extra.token = &d->token;
}

static void hold_timed(void *owner) { ((timed *)owner)->holds++; }

static void check_heap(tg_timers *s, timed *all, size_t count)
{
    size_t armed = 0;
    for (size_t i = 0; i < s->length; i++) {
        CHECK(s->heap[i]->timer_at == i + 1);
        CHECK(i == 0 || tg_stamped(&s->heap[(i - 1) / 2]->deadline) <= tg_stamped(&s->heap[i]->deadline));
    }
    for (size_t i = 0; i < count; i++) {
        CHECK((all[i].extra.timer_at != 0) == all[i].armed);
        CHECK(tg_stamped(&all[i].extra.deadline) == all[i].deadline);
        armed += all[i].armed;
    }
    CHECK_EQ(s->length, armed);
}

static void test_model(int rounds)
{
    static timed all[TOKENS];
    uint64_t seed = 2463534242u;
    int64_t now = 1000;
    tg_timers *s = tg_timers_new();
    CHECK(s != NULL);
    for (size_t i = 0; i < TOKENS; i++)
        timed_init(&all[i]);
    for (int round = 0; round < rounds; round++) {
        timed *d = &all[random_below(&seed, TOKENS)];
        switch (random_below(&seed, 4)) {
        case 0:
        case 1: { /* a second time, too: for a nested deadline, or when the function starts */
            int64_t deadline = now + (int64_t)random_below(&seed, 500) - 20;
            CHECK(tg_timers_arm(s, &d->extra, deadline) != TG_TIMERS_NO_MEMORY);
            d->armed = true;
            if (d->deadline == 0 || deadline < d->deadline)
                d->deadline = deadline;
            break;
        }
        case 2:
            tg_timers_disarm(s, &d->extra);
            if (!d->armed)
                break;
            d->armed = false;
            if (random_below(&seed, 2) == 0) { /* another token in its place */
                timed_init(d);
                d->armed = false;
            }
            break;
        default: {
            tg_token *out[TOKENS];
            size_t passed = 0, most = 1 + random_below(&seed, TOKENS);
            now += (int64_t)random_below(&seed, 100);
            for (size_t i = 0; i < TOKENS; i++) {
                passed += all[i].armed && all[i].deadline <= now;
                all[i].holds = 0;
            }
            size_t count = tg_timers_due(s, now, out, most, hold_timed);
            CHECK_EQ(count, passed < most ? passed : most);
            for (size_t i = 0; i < count; i++) {
                timed *due = out[i]->owner;
                CHECK(due->armed && due->deadline <= now && due->holds == 1);
                CHECK(i == 0 || ((timed *)out[i - 1]->owner)->deadline <= due->deadline);
                due->armed = false;
            }
            for (size_t i = 0; i < TOKENS && count > 0; i++) /* the earliest of them */
                CHECK(!all[i].armed || all[i].deadline >= ((timed *)out[count - 1]->owner)->deadline);
            for (size_t i = 0; i < count; i++)
                if (random_below(&seed, 2) == 0)
                    timed_init(out[i]->owner);
        }
        }
        check_heap(s, all, TOKENS);
    }
    tg_timers_release(s);
}

/* Who arms is told what to do for it: start the thread, once; wake it, if it sleeps too long; else nothing. */
static void test_debts(void)
{
    static timed all[6];
    tg_timers *s = tg_timers_new();
    CHECK(s != NULL && tg_timers_retain(s) == s);
    tg_timers_release(s);
    for (size_t i = 0; i < 6; i++)
        timed_init(&all[i]);
    CHECK(tg_timers_arm(s, &all[0].extra, HOUR) == TG_TIMERS_START);
    CHECK(tg_timers_arm(s, &all[1].extra, HOUR / 2) == TG_TIMERS_NOTHING); /* it has not looked yet, and will */
    tg_timers_start_failed(s);
    CHECK(tg_timers_arm(s, &all[2].extra, HOUR / 3) == TG_TIMERS_START);
    s->sleeping = HOUR / 3; /* as tg_timers_wait leaves it */
    CHECK(tg_timers_arm(s, &all[3].extra, HOUR) == TG_TIMERS_NOTHING);
    CHECK(tg_timers_arm(s, &all[3].extra, HOUR / 4) == TG_TIMERS_WAKE);
    CHECK(tg_timers_arm(s, &all[4].extra, HOUR / 5) == TG_TIMERS_NOTHING); /* it has been woken already */
    s->sleeping = INT64_MAX;
    CHECK(tg_timers_arm(s, &all[5].extra, HOUR / 6) == TG_TIMERS_WAKE);
    CHECK(tg_timers_arm(s, &all[0].extra, 2 * HOUR) == TG_TIMERS_NOTHING && tg_stamped(&all[0].extra.deadline) == HOUR);
    tg_timers_wake(s);
    CHECK(atomic_load(&s->parker.state) == TG_PARK_NOTIFIED);
    for (size_t i = 0; i < 6; i++)
        tg_timers_disarm(s, &all[i].extra);
    CHECK(s->length == 0);
    tg_timers_close(s);
    CHECK(!tg_timers_wait(s) && !s->running);
    tg_timers_open(s);
    CHECK(tg_timers_arm(s, &all[0].extra, HOUR) == TG_TIMERS_START);
    tg_timers_close(s);
    tg_timers_open(s); /* before the thread has seen it: it goes on */
    CHECK(tg_timers_arm(s, &all[1].extra, 1) == TG_TIMERS_NOTHING);
    CHECK(tg_timers_wait(s));
    tg_timers_release(s);
}

/* ---- the thread ---------------------------------------------------------------------------------------------- */

typedef struct {
    tg_token token; /* first: a pointer to one is a pointer to the other */
    tg_extra extra;
    atomic_int references, ends;
} task;

typedef struct {
    tg_timers *timers;
    pthread_mutex_t lock; /* guards the thread's start */
    pthread_t thread;
    bool has_thread;
    _Atomic(task *) shelf[SHELF];
    start_line line;
    int each;
    atomic_int live, expired, ended;
    atomic_bool over;
    tg_parker dry;
} world;

static world w;

static void hold_task(void *owner) { CHECK(atomic_fetch_add(&((task *)owner)->references, 1) > 0); }

static void drop(task *k)
{
    if (atomic_fetch_sub(&k->references, 1) != 1)
        return;
    CHECK(k->extra.timer_at == 0 && atomic_load(&k->ends) == 1 && tg_ended(tg_word_load(&k->token.word)));
    free(k);
    if (atomic_fetch_sub(&w.live, 1) == 1)
        tg_unpark(&w.dry);
}

/* By whoever holds a reference. */
static void end(task *k, uint32_t state)
{
    if (!tg_word_end(&k->token.word, state).moved)
        return;
    CHECK(atomic_fetch_add(&k->ends, 1) == 0);
    atomic_fetch_add(state == TG_EXPIRED ? &w.expired : &w.ended, 1);
    tg_timers_disarm(w.timers, &k->extra);
    drop(k); /* what kept it alive until it ended */
}

static void *timekeeper(void *arg)
{
    (void)arg;
    tg_token *due[8];
    while (tg_timers_wait(w.timers))
        for (size_t count; (count = tg_timers_due(w.timers, tg_now(), due, 8, hold_task)) > 0;)
            for (size_t i = 0; i < count; i++) {
                task *k = (task *)due[i];
                CHECK(tg_stamped(&k->extra.deadline) <= tg_now()); /* never early */
                end(k, TG_EXPIRED);
                drop(k);
            }
    tg_timers_release(w.timers);
    return NULL;
}

static void start_timekeeper(void)
{
    pthread_mutex_lock(&w.lock);
    if (w.has_thread)
        check_join(w.thread); /* one that had been told to end */
    tg_timers_retain(w.timers);
    check_start(&w.thread, timekeeper, NULL);
    w.has_thread = true;
    pthread_mutex_unlock(&w.lock);
}

static void arm(task *k, int64_t deadline)
{
    enum tg_timers_debt debt = tg_timers_arm(w.timers, &k->extra, deadline);
    if (tg_ended(tg_word_load(&k->token.word)))
        tg_timers_disarm(w.timers, &k->extra);
    CHECK(debt != TG_TIMERS_NO_MEMORY);
    if (debt == TG_TIMERS_WAKE)
        tg_timers_wake(w.timers);
    if (debt == TG_TIMERS_START)
        start_timekeeper();
}

/* Two references: the caller's, and what keeps it alive until it ends. */
static task *task_new(void)
{
    task *k = calloc(1, sizeof *k);
    CHECK(k != NULL);
    tg_token_init(&k->token, NULL, k, 1, 1);
    k->token.extra = &k->extra;
    k->extra.token = &k->token;
    atomic_init(&k->references, 2);
    atomic_fetch_add(&w.live, 1);
    return k;
}

static void *armer(void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    start_line_wait(&w.line);
    for (int i = 0; i < w.each; i++) {
        task *k = task_new();
        bool shown = random_below(&seed, 2) == 0;
        if (shown) {
            hold_task(k);
            task *before = atomic_exchange(&w.shelf[random_below(&seed, SHELF)], k);
            if (before != NULL) {
                end(before, TG_CANCELLED);
                drop(before);
            }
        }
        CHECK(tg_word_submit(&k->token.word).moved || shown);
        int64_t in = (int64_t)random_below(&seed, 1u << random_below(&seed, 20));
        arm(k, tg_now() + (shown && random_below(&seed, 2) ? HOUR : in)); /* most of those that are far off get ended */
        if (random_below(&seed, 4) == 0)
            arm(k, tg_now() + in / 2);
        drop(k);
    }
    return NULL;
}

static void *ender(void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    while (!atomic_load(&w.over)) {
        task *k = atomic_exchange(&w.shelf[random_below(&seed, SHELF)], NULL);
        if (k == NULL) {
            sched_yield();
            continue;
        }
        end(k, TG_CANCELLED);
        drop(k);
    }
    return NULL;
}

static void test_thread(int rounds)
{
    memset(&w, 0, sizeof w);
    w.each = rounds / 4 + 1;
    pthread_mutex_init(&w.lock, NULL);
    tg_parker_init(&w.dry);
    CHECK((w.timers = tg_timers_new()) != NULL);
    for (int turn = 0; turn < 4; turn++) {
        pthread_t armers[ARMERS], enders[ENDERS];
        uint64_t seeds[ARMERS + ENDERS];
        start_line_init(&w.line, ARMERS);
        atomic_store(&w.over, false);
        atomic_fetch_add(&w.live, 1); /* until all have been made */
        for (int i = 0; i < ARMERS + ENDERS; i++)
            seeds[i] = (uint64_t)(turn * 100 + i + 1) * 7919;
        for (int i = 0; i < ARMERS; i++)
            check_start(&armers[i], armer, &seeds[i]);
        for (int i = 0; i < ENDERS; i++)
            check_start(&enders[i], ender, &seeds[ARMERS + i]);
        for (int i = 0; i < ARMERS; i++)
            check_join(armers[i]);
        if (atomic_fetch_sub(&w.live, 1) == 1)
            tg_unpark(&w.dry);
        while (atomic_load(&w.live) > 0) /* the enders come to what is left on the shelf, the thread to all others */
            tg_park(&w.dry);
        atomic_store(&w.over, true);
        for (int i = 0; i < ENDERS; i++)
            check_join(enders[i]);
        tg_mutex_lock(&w.timers->lock);
        CHECK(w.timers->length == 0);
        tg_mutex_unlock(&w.timers->lock);
        if (turn % 2) { /* it ends, and another starts with the next deadline; or it goes on */
            tg_timers_close(w.timers);
            check_join(w.thread);
            w.has_thread = false;
            tg_timers_open(w.timers);
        }
    }
    CHECK(atomic_load(&w.expired) > 0 && atomic_load(&w.ended) > 0);
    CHECK(atomic_load(&w.timers->references) == 1);
    tg_timers_release(w.timers);
}

/* The thread sleeps for an hour, or for ever, when a nearer deadline comes. */
static void test_nearer(void)
{
    memset(&w, 0, sizeof w);
    pthread_mutex_init(&w.lock, NULL);
    tg_parker_init(&w.dry);
    CHECK((w.timers = tg_timers_new()) != NULL);
    task *far = task_new(), *near = task_new(), *again = task_new();
    const struct { task *task; int64_t in, sleeping; } steps[] = {{near, 3 * MS, HOUR}, {again, MS, INT64_MAX}};
    arm(far, tg_now() + HOUR);
    for (int i = 0; i < 2; i++) {
        for (bool asleep = false; !asleep; sched_yield()) { /* the second time round with nothing to wait for */
            tg_mutex_lock(&w.timers->lock);
            asleep = w.timers->sleeping >= steps[i].sleeping;
            tg_mutex_unlock(&w.timers->lock);
        }
        int64_t deadline = tg_now() + steps[i].in;
        arm(steps[i].task, deadline);
        while (!tg_ended(tg_word_load(&steps[i].task->token.word)))
            sched_yield();
        CHECK(tg_now() >= deadline);
        if (i == 0) {
            end(far, TG_CANCELLED);
            tg_timers_wake(w.timers); /* for nothing */
        }
    }
    drop(far);
    drop(near);
    drop(again);
    while (atomic_load(&w.live) > 0)
        tg_park(&w.dry);
    tg_timers_close(w.timers);
    check_join(w.thread);
    tg_timers_release(w.timers);
}

/* ---- a sleep with a time --------------------------------------------------------------------------------------- */

static void test_park_until(void)
{
    tg_parker p;
    tg_parker_init(&p);
    int64_t until = tg_now() + 2 * MS;
    CHECK(!tg_park_until(&p, until) && tg_now() >= until);
    CHECK(!tg_park_until(&p, tg_now()) && !tg_park_until(&p, tg_now() - HOUR) && !tg_park_until(&p, 0));
    CHECK(atomic_load(&p.state) == TG_PARK_EMPTY);
    tg_unpark(&p);
    CHECK(tg_park_until(&p, 0)); /* a permit goes before the time */
    CHECK(!tg_park_until(&p, 0)); /* and there was one */
    tg_unpark(&p);
    CHECK(tg_park_until(&p, INT64_MAX));
    tg_unpark(&p);
    CHECK(tg_park_until(&p, tg_now() + HOUR));
    tg_parker_destroy(&p);
}

typedef struct {
    tg_parker parker;
    start_line line;
    int rounds;
    int64_t until; /* plain: the start line publishes it */
    int news;      /* plain: published by the wake */
    atomic_int gave_up;
} duel;

static void *duel_wake(void *arg)
{
    duel *d = arg;
    uint64_t seed = 362436069u;
    for (int i = 0; i < d->rounds; i++) {
        start_line_wait(&d->line);
        int64_t at = d->until + (int64_t)random_below(&seed, 4000) - 2000;
        bool after = i % 8 == 0; /* only when the sleeper has given up: a timed sleep may end much too late */
        while (tg_now() < at || (after && atomic_load(&d->gave_up) != i + 1))
            sched_yield();
        d->news = i + 1;
        tg_unpark(&d->parker);
        start_line_wait(&d->line);
    }
    return NULL;
}

/* A wake about the time when the sleep ends: it is answered at once or kept, and never answered twice. */
static void test_wake_at_the_time(int rounds)
{
    duel d = {.rounds = rounds};
    pthread_t waker;
    int late = 0;
    tg_parker_init(&d.parker);
    start_line_init(&d.line, 2);
    check_start(&waker, duel_wake, &d);
    for (int i = 0; i < rounds; i++) {
        d.until = tg_now() + 20000;
        start_line_wait(&d.line);
        if (!tg_park_until(&d.parker, d.until)) {
            CHECK(tg_now() >= d.until);
            late++;
            atomic_store(&d.gave_up, i + 1);
            tg_park(&d.parker); /* hangs if the wake got lost */
        }
        CHECK(d.news == i + 1);
        start_line_wait(&d.line);
        CHECK(atomic_load(&d.parker.state) == TG_PARK_EMPTY);
    }
    check_join(waker);
    CHECK(late > rounds / 8 - 1 && (rounds < 200 || late < rounds)); /* both ways have been gone */
    tg_parker_destroy(&d.parker);
}

int main(int argc, char **argv)
{
    int rounds = check_rounds(argc, argv);
    test_model(10 * rounds);
    test_debts();
    test_park_until();
    test_wake_at_the_time(rounds);
    test_nearer();
    test_thread(rounds);
    return 0;
}
