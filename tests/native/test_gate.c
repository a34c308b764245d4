/* The gate under threads: limits, keys and pauses hold while everything happens at once.
 *
 * Functions count themselves in and out, per operation and per key. Workers are started as the pool asks for them; two
 * threads submit in bursts, one ends random tokens, one pauses, lowers and raises limits and takes out what waits. Between
 * bursts everything runs dry: a place or a wake-up that got lost leaves a burst unfinished, and the test hangs.
 */
#include "pool_check.h"

#define OPERATIONS 5
#define KEYS 3
#define SUBMITTERS 2
#define MOST_WORKERS 4
#define MOST_THREADS 4096
#define BATCH 6
#define BURST 48 /* tokens of each submitter */
#define TOKENS (SUBMITTERS * (BURST + BATCH))

enum { TWO, KEYED, NARROW, FREE, MOVING }; /* the operations: see `policies` */

static const tg_policy policies[OPERATIONS] = {
    [TWO] = {.limit = 2, .key_limit = 1},
    [KEYED] = {.limit = 3, .key_limit = 1}, /* its tokens have keys */
    [NARROW] = {.limit = 1, .key_limit = 1, .max_waiting = 4, .overflow = TG_SHED_OLDEST},
    [FREE] = {.key_limit = 1}, /* its tokens have priorities */
    [MOVING] = {.limit = 4, .key_limit = 2, .max_waiting = 30}, /* its limit is changed; has keys, too */
};

typedef struct {
    tg_token token; /* first: a pointer to one is a pointer to the other */
    tg_extra extra;
    int op, key;
    bool holds, helps; /* its function waits to be ended; runs another token */
    atomic_int in_pool, ends, runs;
    atomic_bool shown;
} task;

typedef struct {
    tg_pool *pool;
    tg_op *ops[OPERATIONS];
    tg_key keys[OPERATIONS][KEYS];
    atomic_int inside[OPERATIONS], inside_key[OPERATIONS][KEYS];
    atomic_int starting[OPERATIONS]; /* workers that have looked whether it is barred and not yet started, or left, a token */
    atomic_int most[OPERATIONS];     /* so many inside at once; 0: no limit */
    task tasks[TOKENS];
    atomic_int live;
    tg_parker dry;
    start_line line;
    atomic_bool over, quiet;
    pthread_mutex_t lock;
    pthread_t threads[MOST_THREADS];
    size_t n_threads;
} world;

static world w;

static void obey(tg_summons s);

static task *of(tg_token *t) { return (task *)t; }

/* The reference that the pool was given. */
static void leave_pool(task *k) { CHECK(atomic_exchange(&k->in_pool, 0) == 1); }

static void ended(task *k, uint32_t state)
{
    CHECK(atomic_fetch_add(&k->ends, 1) == 0);
    tg_op_ended(k->token.op, state);
    if (atomic_fetch_sub(&w.live, 1) == 1)
        tg_unpark(&w.dry);
}

/* Ended by whom ever, and its place given back. */
static void await_end(task *k)
{
    while (atomic_load(&k->ends) == 0)
        sched_yield();
}

/* Its place and its key are free; whoever waits for them is called later, while `returning` still says so. */
static void give_place(task *k, _Atomic(uint64_t) *counter)
{
    tg_op_give_place(k->token.op, counter);
    if (k->key >= 0)
        tg_pool_give_key(w.pool, &k->token);
}

static void call_waiting(task *k)
{
    if (tg_op_gated(k->token.op))
        obey(tg_pool_freed(w.pool, k->token.op, tg_now()));
}

static bool end_token(task *k, uint32_t state, bool unstarted)
{
    tg_token *t = &k->token;
    op_watch *watch = watch_op(t->op);
    tg_step step = unstarted ? tg_word_end_unstarted(&t->word, state) : tg_word_end(&t->word, state);
    if (!step.moved)
        return false;
    switch (tg_state_of(step.old)) {
    case TG_WAITING:
        if (tg_pool_unlink(w.pool, t))
            obey(tg_pool_nudge(w.pool, tg_now()));
        leave_pool(k);
        break;
    case TG_ADMITTED:
        atomic_fetch_add(&watch->returning, 1);
        give_place(k, &t->op->dropped);
        call_waiting(k);
        atomic_fetch_sub(&watch->returning, 1);
        break;
    case TG_EXECUTING:
        atomic_fetch_add(&watch->returning, 1);
        tg_count(&t->op->abandoned_total);
        tg_op_abandoned_add(t->op, 1);
        obey(tg_pool_abandon(w.pool, t->op, tg_now()));
        atomic_fetch_sub(&watch->returning, 1);
        break;
    default:
        CHECK(tg_state_of(step.old) == TG_CREATED);
    }
    ended(k, state);
    return true;
}

/* ---- workers ------------------------------------------------------------------------------------------------- */

static task *random_task(uint64_t *seed)
{
    task *k = &w.tasks[random_below(seed, TOKENS)];
    return atomic_load(&k->shown) ? k : NULL;
}

static void enter(atomic_int *inside, int most) { CHECK(atomic_fetch_add(inside, 1) < most || most == 0); }

static void help(task *k);

static void function_body(task *k, bool nested)
{
    int op = k->op;
    CHECK(atomic_fetch_add(&k->runs, 1) == 0);
    if (k->key >= 0)
        enter(&w.inside_key[op][k->key], (int)policies[op].key_limit);
    if (k->token.id % 3 == 0)
        sched_yield();
    if (k->helps && !nested) {
        uint64_t seed = k->token.id * 2654435761u + 1;
        task *other = random_task(&seed);
        if (other != NULL && other != k)
            help(other);
    }
    for (int i = 0; k->holds && i < 50 && !tg_ended(tg_word_load(&k->token.word)); i++)
        sched_yield();
    if (k->key >= 0)
        atomic_fetch_sub(&w.inside_key[op][k->key], 1);
    atomic_fetch_sub(&w.inside[op], 1);
}

/* Runs a started token up to the return of its place. Returns whether it had been ended meanwhile. */
static bool run(task *k, bool nested, int64_t *ran)
{
    tg_token *t = &k->token;
    int64_t from = tg_now();
    tg_stamp(&t->started, from);
    function_body(k, nested);
    t->finished = tg_now();
    *ran = t->finished - from;
    tg_step step = tg_word_finish(&t->word, TG_COMPLETED);
    give_place(k, &t->op->returned);
    if (step.moved) {
        ended(k, TG_COMPLETED);
    } else {
        tg_op_abandoned_add(t->op, -1);
        tg_word_returned(&t->word);
    }
    return !step.moved;
}

static void help(task *k)
{
    op_watch *watch = watch_op(k->token.op);
    uint32_t was;
    tg_summons s;
    atomic_fetch_add(&w.starting[k->op], 1);
    bool ours = tg_pool_help(w.pool, &k->token, tg_now(), &was, &s);
    if (ours)
        enter(&w.inside[k->op], atomic_load(&w.most[k->op]));
    atomic_fetch_sub(&w.starting[k->op], 1);
    obey(s);
    if (!ours)
        return;
    if (was == TG_WAITING)
        leave_pool(k); /* else the worker that pops it does */
    atomic_fetch_add(&watch->returning, 1);
    int64_t ran;
    bool late = run(k, true, &ran);
    call_waiting(k);
    atomic_fetch_sub(&watch->returning, 1);
    if (late)
        tg_pool_unabandon(w.pool);
}

/* Starts a token that a worker has taken. */
static enum tg_start start(task *k)
{
    enum tg_start how;
    atomic_fetch_add(&w.starting[k->op], 1);
    if (tg_op_barred(k->token.op)) {
        how = tg_pool_start(w.pool, &k->token);
    } else {
        how = tg_word_try_start(&k->token.word).moved ? TG_STARTED : TG_NOT_STARTED;
        if (how == TG_STARTED)
            tg_count(&k->token.op->started);
    }
    if (how == TG_STARTED)
        enter(&w.inside[k->op], atomic_load(&w.most[k->op]));
    atomic_fetch_sub(&w.starting[k->op], 1);
    return how;
}

static void *worker(void *arg)
{
    (void)arg;
    tg_worker *me = tg_pool_enter(w.pool);
    CHECK(me != NULL);
    for (tg_token *t; (t = tg_pool_wait(w.pool, me)) != NULL;) {
        obey(tg_pool_claimed(w.pool, me));
        while (t != NULL) {
            task *k = of(t);
            tg_op *op = t->op;
            op_watch *watch = watch_op(op);
            int64_t charge = t->charge;
            tg_summons s;
            enum tg_start how = start(k);
            if (how == TG_PUT_BACK) {
                t = tg_pool_again(w.pool, me, tg_now(), &s);
            } else if (how == TG_NOT_STARTED) {
                leave_pool(k);
                t = tg_pool_skip(w.pool, me, op, charge, tg_now(), &s);
            } else {
                leave_pool(k);
                atomic_fetch_add(&watch->returning, 1);
                int64_t ran;
                bool late = run(k, false, &ran);
                t = tg_pool_next(w.pool, me, op, charge, ran, late, tg_now(), &s);
                atomic_fetch_sub(&watch->returning, 1);
            }
            obey(s);
        }
    }
    return NULL;
}

static void obey(tg_summons s)
{
    if (s.wake != NULL)
        tg_unpark(&s.wake->parker);
    if (!s.start)
        return;
    pthread_mutex_lock(&w.lock);
    CHECK(w.n_threads < MOST_THREADS);
    check_start(&w.threads[w.n_threads++], worker, NULL);
    pthread_mutex_unlock(&w.lock);
}

/* ---- submitters ---------------------------------------------------------------------------------------------- */

static void task_init(task *k, int op, uint64_t *seed)
{
    memset(&k->token, 0, sizeof k->token);
    memset(&k->extra, 0, sizeof k->extra);
    atomic_store(&k->ends, 0);
    atomic_store(&k->runs, 0);
    k->op = op;
    k->key = -1;
    tg_token_init(&k->token, w.ops[op], k, tg_pool_new_id(w.pool), 1);
    k->token.created = tg_now();
    k->holds = random_below(seed, 8) == 0;
    k->helps = random_below(seed, 4) == 0;
    if (op == KEYED || (op == MOVING && random_below(seed, 2) == 0)) {
        k->key = (int)random_below(seed, KEYS);
        k->extra.key = &w.keys[op][k->key];
        k->extra.queue = tg_pool_key_queue(w.pool, w.ops[op]);
        CHECK(k->extra.queue != NULL);
    }
    if (op == FREE)
        k->extra.priority = (int32_t)random_below(seed, 3);
    if (op == FREE || k->key >= 0) {
        k->token.extra = &k->extra;
        k->extra.token = &k->token;
    }
    atomic_store(&k->in_pool, 1);
}

/* Hands over a few tokens of one operation; the ones not taken are ended by it, like those that had to make room. */
static void submit(task *tasks, size_t count, uint64_t *seed)
{
    tg_token *tokens[BATCH];
    int op = (int)random_below(seed, OPERATIONS);
    op_watch *watch = watch_op(w.ops[op]);
    for (size_t i = 0; i < count; i++) {
        task_init(&tasks[i], op, seed);
        tokens[i] = &tasks[i].token;
    }
    atomic_fetch_add(&watch->beyond, (int)count);
    tg_receipt r = tg_pool_submit(w.pool, w.ops[op], tokens, count, random_below(seed, 4) == 0, tg_now());
    CHECK(!r.closed && r.taken <= count);
    obey(r.summons);
    for (tg_token *t = r.shed, *rest; t != NULL; t = rest) {
        rest = t->prev;
        if (end_token(of(t), TG_KILLED, false))
            tg_count(&t->op->shed);
        leave_pool(of(t));
        await_end(of(t));
    }
    atomic_fetch_sub(&watch->beyond, (int)count);
    for (size_t i = 0; i < count; i++) {
        if (i < r.taken) {
            atomic_store(&tasks[i].shown, true);
            continue;
        }
        leave_pool(&tasks[i]);
        tg_count(&w.ops[op]->submitted);
        CHECK(end_token(&tasks[i], TG_KILLED, false));
    }
}

typedef struct {
    task *tasks;
    uint64_t seed;
} submitter_of;

static void *submitter(void *arg)
{
    submitter_of *me = arg;
    start_line_wait(&w.line);
    for (size_t made = 0; made < BURST;) {
        size_t count = 1 + random_below(&me->seed, BATCH);
        count = count < BURST - made ? count : BURST - made;
        submit(me->tasks + made, count, &me->seed);
        made += count;
        if (random_below(&me->seed, 4) == 0)
            sched_yield();
    }
    return NULL;
}

/* ---- those who disturb ---------------------------------------------------------------------------------------- */

static void *canceller(void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    while (!atomic_load(&w.quiet)) {
        task *k = random_task(&seed);
        if (k != NULL && random_below(&seed, 3) == 0)
            end_token(k, TG_CANCELLED + (uint32_t)random_below(&seed, 3), random_below(&seed, 2) == 0);
        else
            sched_yield();
    }
    return NULL;
}

/* Whoever looked before the operation was barred has gone on since. */
static void await_starters(int op)
{
    while (atomic_load(&w.starting[op]) > 0)
        sched_yield();
}

static void check_pause(int op)
{
    obey(tg_pool_pause(w.pool, w.ops[op], true));
    await_starters(op);
    uint64_t started = tg_counted(&w.ops[op]->started);
    for (int i = 0; i < 10; i++)
        sched_yield();
    CHECK_EQ(tg_counted(&w.ops[op]->started), started);
    obey(tg_pool_pause(w.pool, w.ops[op], false));
}

static void check_pause_all(void)
{
    uint64_t started[OPERATIONS];
    obey(tg_pool_pause(w.pool, NULL, true));
    for (int op = 0; op < OPERATIONS; op++) {
        await_starters(op);
        started[op] = tg_counted(&w.ops[op]->started);
    }
    for (int i = 0; i < 10; i++)
        sched_yield();
    for (int op = 0; op < OPERATIONS; op++)
        CHECK_EQ(tg_counted(&w.ops[op]->started), started[op]);
    obey(tg_pool_pause(w.pool, NULL, false));
}

/* Lowers a limit; once those that are inside have come down to it, no further one is exceeded. */
static void check_lowered(uint64_t *seed)
{
    tg_policy policy = policies[MOVING];
    policy.limit = 1 + (uint32_t)random_below(seed, 3);
    policy.priority = (int32_t)random_below(seed, 3) - 1;
    obey(tg_pool_configure(w.pool, w.ops[MOVING], &policy));
    await_starters(MOVING);
    while (atomic_load(&w.inside[MOVING]) > (int)policy.limit)
        sched_yield();
    atomic_store(&w.most[MOVING], (int)policy.limit);
    for (int i = 0; i < 20; i++)
        sched_yield();
    atomic_store(&w.most[MOVING], (int)policies[MOVING].limit);
    obey(tg_pool_configure(w.pool, w.ops[MOVING], &policies[MOVING]));
}

static void discard(uint64_t *seed)
{
    tg_token *found[BATCH];
    int op = (int)random_below(seed, OPERATIONS + 1) - 1;
    for (size_t i = 0; i < OPERATIONS; i++)
        atomic_fetch_add(&watch_op(w.ops[i])->beyond, BATCH);
    size_t count = tg_pool_detach(w.pool, op < 0 ? NULL : w.ops[op], found, BATCH);
    for (size_t i = 0; i < count; i++) {
        end_token(of(found[i]), TG_KILLED, true); /* in vain if somebody was first */
        leave_pool(of(found[i]));
    }
    obey(tg_pool_nudge(w.pool, tg_now()));
    for (size_t i = 0; i < count; i++)
        await_end(of(found[i]));
    for (size_t i = 0; i < OPERATIONS; i++)
        atomic_fetch_sub(&watch_op(w.ops[i])->beyond, BATCH);
}

static void *controller(void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    while (!atomic_load(&w.quiet)) {
        switch (random_below(&seed, 8)) {
        case 0:
            check_pause((int)random_below(&seed, OPERATIONS));
            break;
        case 1:
            check_pause_all();
            break;
        case 2:
            check_lowered(&seed);
            break;
        case 3:
            if (random_below(&seed, 4) == 0)
                discard(&seed);
            break;
        case 4: {
            tg_summons s;
            tg_pool_resize(w.pool, MOST_WORKERS, 1 + (uint32_t)random_below(&seed, MOST_WORKERS), &s);
            obey(s);
            break;
        }
        default:
            check_pool(w.pool, false);
            sched_yield();
        }
    }
    return NULL;
}

/* ---- bursts -------------------------------------------------------------------------------------------------- */

static void burst(uint64_t round)
{
    pthread_t submitters[SUBMITTERS], others[2];
    submitter_of by[SUBMITTERS];
    uint64_t seeds[2] = {2 * round + 7919, 2 * round + 104729};
    atomic_store(&w.live, SUBMITTERS * BURST);
    atomic_store(&w.quiet, false);
    start_line_init(&w.line, SUBMITTERS);
    check_start(&others[0], canceller, &seeds[0]);
    check_start(&others[1], controller, &seeds[1]);
    for (int i = 0; i < SUBMITTERS; i++) {
        by[i] = (submitter_of){&w.tasks[i * BURST], 31 * round + 15485863u * (unsigned)(i + 1)};
        check_start(&submitters[i], submitter, &by[i]);
    }
    for (int i = 0; i < SUBMITTERS; i++)
        check_join(submitters[i]);
    if (round % 2 == 0) { /* nobody disturbs any more: only who returns a place can wake who waits for it */
        atomic_store(&w.quiet, true);
        check_join(others[0]);
        check_join(others[1]);
    }
    while (atomic_load(&w.live) > 0)
        tg_park(&w.dry);
    if (round % 2 != 0) {
        atomic_store(&w.quiet, true);
        check_join(others[0]);
        check_join(others[1]);
    }
}

/* Abandoned functions are still on their way out, and workers on theirs to the next token. */
static void await_return(void)
{
    for (int op = 0; op < OPERATIONS; op++)
        while (tg_op_places(w.ops[op]) != 0 || atomic_load(&watch_op(w.ops[op])->returning) != 0)
            sched_yield();
    for (bool pending = true; pending; sched_yield()) {
        tg_pool_view v;
        tg_pool_look(w.pool, &v);
        pending = v.admitted > 0 || v.idle < v.workers;
    }
}

static void check_burst(void)
{
    await_return();
    check_pool(w.pool, false);
    CHECK(w.pool->abandoned == 0 && w.pool->gate.fair.length == 0);
    for (int op = 0; op < OPERATIONS; op++) {
        tg_op *o = w.ops[op];
        uint64_t ends = 0;
        for (int s = TG_COMPLETED; s < TG_STATES; s++)
            ends += tg_counted(&o->ended[s]);
        CHECK_EQ(tg_counted(&o->submitted), ends);
        CHECK_EQ(tg_counted(&o->started), tg_counted(&o->returned));
        CHECK(o->waiting == 0 && atomic_load(&o->abandoned_now) == 0 && atomic_load(&w.inside[op]) == 0);
        for (int k = 0; k < KEYS; k++)
            CHECK(w.keys[op][k].running == 0 && w.keys[op][k].head == NULL && !w.keys[op][k].ready);
    }
    for (int i = 0; i < SUBMITTERS * BURST; i++) {
        task *k = &w.tasks[i];
        uint32_t word = tg_word_load(&k->token.word);
        CHECK(tg_ended(word) && !(word & TG_RUNNING) && atomic_load(&k->ends) == 1 && atomic_load(&k->in_pool) == 0);
        CHECK(atomic_load(&k->runs) <= 1 && !k->token.linked);
        CHECK(tg_state_of(word) != TG_COMPLETED || atomic_load(&k->runs) == 1);
        atomic_store(&k->shown, false);
    }
}

int main(int argc, char **argv)
{
    int rounds = check_rounds(argc, argv);
    pthread_mutex_init(&w.lock, NULL);
    tg_parker_init(&w.dry);
    CHECK((w.pool = tg_pool_new(MOST_WORKERS, MOST_WORKERS)) != NULL);
    for (int op = 0; op < OPERATIONS; op++) {
        CHECK((w.ops[op] = tg_pool_add_op(w.pool, 1000, &policies[op])) != NULL);
        watch_op(w.ops[op])->loose = op == MOVING;
        atomic_store(&w.most[op], (int)policies[op].limit);
    }
    for (int round = 0; round < rounds; round++) {
        burst((uint64_t)round);
        check_burst();
    }
    tg_pool_close(w.pool);
    for (size_t i = 0; i < w.n_threads; i++) /* none is started any more: nothing waits */
        check_join(w.threads[i]);
    CHECK(w.pool->workers == 0);
    tg_pool_release(w.pool);
    return 0;
}
