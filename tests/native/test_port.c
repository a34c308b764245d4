/* For which wake-ups a worker that has let go of the GIL waits, and how long. Whether it waited is told by the shortest of
 * several tries: on a busy machine any single one may take long. */
#include "check.h"

#include "tg_port.h"

#define TRIES 200

typedef enum { SILENT, ANSWERED, ANSWERS } loop_does;

static struct {
    tg_port *port;
    _Atomic(bool) over, asked;
} m;

/* A loop that answers, once for each try, a while after somebody has begun to wait for it: by then he sleeps. */
static void *loop(void *unused)
{
    (void)unused;
    while (!atomic_load(&m.over)) {
        if (atomic_load(&m.port->waiters) != 0 && atomic_exchange(&m.asked, false)) {
            struct timespec a_while = {0, TG_FIRST_WAIT_NS / 4};
            nanosleep(&a_while, NULL);
            tg_port_answer(m.port, tg_now());
        }
        sched_yield();
    }
    return NULL;
}

/* The shortest wait of some tries. */
static int64_t shortest(loop_does what)
{
    int64_t least = INT64_MAX;
    for (int i = 0; i < TRIES && (i < 3 || least >= TG_FIRST_WAIT_NS); i++) {
        uint32_t seen = 0;
        (void)tg_inbox_take(&m.port->box);
        CHECK(tg_inbox_arm(&m.port->box, tg_now() - 2 * TG_FIRST_AFTER_NS));
        CHECK(tg_port_due(m.port, tg_now(), 0, &seen));
        if (what == ANSWERED)
            tg_port_answer(m.port, tg_now());
        atomic_store(&m.asked, what == ANSWERS);
        int64_t begin = tg_now();
        tg_port_await(m.port, seen);
        int64_t took = tg_now() - begin;
        least = took < least ? took : least;
        if (what == SILENT)
            CHECK(took >= TG_FIRST_WAIT_NS);
        if (what == ANSWERS && !atomic_exchange(&m.asked, false)) /* else the loop has not seen that somebody waited */
            while (atomic_load(&m.port->answers) == seen)
                sched_yield(); /* it comes too late for this try, and is not to be there for the next */
    }
    CHECK_EQ(atomic_load(&m.port->waiters), 0);
    return least;
}

/* Which wake-ups are waited for. */
static void test_ages(void)
{
    uint32_t seen;
    int64_t now = tg_now(), armed = now - 2 * TG_FIRST_LATE_NS;
    CHECK(!tg_port_due(m.port, now, 0, &seen));
    CHECK(tg_inbox_arm(&m.port->box, armed));
    CHECK(!tg_port_due(m.port, armed + TG_FIRST_AFTER_NS, 0, &seen));
    CHECK(tg_port_due(m.port, armed + TG_FIRST_AFTER_NS + 1, 0, &seen));
    CHECK(!tg_port_late(m.port, armed + TG_FIRST_LATE_NS));
    CHECK(tg_port_late(m.port, armed + TG_FIRST_LATE_NS + 1));
    CHECK(!tg_port_due(m.port, now, armed, &seen)); /* once each */
    atomic_store(&m.port->engaged, 1);
    CHECK(!tg_port_due(m.port, now, 0, &seen));
    atomic_store(&m.port->engaged, 0);
    CHECK(tg_port_due(m.port, now, 0, &seen));
}

int main(void)
{
    pthread_t thread;
    m.port = tg_port_new(tg_bell_new());
    CHECK(m.port != NULL);

    test_ages();

    /* no answer, one that came before the wait, and one that ends it */
    CHECK(shortest(SILENT) >= TG_FIRST_WAIT_NS);
    CHECK(shortest(ANSWERED) < TG_FIRST_WAIT_NS);
    check_start(&thread, loop, NULL);
    CHECK(shortest(ANSWERS) < TG_FIRST_WAIT_NS);
    atomic_store(&m.over, true);
    check_join(thread);

    tg_port_close(m.port);
    tg_port_release(m.port);
    return 0;
}
