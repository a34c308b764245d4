/* How long a worker that has let go of the GIL waits for its loop to answer. Whether it waited is told by the shortest of
 * several tries: on a busy machine any single one may take long. */
#include "check.h"

#include "tg_port.h"

#define TRIES 200

typedef enum { SILENT, ANSWERED, ANSWERS } loop_does;

static struct {
    tg_port *port;
    _Atomic(bool) over;
} m;

/* A loop that answers as soon as somebody waits for it. */
static void *loop(void *unused)
{
    (void)unused;
    while (!atomic_load(&m.over)) {
        if (atomic_load(&m.port->waiters) != 0)
            tg_port_answer(m.port, tg_now());
        sched_yield();
    }
    return NULL;
}

/* The shortest wait of some tries for a wake-up of that age. */
static int64_t shortest(int64_t age, bool alone, loop_does what)
{
    int64_t least = INT64_MAX;
    for (int i = 0; i < TRIES && (i < 3 || least >= TG_FIRST_WAIT_NS); i++) {
        uint32_t seen = 0;
        (void)tg_inbox_take(&m.port->box);
        CHECK(tg_inbox_arm(&m.port->box, tg_now() - age));
        CHECK_EQ(tg_port_due(m.port, tg_now(), 0, &seen), age > TG_FIRST_AFTER_NS);
        if (what == ANSWERED)
            tg_port_answer(m.port, tg_now());
        int64_t begin = tg_now();
        tg_port_await(m.port, seen, alone);
        int64_t took = tg_now() - begin;
        least = took < least ? took : least;
        if (what == SILENT && (alone || age >= TG_FIRST_LATE_NS))
            CHECK(took >= TG_FIRST_WAIT_NS);
    }
    CHECK_EQ(atomic_load(&m.port->waiters), 0);
    return least;
}

int main(void)
{
    pthread_t thread;
    const int64_t young = TG_FIRST_AFTER_NS / 2, due = 2 * TG_FIRST_AFTER_NS, late = 2 * TG_FIRST_LATE_NS;
    m.port = tg_port_new(tg_bell_new());
    CHECK(m.port != NULL);

    /* nobody else burns: the GIL is left to the loop for some time; beside others only where the loop has waited long */
    CHECK(shortest(young, true, SILENT) >= TG_FIRST_WAIT_NS);
    CHECK(shortest(due, true, SILENT) >= TG_FIRST_WAIT_NS);
    CHECK(shortest(late, false, SILENT) >= TG_FIRST_WAIT_NS);
    CHECK(shortest(young, false, SILENT) < TG_FIRST_WAIT_NS);
    CHECK(shortest(due, false, SILENT) < TG_FIRST_WAIT_NS);

    /* an answer that came before the wait, and one that ends it */
    CHECK(shortest(due, true, ANSWERED) < TG_FIRST_WAIT_NS);
    CHECK(shortest(late, false, ANSWERED) < TG_FIRST_WAIT_NS);
    check_start(&thread, loop, NULL);
    CHECK(shortest(due, true, ANSWERS) < TG_FIRST_WAIT_NS);
    CHECK(shortest(late, false, ANSWERS) < TG_FIRST_WAIT_NS);
    atomic_store(&m.over, true);
    check_join(thread);

    tg_port_close(m.port);
    tg_port_release(m.port);
    return 0;
}
