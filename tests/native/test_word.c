/* The token word: every state with every edge against the lifecycle table, then every pair of edges in a race. */
#include "check.h"

#include "tg_word.h"

#define FLAGS (TG_WAITER | TG_BLOCKED | TG_RUNNING | TG_WATCHED)
#define RACE_WORDS 512

/* ---- the edges under one face -------------------------------------------------------------------------------- */

static tg_step finish_completed(tg_word *w) { return tg_word_finish(w, TG_COMPLETED); }
static tg_step finish_failed(tg_word *w) { return tg_word_finish(w, TG_FAILED); }
static tg_step end_cancelled(tg_word *w) { return tg_word_end(w, TG_CANCELLED); }
static tg_step end_expired(tg_word *w) { return tg_word_end(w, TG_EXPIRED); }
static tg_step end_killed(tg_word *w) { return tg_word_end(w, TG_KILLED); }
static tg_step drop_cancelled(tg_word *w) { return tg_word_end_unstarted(w, TG_CANCELLED); }
static tg_step drop_expired(tg_word *w) { return tg_word_end_unstarted(w, TG_EXPIRED); }
static tg_step drop_killed(tg_word *w) { return tg_word_end_unstarted(w, TG_KILLED); }

typedef struct {
    const char *by;
    uint32_t to;
    tg_step (*take)(tg_word *);
    uint32_t not_from; /* a bit set: the variant of the edge that leaves these states alone */
} action;

static const action actions[] = {
    {"submit", TG_WAITING, tg_word_submit, 0},
    {"try_admit", TG_ADMITTED, tg_word_try_admit, 0},
    {"give_back", TG_WAITING, tg_word_give_back, 0},
    {"try_start", TG_EXECUTING, tg_word_try_start, 0},
    {"fail_unrun", TG_FAILED, tg_word_fail_unrun, 0},
    {"finish", TG_COMPLETED, finish_completed, 0},
    {"finish", TG_FAILED, finish_failed, 0},
    {"end", TG_CANCELLED, end_cancelled, 0},
    {"end", TG_EXPIRED, end_expired, 0},
    {"end", TG_KILLED, end_killed, 0},
    {"end", TG_CANCELLED, drop_cancelled, TG_BIT(TG_EXECUTING)},
    {"end", TG_EXPIRED, drop_expired, TG_BIT(TG_EXECUTING)},
    {"end", TG_KILLED, drop_killed, TG_BIT(TG_EXECUTING)},
};
#define ACTIONS (sizeof actions / sizeof actions[0])

static bool in_table(uint32_t from, const action *a)
{
    if (TG_BIT(from) & a->not_from)
        return false;
    size_t count;
    const tg_edge *rows = tg_edges(&count);
    for (size_t i = 0; i < count; i++)
        if (rows[i].from == from && rows[i].to == a->to && strcmp(rows[i].by, a->by) == 0)
            return true;
    return false;
}

/* ---- the table itself ---------------------------------------------------------------------------------------- */

static void test_table(void)
{
    size_t count;
    const tg_edge *rows = tg_edges(&count);
    uint32_t reached = TG_BIT(TG_CREATED);
    CHECK(count > 0);
    for (size_t i = 0; i < count; i++) {
        CHECK(rows[i].from < TG_STATES && rows[i].to < TG_STATES);
        CHECK(!(TG_BIT(rows[i].from) & TG_ENDED_STATES)); /* an ended token stays as it is */
        reached |= TG_BIT(rows[i].to);
        unsigned taken = 0, same = 0;
        for (size_t a = 0; a < ACTIONS; a++)
            taken += !actions[a].not_from && actions[a].to == rows[i].to && strcmp(actions[a].by, rows[i].by) == 0;
        for (size_t j = 0; j < count; j++)
            same += rows[j].from == rows[i].from && rows[j].to == rows[i].to;
        CHECK(taken == 1); /* a function exists for every row */
        CHECK(same == 1);  /* and one row for every pair of states: who took it is never in doubt */
    }
    CHECK(reached == TG_BIT(TG_STATES) - 1);
    for (uint32_t to = 0; to < TG_STATES; to++) {
        uint32_t from = 0;
        for (size_t i = 0; i < count; i++)
            from |= rows[i].to == to ? TG_BIT(rows[i].from) : 0;
        CHECK(tg_word_sources(to) == from);
        CHECK(tg_ended(to) == (to >= TG_COMPLETED));
        CHECK(tg_abandoned(to | TG_RUNNING) == (to >= TG_COMPLETED) && !tg_abandoned(to));
        CHECK(tg_over(to) == (to >= TG_COMPLETED) && !tg_over(to | TG_RUNNING));
    }
}

/* ---- every state, every combination of flags, every edge ----------------------------------------------------- */

static void test_exhaustive(void)
{
    for (uint32_t from = 0; from < TG_STATES; from++)
        for (uint32_t flags = 0; flags <= FLAGS; flags += TG_WAITER)
            for (size_t a = 0; a < ACTIONS; a++) {
                tg_word w;
                atomic_init(&w, from | flags);
                tg_step step = actions[a].take(&w);
                uint32_t after = tg_word_load(&w);
                CHECK(step.old == (from | flags));
                CHECK(step.moved == in_table(from, &actions[a]));
                if (!step.moved) {
                    CHECK(after == (from | flags));
                    continue;
                }
                uint32_t kept = flags;
                if (actions[a].to == TG_EXECUTING)
                    kept |= TG_RUNNING; /* [W5] */
                if (strcmp(actions[a].by, "finish") == 0)
                    kept &= ~TG_RUNNING;
                CHECK(tg_state_of(after) == actions[a].to);
                CHECK((after & ~TG_STATE_MASK) == kept); /* nobody who waits is forgotten */
            }
}

static void test_flags(void)
{
    for (uint32_t state = 0; state < TG_STATES; state++)
        for (uint32_t flags = 0; flags <= FLAGS; flags += TG_WAITER) {
            tg_word w;
            atomic_init(&w, state | flags);
            CHECK(tg_word_announce(&w, TG_WAITER) == (state | flags));
            CHECK(tg_word_announce(&w, TG_BLOCKED) == (state | flags | TG_WAITER));
            CHECK(tg_word_load(&w) == (state | flags | TG_WAITER | TG_BLOCKED));
            CHECK(tg_word_announce(&w, TG_WATCHED) == (state | flags | TG_WAITER | TG_BLOCKED));
            CHECK(tg_word_returned(&w) == (state | flags | TG_WAITER | TG_BLOCKED | TG_WATCHED));
            CHECK(tg_word_load(&w) == (state | TG_WAITER | TG_BLOCKED | TG_WATCHED));
        }
}

static void test_abandoned(void)
{
    tg_word w;
    atomic_init(&w, TG_CREATED);
    CHECK(tg_word_submit(&w).moved && tg_word_try_admit(&w).moved && tg_word_try_start(&w).moved);
    CHECK(!tg_abandoned(tg_word_load(&w)));
    tg_step step = tg_word_end(&w, TG_CANCELLED);
    CHECK(step.moved && step.old == (TG_EXECUTING | TG_RUNNING));
    CHECK(tg_abandoned(tg_word_load(&w)));
    CHECK(!tg_word_finish(&w, TG_COMPLETED).moved);
    CHECK(tg_word_returned(&w) == (TG_CANCELLED | TG_RUNNING));
    CHECK(tg_word_load(&w) == TG_CANCELLED && tg_over(TG_CANCELLED));
}

/* ---- races --------------------------------------------------------------------------------------------------- */

/* Two threads walk the same words side by side, each taking its own edge. */
typedef struct {
    start_line line;
    tg_word words[RACE_WORDS];
    uint32_t outcome[RACE_WORDS]; /* plain on purpose: the edge must publish it [W3] */
    tg_step steps[2][RACE_WORDS];
    uint32_t announced[RACE_WORDS];
    const action *edge[2]; /* NULL: announce the flag */
    uint32_t flag;
    atomic_bool done;
} race;

static void race_run(race *r, int side)
{
    const action *edge = r->edge[side];
    for (int i = 0; i < RACE_WORDS; i++)
        if (edge != NULL)
            r->steps[side][i] = edge->take(&r->words[i]);
        else
            r->announced[i] = tg_word_announce(&r->words[i], r->flag);
}

static void *race_rival(void *arg)
{
    race *r = arg;
    for (;;) {
        start_line_wait(&r->line);
        if (atomic_load(&r->done))
            return NULL;
        race_run(r, 1);
        start_line_wait(&r->line);
    }
}

static void race_once(race *r, uint32_t from, const action *mine, const action *theirs)
{
    for (int i = 0; i < RACE_WORDS; i++)
        atomic_store_explicit(&r->words[i], from, memory_order_relaxed);
    r->edge[0] = mine;
    r->edge[1] = theirs;
    start_line_wait(&r->line);
    race_run(r, 0);
    start_line_wait(&r->line);
}

/* What both edges answer and leave behind when one follows the other. */
typedef struct { tg_step first, second; uint32_t after; } history;

static history in_turn(uint32_t from, const action *first, const action *second)
{
    history h;
    tg_word w;
    atomic_init(&w, from);
    h.first = first->take(&w);
    h.second = second->take(&w);
    h.after = tg_word_load(&w);
    return h;
}

static bool same(tg_step a, tg_step b) { return a.moved == b.moved && a.old == b.old; }

static void test_races(race *r, int rounds)
{
    for (uint32_t from = TG_CREATED; from <= TG_EXECUTING; from++)
        for (size_t a = 0; a < ACTIONS; a++)
            for (size_t b = a; b < ACTIONS; b++) {
                if (!in_table(from, &actions[a]) && !in_table(from, &actions[b]))
                    continue;
                uint32_t start = from == TG_EXECUTING ? from | TG_RUNNING : from;
                history ab = in_turn(start, &actions[a], &actions[b]);
                history ba = in_turn(start, &actions[b], &actions[a]);
                bool rivals = !(ab.first.moved && ab.second.moved) && !(ba.first.moved && ba.second.moved);
                for (int round = 0; round < rounds; round++) {
                    race_once(r, start, &actions[a], &actions[b]);
                    for (int i = 0; i < RACE_WORDS; i++) {
                        tg_step mine = r->steps[0][i], theirs = r->steps[1][i];
                        uint32_t after = tg_word_load(&r->words[i]);
                        if (rivals && in_table(from, &actions[a]) && in_table(from, &actions[b]))
                            CHECK(mine.moved != theirs.moved); /* [W1] */
                        CHECK((same(mine, ab.first) && same(theirs, ab.second) && after == ab.after) ||
                              (same(theirs, ba.first) && same(mine, ba.second) && after == ba.after));
                    }
                }
            }
}

/* [W4]: of the waiter and who ends the token, exactly one learns of the other and tells. */
static void test_announce_races(race *r, int rounds)
{
    for (size_t a = 0; a < ACTIONS; a++)
        for (uint32_t from = TG_CREATED; from <= TG_EXECUTING; from++) {
            if (!(TG_BIT(actions[a].to) & TG_ENDED_STATES) || !in_table(from, &actions[a]))
                continue;
            r->flag = TG_WAITER;
            for (int round = 0; round < rounds; round++) {
                race_once(r, from, &actions[a], NULL);
                for (int i = 0; i < RACE_WORDS; i++) {
                    CHECK(r->steps[0][i].moved);
                    bool ender_tells = (r->steps[0][i].old & TG_WAITER) != 0;
                    bool waiter_tells = tg_ended(r->announced[i]);
                    CHECK(ender_tells != waiter_tells);
                    CHECK(tg_word_load(&r->words[i]) == (actions[a].to | TG_WAITER));
                }
            }
        }
}

/* A worker's return from a token that had ended, under the face of an edge. */
static tg_step returned(tg_word *w) { return (tg_step){true, tg_word_returned(w)}; }

/* [W6]: the same of the watcher and who takes the step that makes the token over. */
static void test_watch_races(race *r, int rounds)
{
    static const action late = {"returned", TG_CANCELLED, returned, 0};
    r->flag = TG_WATCHED;
    for (size_t a = 0; a <= ACTIONS; a++)
        for (uint32_t from = TG_CREATED; from <= TG_CANCELLED; from++) {
            const action *edge = a < ACTIONS ? &actions[a] : &late;
            bool fits = edge == &late ? from == TG_CANCELLED : (TG_BIT(edge->to) & TG_ENDED_STATES) && in_table(from, edge);
            if (!fits)
                continue;
            uint32_t start = from == TG_EXECUTING || edge == &late ? from | TG_RUNNING : from;
            for (int round = 0; round < rounds; round++) {
                race_once(r, start, edge, NULL);
                for (int i = 0; i < RACE_WORDS; i++) {
                    uint32_t after = tg_word_load(&r->words[i]);
                    bool mover_tells = tg_over(after) && (r->steps[0][i].old & TG_WATCHED);
                    bool watcher_tells = tg_over(r->announced[i]);
                    CHECK(after & TG_WATCHED);
                    CHECK(mover_tells + watcher_tells == tg_over(after));
                    CHECK(tg_over(after) || tg_abandoned(after));
                }
            }
        }
}

/* [W3]: who sees the ended state sees the outcome (ThreadSanitizer watches the plain array). */
static void *publish_reader(void *arg)
{
    race *r = arg;
    start_line_wait(&r->line);
    for (uint32_t i = 0; i < RACE_WORDS; i++) {
        while (!tg_ended(tg_word_load(&r->words[i])))
            sched_yield();
        CHECK(r->outcome[i] == i + 1);
    }
    return NULL;
}

static void test_publish(race *r, int rounds)
{
    for (int round = 0; round < rounds; round++) {
        pthread_t reader;
        for (int i = 0; i < RACE_WORDS; i++) {
            atomic_store(&r->words[i], TG_EXECUTING | TG_RUNNING);
            r->outcome[i] = 0;
        }
        check_start(&reader, publish_reader, r);
        start_line_wait(&r->line);
        for (uint32_t i = 0; i < RACE_WORDS; i++) {
            r->outcome[i] = i + 1;
            CHECK(tg_word_finish(&r->words[i], TG_COMPLETED).moved);
        }
        check_join(reader);
    }
}

int main(int argc, char **argv)
{
    static race r;
    int rounds = check_rounds(argc, argv);
    pthread_t rival;
    test_table();
    test_exhaustive();
    test_flags();
    test_abandoned();
    start_line_init(&r.line, 2);
    check_start(&rival, race_rival, &r);
    test_races(&r, rounds);
    test_announce_races(&r, rounds);
    test_watch_races(&r, rounds);
    atomic_store(&r.done, true);
    start_line_wait(&r.line);
    check_join(rival);
    test_publish(&r, rounds);
    return 0;
}
