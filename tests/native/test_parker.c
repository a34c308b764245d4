/* The parker: a permit is kept, wakes are never lost, and nothing but a wake ends the sleep. */
#include "check.h"

#include "tg_parker.h"

#include <signal.h>

#define WAKERS 4

static void test_permit(void)
{
    tg_parker p;
    tg_parker_init(&p);
    for (int i = 0; i < 3; i++) {
        tg_unpark(&p);
        tg_unpark(&p); /* one permit, however often */
        tg_park(&p);
        CHECK(atomic_load(&p.state) == TG_PARK_EMPTY);
    }
    tg_parker_destroy(&p);
}

/* ---- two threads in turn: every wake counts, or it hangs ------------------------------------------------------ */

typedef struct {
    tg_parker side[2];
    int turns, ball; /* ball: plain, published by park and unpark alone */
} rally;

static void *rally_answer(void *arg)
{
    rally *r = arg;
    for (int i = 0; i < r->turns; i++) {
        tg_park(&r->side[1]);
        CHECK(r->ball == 2 * i + 1);
        r->ball++;
        tg_unpark(&r->side[0]);
    }
    return NULL;
}

static void test_rally(int turns)
{
    rally r = {.turns = turns};
    pthread_t other;
    tg_parker_init(&r.side[0]);
    tg_parker_init(&r.side[1]);
    check_start(&other, rally_answer, &r);
    for (int i = 0; i < turns; i++) {
        r.ball++;
        tg_unpark(&r.side[1]);
        tg_park(&r.side[0]);
        CHECK(r.ball == 2 * i + 2);
    }
    check_join(other);
    tg_parker_destroy(&r.side[0]);
    tg_parker_destroy(&r.side[1]);
}

/* ---- one wake, at the moment of falling asleep ---------------------------------------------------------------- */

typedef struct {
    tg_parker parker;
    start_line line;
    int rounds;
} duel;

static void *duel_sleep(void *arg)
{
    duel *d = arg;
    uint64_t seed = 2463534242u;
    for (int i = 0; i < d->rounds; i++) {
        start_line_wait(&d->line);
        linger(random_below(&seed, 2u << i % 9));
        tg_park(&d->parker); /* nobody else will wake it */
    }
    return NULL;
}

static void test_duel(int rounds)
{
    duel d = {.rounds = rounds};
    pthread_t sleeper;
    uint64_t seed = 362436069u;
    tg_parker_init(&d.parker);
    start_line_init(&d.line, 2);
    check_start(&sleeper, duel_sleep, &d);
    for (int i = 0; i < rounds; i++) {
        start_line_wait(&d.line);
        linger(random_below(&seed, 2u << i % 9));
        tg_unpark(&d.parker);
    }
    check_join(sleeper);
    tg_parker_destroy(&d.parker);
}

/* ---- many wakers: wakes may merge, but the last is never lost ------------------------------------------------- */

typedef struct {
    tg_parker parker;
    int each;
    atomic_int work;
} crowd;

static void *crowd_wake(void *arg)
{
    crowd *c = arg;
    for (int i = 0; i < c->each; i++) {
        atomic_fetch_add_explicit(&c->work, 1, memory_order_relaxed); /* the wake publishes it, not this */
        tg_unpark(&c->parker);
    }
    return NULL;
}

static void test_crowd(int each)
{
    crowd c = {.each = each};
    pthread_t wakers[WAKERS];
    tg_parker_init(&c.parker);
    for (int i = 0; i < WAKERS; i++)
        check_start(&wakers[i], crowd_wake, &c);
    for (int done = 0; done < WAKERS * each;) {
        int work = atomic_exchange_explicit(&c.work, 0, memory_order_relaxed);
        if (work == 0)
            tg_park(&c.parker);
        done += work;
    }
    for (int i = 0; i < WAKERS; i++)
        check_join(wakers[i]);
    tg_parker_destroy(&c.parker);
}

/* ---- signals: the system call returns early, park does not ----------------------------------------------------- */

static atomic_int signals;

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&signals, 1);
}

typedef struct {
    tg_parker parker;
    atomic_bool returned;
} sleeper;

static void *sleep_parked(void *arg)
{
    sleeper *s = arg;
    tg_park(&s->parker);
    atomic_store(&s->returned, true);
    return NULL;
}

static void test_signals(int rounds)
{
    sleeper s;
    pthread_t thread;
    struct sigaction act = {.sa_handler = on_signal}; /* no SA_RESTART: interrupts the wait */
    CHECK(sigaction(SIGUSR1, &act, NULL) == 0);
    tg_parker_init(&s.parker);
    atomic_init(&s.returned, false);
    check_start(&thread, sleep_parked, &s);
    while (atomic_load(&s.parker.state) != TG_PARK_PARKED)
        sched_yield();
    for (int i = 0; i < rounds; i++) {
        int before = atomic_load(&signals);
        /* Again and again: ThreadSanitizer puts a signal off that comes just before the system call. */
        do {
            CHECK(pthread_kill(thread, SIGUSR1) == 0);
            sched_yield();
        } while (atomic_load(&signals) == before);
        CHECK(!atomic_load(&s.returned) && atomic_load(&s.parker.state) == TG_PARK_PARKED);
    }
    tg_unpark(&s.parker);
    check_join(thread);
    CHECK(atomic_load(&s.returned));
    tg_parker_destroy(&s.parker);
}

int main(int argc, char **argv)
{
    int rounds = check_rounds(argc, argv);
    test_permit();
    test_rally(rounds);
    test_duel(rounds);
    test_crowd(rounds);
    test_signals(rounds < 200 ? rounds : 200);
    return 0;
}
