/* The control law of the active limit against models of what workers do: how far it grows, that it stays there, what
 * makes it cut, and what must not. The models are coarse on purpose; times are ns, nothing sleeps. */
#include "check.h"

#include "tg_law.h"

#define MS INT64_C(1000000)

/* What the workers of a workload do. */
typedef struct {
    double cpu;       /* share of a token's time that it wants a CPU, without anybody in its way */
    bool gil;         /* it holds the GIL meanwhile */
    bool interpreter; /* there is a GIL at all */
    bool loop;        /* an event loop looks on */
    double own;       /* CPU share of that loop's own callbacks */
    uint32_t cpus, max;
} model;

typedef struct {
    tg_law law;
    model m;
    int64_t now;
    uint64_t seed;
    uint32_t least, most, changes, cuts;
    tg_reason last;
} trial;

static void begin(trial *t, model m)
{
    *t = (trial){.m = m, .seed = 88172645463325252u, .now = 1000 * MS};
    t->law.target = 10 * MS;
    tg_law_reset(&t->law, m.interpreter ? 1 : m.cpus);
}

/* One look after `span`, with all places taken. */
static void look(trial *t, int64_t span)
{
    const model *m = &t->m;
    uint32_t n = t->law.limit;
    double capacity = m->gil ? 1.0 : (double)m->cpus;
    /* n workers in random phases: what they want, and what they get of it */
    double want = n * m->cpu, got = want / capacity;
    got = got < 1 ? capacity * (got - 0.1 * got * got) : capacity;
    double noise = 1.0 + ((double)random_below(&t->seed, 101) - 50.0) / 1000.0;
    got = got * noise > capacity ? capacity : got * noise;
    tg_look l = {
        .now = t->now += span,
        .span = span,
        .cpu = (int64_t)(got * (double)span),
        .process = (int64_t)(got * (double)span),
        .loop_cpu = (int64_t)(m->own * (double)span),
        .steady_cpu = (int64_t)(got * (double)span),
        .steady = n * span,
        .ready = (int64_t)((m->gil && want > 1 ? 1 : want) * (double)span), /* those that wait for the GIL sleep */
        .asleep = random_below(&t->seed, 1000) >= 1000 * (got < 1 ? got : 1),
        .active = n,
        .max = m->max,
        .cpus = m->cpus,
        .gil = m->interpreter,
        .full = true,
        .loop = m->loop,
    };
    /* the loop gets the GIL after each of those who hold or want it has had it for a switch interval */
    if (m->loop && m->gil && want > 0.5) {
        l.starved = 1;
        l.starved_lag = (int64_t)(5e6 * (want < 1 ? 1 : want));
    } else if (m->loop && m->own < 0.5) {
        l.prompt = 1;
    }
    uint32_t before = t->law.limit;
    tg_ruling r = tg_law_judge(&t->law, &l);
    CHECK(r.limit == t->law.limit && r.limit >= 1 && r.limit <= m->max);
    CHECK((r.reason == TG_LAW_HELD) == (r.limit == before));
    if (r.limit == before)
        return;
    t->changes++;
    t->cuts += r.reason == TG_LAW_CUT_LAG || r.reason == TG_LAW_CUT_CPU;
    t->last = r.reason;
}

/* Looks for so long as the keeper would, and notes between what the limit moved in the second half. */
static void run(trial *t, int64_t time)
{
    int64_t from = t->now;
    t->least = UINT32_MAX;
    t->most = 0;
    while (t->now - from < time) {
        look(t, t->law.span < TG_LAW_STEP_NS ? MS : 5 * MS);
        if (t->now - from < time / 2)
            continue;
        t->least = t->law.limit < t->least ? t->law.limit : t->least;
        t->most = t->law.limit > t->most ? t->law.limit : t->most;
    }
}

static void sleepers_get_as_many_as_there_are(void)
{
    trial t;
    begin(&t, (model){.cpu = 0.001, .gil = true, .interpreter = true, .loop = true, .cpus = 2, .max = 64});
    run(&t, 20 * MS);
    CHECK_EQ(t.law.limit, 64); /* doubled at every look */
    CHECK_EQ(t.cuts, 0);
    begin(&t, (model){.cpu = 0.001, .gil = true, .interpreter = true, .loop = true, .own = 0.95, .cpus = 2, .max = 64});
    run(&t, 100 * MS);
    CHECK_EQ(t.law.limit, 64); /* a loop that is busy by itself delays that, and no more */
    CHECK_EQ(t.cuts, 0);
}

static void pure_python_gets_one(void)
{
    trial t;
    begin(&t, (model){.cpu = 1, .gil = true, .interpreter = true, .loop = true, .cpus = 2, .max = 64});
    run(&t, 2000 * MS);
    CHECK_EQ(t.most, 1);
    CHECK_EQ(t.changes, 0);
    t.law.limit = 32; /* learnt from sleepers */
    t.law.share = 0;
    run(&t, 4000 * MS);
    CHECK_EQ(t.least, 1);
    CHECK(t.most <= 2);
    CHECK(t.cuts > 0);
}

static void mixed_work_gets_a_few(void)
{
    trial t;
    begin(&t, (model){.cpu = 0.4, .gil = true, .interpreter = true, .loop = true, .cpus = 2, .max = 64});
    run(&t, 4000 * MS);
    CHECK(t.least >= 2); /* 2.5 would be busy at best */
    CHECK(t.most <= 8);
}

static void cpu_outside_the_gil_gets_the_cpus(void)
{
    trial t;
    for (uint32_t cpus = 1; cpus <= 16; cpus *= 2) {
        begin(&t, (model){.cpu = 1, .interpreter = true, .loop = true, .cpus = cpus, .max = 64});
        run(&t, 4000 * MS);
        CHECK(t.least >= TG_LAW_ROOM * cpus);
        CHECK(t.most <= cpus);
        t.law.limit = 64; /* learnt from sleepers */
        run(&t, 2000 * MS);
        CHECK(t.most <= cpus);
        CHECK(cpus == 1 || t.last == TG_LAW_CUT_CPU);
    }
}

static void without_a_gil(void)
{
    trial t;
    begin(&t, (model){.cpu = 1, .loop = true, .cpus = 4, .max = 64});
    run(&t, 1000 * MS);
    CHECK(t.least == 4 && t.most == 4 && t.changes == 0);
    begin(&t, (model){.cpu = 0.001, .loop = true, .cpus = 4, .max = 64});
    run(&t, 20 * MS);
    CHECK_EQ(t.law.limit, 64);
}

/* A look with nothing in it but what the caller sets. */
static tg_look plain(trial *t, uint32_t active)
{
    return (tg_look){.now = t->now += 5 * MS, .span = 5 * MS, .active = active, .max = 64, .cpus = 2, .gil = true, .full = true,
                     .loop = true, .asleep = true};
}

static void one_outlier_cuts_nothing(void)
{
    trial t;
    begin(&t, (model){.interpreter = true, .max = 64});
    t.law.limit = 8;
    for (int i = 0; i < 100; i++) {
        tg_look l = plain(&t, 8);
        l.cpu = l.steady_cpu = 5 * MS;
        l.steady = 40 * MS;
        l.starved = 1;
        l.starved_lag = i % 20 == 10 ? 900 * MS : 3 * MS;
        CHECK_EQ(tg_law_judge(&t.law, &l).limit, 8);
    }
    tg_reason reason = TG_LAW_HELD;
    for (int i = 0; i < 10 && reason == TG_LAW_HELD; i++) { /* but if it goes on like that */
        tg_look l = plain(&t, 8);
        l.cpu = 5 * MS;
        l.starved = 1;
        l.starved_lag = 40 * MS;
        reason = tg_law_judge(&t.law, &l).reason;
    }
    CHECK_EQ(reason, TG_LAW_CUT_LAG);
    CHECK(t.law.limit >= 4 && t.law.limit <= 6);
}

static void workers_that_sleep_are_not_to_blame(void)
{
    trial t;
    begin(&t, (model){.interpreter = true, .max = 64});
    t.law.limit = 64;
    for (int i = 0; i < 200; i++) { /* somebody else's threads starve the loop */
        tg_look l = plain(&t, 64);
        l.cpu = MS / 10;
        l.starved = 1;
        l.starved_lag = 50 * MS;
        CHECK_EQ(tg_law_judge(&t.law, &l).limit, 64);
    }
}

static void threads_without_a_cpu_do_not_sleep(void)
{
    /* Nothing is used, as if all slept; but at each look somebody was ready to run and had no CPU. */
    trial t;
    begin(&t, (model){.gil = true, .interpreter = true, .loop = true, .cpus = 2, .max = 64});
    for (int asleep = 0; asleep < 2; asleep++) {
        for (unsigned i = 0; i < 400; i++) {
            tg_look l = {.now = t.now += MS, .span = MS, .steady = t.law.limit * MS, .active = t.law.limit,
                         .max = 64, .cpus = 2, .gil = true, .loop = true, .full = true, .asleep = asleep};
            tg_law_judge(&t.law, &l);
        }
        CHECK_EQ(t.law.limit, asleep ? 64 : 1);
    }
}

static void burners_that_lose_their_cpus_for_a_moment_get_no_company(void)
{
    /* A part of what is used is used by threads of a library, as for a product of matrices: no worker wants a whole CPU. */
    trial t;
    begin(&t, (model){.interpreter = true, .loop = true, .cpus = 2, .max = 64});
    for (unsigned i = 0; i < 4000; i++) {
        double got = i % 200 < 4 ? 0.65 : 0.98; /* every second for 20 ms others have them, too */
        tg_look l = plain(&t, t.law.limit);
        uint32_t cpus = t.law.limit < 2 ? t.law.limit : 2;
        l.process = (int64_t)(got * cpus * (double)l.span);
        l.cpu = l.steady_cpu = l.ready = l.process * 6 / 10;
        l.steady = t.law.limit * l.span;
        l.asleep = false;
        l.prompt = 1;
        tg_law_judge(&t.law, &l);
        CHECK(t.law.limit <= 2);
        CHECK(i < 100 || t.law.limit == 2);
    }
}

static void a_cut_that_has_not_taken_effect_is_not_repeated(void)
{
    trial t;
    begin(&t, (model){.interpreter = true, .max = 64});
    t.law.limit = 4;
    for (int i = 0; i < 200; i++) { /* eight tokens that run for a second were already under way */
        tg_look l = plain(&t, 8);
        l.cpu = 5 * MS;
        l.starved = 1;
        l.starved_lag = 50 * MS;
        CHECK_EQ(tg_law_judge(&t.law, &l).limit, 4);
    }
}

static void those_past_the_limit_may_sleep_for_ever(void)
{
    trial t;
    begin(&t, (model){.interpreter = true, .max = 64});
    t.law.limit = 1;
    for (int i = 0; i < 20 && t.law.limit == 1; i++) {
        tg_look l = plain(&t, 8);
        l.steady = 40 * MS;
        tg_law_judge(&t.law, &l);
    }
    CHECK(t.law.limit > 8);
}

static void clocks_that_say_nothing(void)
{
    trial t;
    begin(&t, (model){.interpreter = true, .max = 64});
    for (int i = 0; i < 200; i++) {
        tg_look l = plain(&t, t.law.limit);
        l.cpu = l.process = -1;
        l.span = 0; /* nor does the time pass */
        CHECK_EQ(tg_law_judge(&t.law, &l).limit, 1);
    }
}

static void nothing_waits_nothing_changes(void)
{
    trial t;
    begin(&t, (model){.interpreter = true, .max = 64});
    for (int i = 0; i < 200; i++) {
        tg_look l = plain(&t, 1);
        l.full = false;
        l.steady = 5 * MS;
        CHECK_EQ(tg_law_judge(&t.law, &l).limit, 1);
    }
}

/* Whatever is seen, the limit stays between one and the most there may be. */
static void any_input(void)
{
    trial t;
    begin(&t, (model){.interpreter = true, .max = 64});
    for (int i = 0; i < 300000; i++) {
        tg_look l = plain(&t, (uint32_t)random_below(&t.seed, 80));
        l.span = (int64_t)random_below(&t.seed, 30 * MS);
        l.cpu = (int64_t)random_below(&t.seed, 70 * MS) - 5 * MS;
        l.process = (int64_t)random_below(&t.seed, 90 * MS) - 5 * MS;
        l.steady = (int64_t)random_below(&t.seed, 90 * MS);
        l.steady_cpu = (int64_t)random_below(&t.seed, 90 * MS);
        l.ready = (int64_t)random_below(&t.seed, 90 * MS);
        l.loop_cpu = (int64_t)random_below(&t.seed, 30 * MS);
        l.max = 1 + (uint32_t)random_below(&t.seed, 64);
        l.cpus = 1 + (uint32_t)random_below(&t.seed, 8);
        l.gil = random_below(&t.seed, 2);
        l.full = random_below(&t.seed, 4) != 0;
        l.loop = random_below(&t.seed, 2);
        l.starved = (uint32_t)random_below(&t.seed, 20);
        l.starved_lag = (int64_t)random_below(&t.seed, 2000 * MS);
        l.prompt = (uint32_t)random_below(&t.seed, 20);
        l.attached = (uint32_t)random_below(&t.seed, 20);
        l.attach = (int64_t)random_below(&t.seed, 100 * MS);
        uint32_t before = t.law.limit;
        tg_ruling r = tg_law_judge(&t.law, &l);
        CHECK(r.limit >= 1);
        CHECK(r.limit <= l.max || r.limit <= before);
        CHECK(t.law.level >= 0 && t.law.level <= 30e6 && t.law.share >= 0 && t.law.share <= 1);
    }
}

int main(void)
{
    sleepers_get_as_many_as_there_are();
    pure_python_gets_one();
    mixed_work_gets_a_few();
    cpu_outside_the_gil_gets_the_cpus();
    without_a_gil();
    one_outlier_cuts_nothing();
    workers_that_sleep_are_not_to_blame();
    threads_without_a_cpu_do_not_sleep();
    burners_that_lose_their_cpus_for_a_moment_get_no_company();
    a_cut_that_has_not_taken_effect_is_not_repeated();
    those_past_the_limit_may_sleep_for_ever();
    clocks_that_say_nothing();
    nothing_waits_nothing_changes();
    any_input();
    return 0;
}
