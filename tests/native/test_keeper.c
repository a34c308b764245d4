/* What the keeper sees of single threads: whether one that is ready to run has to wait for a CPU. */
#include "check.h"

#include <pthread.h>

#include "tg_keeper.h"

#define MS INT64_C(1000000)

static struct {
    tg_port *port;
    tg_parker parker;
    _Atomic(bool) adopted;
} m;

/* A loop that sleeps. */
static void *sleeper(void *unused)
{
    (void)unused;
    tg_port_adopt(m.port);
    atomic_store(&m.adopted, true);
    while (!tg_park_until(&m.parker, INT64_MAX))
        ;
    return NULL;
}

#if defined(__linux__)
static void nap(void)
{
    struct timespec while_it_sleeps = {0, MS};
    nanosleep(&while_it_sleeps, NULL);
}

/* The state of another thread is a sample: it may need some time until it sleeps, on a busy machine. */
static bool comes_to_sleep(tg_watch *w)
{
    for (int i = 0; i < 10000; i++) {
        if (!tg_watch_short(w, 0, 5 * MS))
            return true;
        nap();
    }
    return false;
}
#endif

int main(void)
{
    pthread_t thread;
    m.port = tg_port_new(tg_bell_new());
    CHECK(m.port != NULL);
    tg_watch w = {.port = m.port};

    /* nobody runs the loop yet */
    CHECK(!tg_watch_short(&w, 0, 5 * MS));

    /* this thread runs, so it is ready to; whether that is all it wants its CPU time tells */
    tg_port_adopt(m.port);
#if defined(__linux__)
    CHECK(tg_watch_short(&w, 0, 5 * MS));
    CHECK(tg_watch_short(&w, 3 * MS, 5 * MS));
    CHECK(!tg_watch_short(&w, 4 * MS, 5 * MS));
    CHECK(w.page.fd > 0);
#else
    CHECK(!tg_watch_short(&w, 0, 5 * MS)); /* the system does not tell */
#endif

    /* another thread runs the loop now: what was open of this one is closed, and one that sleeps is not short of anything */
    tg_parker_init(&m.parker);
    CHECK(pthread_create(&thread, NULL, sleeper, NULL) == 0);
    while (!atomic_load(&m.adopted))
        ;
#if defined(__linux__)
    CHECK(comes_to_sleep(&w));
    CHECK(w.page.clock == atomic_load(&m.port->clock));
#endif
    tg_unpark(&m.parker);
    CHECK(pthread_join(thread, NULL) == 0);
#if defined(__linux__)
    CHECK(comes_to_sleep(&w)); /* gone; it is joined a little before the system has done with it */
#else
    CHECK(!tg_watch_short(&w, 0, 5 * MS));
#endif

    tg_page_close(&w.page);
    CHECK_EQ(w.page.fd, 0);
    tg_parker_destroy(&m.parker);
    tg_port_release(m.port);
    return 0;
}
