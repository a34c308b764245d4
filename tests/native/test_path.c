/* The whole path without an interpreter: admission, ring, worker, completion.
 *
 * Eight threads: two submitters, up to four workers started when the pool asks for them (more while abandoned runs are
 * being replaced), one that ends random tokens and moves the limits, and a loop that is told of finished tokens.
 * Every token counts its references; the last to go checks the token's whole story [P5]:
 *   it ended exactly once; it ran if and only if its end says so; whoever waited was told exactly once; the reference
 *   that the pool was given came back exactly once.
 * A lost wake-up shows in check_pool(), or as a thread that waits for ever.
 */
#include "pool_check.h"

#include "tg_inbox.h"

#define OPERATIONS 3
#define SUBMITTERS 2
#define MOST_WORKERS 4
#define SHELF 64
#define BATCH 8
#define LOOP_SLICE 16

typedef struct {
    tg_token token; /* first: a pointer to one is a pointer to the other */
    atomic_int references;
    atomic_int in_pool, ends, runs, told;
    uint32_t ended_from; /* written by who ended it, read with the last reference */
    bool waited;         /* the submitter announced a waiter for the loop */
    int outcome;         /* written by the worker before the edge [W3] */
    uint32_t kind;
    tg_parker *blocked;  /* whom to wake for TG_BLOCKED; set before it is announced */
} task;

enum { KIND_EMPTY, KIND_SHORT, KIND_YIELDS, KIND_HELPS, KIND_HOLDS };

typedef struct thread_record {
    pthread_t thread;
    struct thread_record *next;
} thread_record;

typedef struct {
    tg_pool *pool;
    tg_op *ops[OPERATIONS];
    tg_inbox inbox;
    tg_parker loop, drained;
    tg_parker blocked[SUBMITTERS]; /* here, not on a stack: a late unpark may come when its owner has gone on */
    _Atomic(task *) shelf[SHELF];  /* tokens that may be ended from outside, each with a reference */
    pthread_mutex_t threads_lock;
    thread_record *threads, **threads_end;
    start_line line;
    int each; /* tokens per submitter */
    atomic_int submitters, submitted, live;
    atomic_int to_tell, told;
    atomic_uint start_count;
    atomic_bool shake, loop_closed;
} world;

/* ---- a token's story ----------------------------------------------------------------------------------------- */

static task *task_new(world *w, tg_op *op, uint64_t id, uint32_t kind)
{
    task *k = calloc(1, sizeof *k);
    CHECK(k != NULL);
    tg_token_init(&k->token, op, k, id, 1);
    k->token.created = tg_now();
    k->kind = kind;
    atomic_init(&k->references, 1);
    atomic_fetch_add(&w->live, 1);
    return k;
}

static task *task_retain(task *k)
{
    CHECK(atomic_fetch_add_explicit(&k->references, 1, memory_order_relaxed) > 0);
    return k;
}

static void task_audit(task *k)
{
    uint32_t word = tg_word_load(&k->token.word), state = tg_state_of(word);
    bool ran = atomic_load(&k->runs) == 1;
    CHECK(tg_ended(word) && !(word & TG_RUNNING));
    CHECK(atomic_load(&k->ends) == 1);
    CHECK(atomic_load(&k->in_pool) == 0);
    CHECK(atomic_load(&k->told) == (k->waited ? 1 : 0));
    CHECK(atomic_load(&k->runs) <= 1);
    CHECK(!k->token.linked);
    if (state == TG_COMPLETED || state == TG_FAILED) {
        CHECK(k->ended_from == TG_EXECUTING && k->outcome != 0);
        CHECK((k->outcome > 0) == (state == TG_COMPLETED));
        CHECK(k->token.created <= k->token.started && k->token.started <= k->token.finished);
    }
    CHECK(ran == (k->ended_from == TG_EXECUTING));
    CHECK((k->token.admitted != 0) >= ran);
}

static void task_drop(world *w, task *k)
{
    int before = atomic_fetch_sub_explicit(&k->references, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before > 1)
        return;
    task_audit(k);
    free(k);
    atomic_fetch_sub(&w->live, 1);
}

/* The reference that tg_pool_submit was given. */
static void task_leave_pool(world *w, task *k)
{
    CHECK(atomic_exchange(&k->in_pool, 0) == 1);
    task_drop(w, k);
}

static uint64_t live_tokens(world *w)
{
    uint64_t live = 0;
    for (int i = 0; i < OPERATIONS; i++)
        live += tg_op_live(w->ops[i]);
    return live;
}

/* The winner of the ending edge, and nobody else, comes here; it holds a reference. */
static void task_ended(world *w, task *k, uint32_t old, uint32_t state)
{
    CHECK(atomic_fetch_add(&k->ends, 1) == 0);
    k->ended_from = tg_state_of(old);
    k->token.ended = tg_now();
    tg_op_ended(k->token.op, state);
    if (old & TG_WAITER) { /* [W4] */
        atomic_fetch_add(&w->to_tell, 1);
        if (tg_inbox_push(&w->inbox, &k->token, tg_now()))
            tg_unpark(&w->loop);
    }
    if (old & TG_BLOCKED)
        tg_unpark(k->blocked);
    if (tg_pool_watched(w->pool) && live_tokens(w) == 0)
        tg_unpark(&w->drained);
}

/* ---- ending, starting ------------------------------------------------------------------------------------------ */

static void obey(world *w, tg_summons s);

/* Ends a token that the caller holds a reference to, wherever it is, or only where it has not started. */
static void end_from_outside(world *w, task *k, uint32_t state, bool unstarted)
{
    tg_step step = unstarted ? tg_word_end_unstarted(&k->token.word, state) : tg_word_end(&k->token.word, state);
    if (!step.moved)
        return;
    uint32_t from = tg_state_of(step.old);
    if (from == TG_WAITING) {
        tg_pool_unlink(w->pool, &k->token); /* before the inbox: both use the token's `next` */
        task_leave_pool(w, k);
    }
    if (from == TG_ADMITTED && tg_op_give_place(k->token.op, &k->token.op->dropped))
        obey(w, tg_pool_freed(w->pool, k->token.op, tg_now()));
    task_ended(w, k, step.old, state);
    if (from == TG_EXECUTING) {
        tg_count(&k->token.op->abandoned_total);
        tg_op_abandoned_add(k->token.op, 1);
        obey(w, tg_pool_abandon(w->pool, k->token.op, tg_now()));
    }
}

static void *worker(void *arg);

/* Ends everything that waits, for want of workers or of patience. */
static void end_waiting(world *w)
{
    tg_token *found[BATCH];
    for (size_t count; (count = tg_pool_detach(w->pool, NULL, found, BATCH)) > 0;)
        for (size_t i = 0; i < count; i++) {
            end_from_outside(w, (task *)found[i], TG_KILLED, true); /* in vain if somebody was first */
            task_leave_pool(w, (task *)found[i]);
        }
}

/* Does what the pool asked for. Every 16th thread fails to start. */
static void obey(world *w, tg_summons s)
{
    if (s.wake != NULL)
        tg_unpark(&s.wake->parker);
    if (!s.start)
        return;
    if (atomic_fetch_add(&w->start_count, 1) % 16 == 15) {
        if (tg_pool_start_failed(w->pool) == 0)
            end_waiting(w);
        return;
    }
    thread_record *r = calloc(1, sizeof *r);
    CHECK(r != NULL);
    tg_pool_retain(w->pool);
    pthread_mutex_lock(&w->threads_lock);
    check_start(&r->thread, worker, w);
    *w->threads_end = r;
    w->threads_end = &r->next;
    pthread_mutex_unlock(&w->threads_lock);
}

/* ---- workers ------------------------------------------------------------------------------------------------- */

static void help(world *w, task *k);

static void function_body(world *w, task *k, bool nested)
{
    CHECK(atomic_fetch_add(&k->runs, 1) == 0);
    atomic_uint spin = 0;
    switch (k->kind) {
    case KIND_EMPTY:
        break;
    case KIND_SHORT:
        while (atomic_fetch_add_explicit(&spin, 1, memory_order_relaxed) < 300) {
        }
        break;
    case KIND_YIELDS:
        for (int i = 0; i < 3; i++)
            sched_yield();
        break;
    case KIND_HELPS: /* blocks on a token that it then runs itself, as a worker does */
        if (!nested) {
            task *other = atomic_exchange(&w->shelf[k->token.id % SHELF], NULL);
            if (other != NULL) {
                help(w, other);
                task_drop(w, other);
            }
        }
        break;
    default: /* long enough to be caught running; over as soon as it has been */
        for (int i = 0; i < 200 && !tg_ended(tg_word_load(&k->token.word)); i++)
            sched_yield();
    }
}

/* Runs a claimed token. Returns whether it had been ended meanwhile. */
static bool run(world *w, task *k, bool nested, int64_t *ran)
{
    tg_token *t = &k->token;
    tg_op *op = t->op;
    if (!nested)
        tg_count(&op->started); /* else tg_pool_help did */
    t->started = tg_now();
    tg_hist_record(&op->times.wait, (uint64_t)(t->started - t->created), (uint64_t)t->started);
    function_body(w, k, nested);
    bool fails = t->id % 7 == 0;
    k->outcome = fails ? -1 : 1;
    t->finished = tg_now();
    *ran = t->finished - t->started;
    tg_hist_record(&op->times.run, (uint64_t)*ran, (uint64_t)t->finished);
    uint32_t to = fails ? TG_FAILED : TG_COMPLETED;
    tg_step step = tg_word_finish(&t->word, to);
    if (step.moved) {
        CHECK(tg_state_of(step.old) == TG_EXECUTING);
        task_ended(w, k, step.old, to);
    } else {
        CHECK(tg_abandoned(step.old));
        tg_word_returned(&t->word);
        tg_op_abandoned_add(op, -1);
    }
    tg_op_give_place(op, &op->returned); /* tg_pool_next, or the helper, looks for who waits for it */
    return !step.moved;
}

/* Inside a function: runs a token that waits, or that lies in the ring, out of turn. */
static void help(world *w, task *k)
{
    tg_token *t = &k->token;
    uint32_t was;
    tg_summons s;
    bool ours = tg_pool_help(w->pool, t, tg_now(), &was, &s);
    obey(w, s);
    if (!ours)
        return;
    if (was == TG_WAITING)
        task_leave_pool(w, k); /* else the ring's reference goes with the ring's entry, to the worker that pops it */
    int64_t ran;
    bool late = run(w, k, true, &ran);
    if (tg_op_gated(t->op))
        obey(w, tg_pool_freed(w->pool, t->op, tg_now()));
    if (late)
        tg_pool_unabandon(w->pool);
}

static void *worker(void *arg)
{
    world *w = arg;
    tg_pool *pool = w->pool;
    tg_worker *me = tg_pool_enter(pool);
    CHECK(me != NULL);
    tg_token *t;
    while ((t = tg_pool_wait(pool, me)) != NULL) {
        obey(w, tg_pool_claimed(pool, me));
        while (t != NULL) {
            task *k = (task *)t;
            tg_op *op = t->op;
            int64_t charge = t->charge;
            tg_summons s;
            tg_step step = tg_word_try_start(&t->word);
            if (step.moved) {
                int64_t ran;
                CHECK(tg_state_of(step.old) == TG_ADMITTED);
                bool late = run(w, k, false, &ran);
                task_leave_pool(w, k);
                t = tg_pool_next(pool, me, op, charge, ran, late, tg_now(), &s);
            } else {
                /* [P5]: ended, or run by a helper, after admission: its reference is ours */
                CHECK(tg_ended(step.old) || tg_state_of(step.old) == TG_EXECUTING);
                task_leave_pool(w, k);
                t = tg_pool_skip(pool, me, op, charge, tg_now(), &s);
            }
            obey(w, s);
        }
    }
    tg_pool_release(pool);
    return NULL;
}

/* ---- callers ------------------------------------------------------------------------------------------------- */

/* [W4] from the waiter's side. */
static void announce(world *w, task *k)
{
    k->waited = true;
    task_retain(k); /* the loop's */
    if (!tg_ended(tg_word_announce(&k->token.word, TG_WAITER)))
        return;
    CHECK(atomic_fetch_add(&k->told, 1) == 0);
    task_drop(w, k);
}

static void block_on(world *w, task *k, int me)
{
    k->blocked = &w->blocked[me];
    if (!tg_ended(tg_word_announce(&k->token.word, TG_BLOCKED)))
        tg_park(k->blocked); /* exactly one unpark comes */
    CHECK(tg_ended(tg_word_load(&k->token.word)));
}

static void expose(world *w, task *k, uint64_t *seed)
{
    task *before = atomic_exchange(&w->shelf[random_below(seed, SHELF)], task_retain(k));
    if (before != NULL)
        task_drop(w, before);
}

static void refuse(world *w, task *k)
{
    task_leave_pool(w, k); /* it took nothing */
    tg_step step = tg_word_end(&k->token.word, TG_KILLED);
    CHECK(step.moved && tg_state_of(step.old) == TG_CREATED);
    tg_count(&k->token.op->submitted);
    tg_count(&k->token.op->rejected);
    task_ended(w, k, step.old, TG_KILLED);
}

static void *submitter(void *arg)
{
    world *w = arg;
    int me = atomic_fetch_add(&w->submitters, 1);
    uint64_t seed = 7919u * (unsigned)(me + 1) + tg_pool_new_ids(w->pool);
    start_line_wait(&w->line);
    for (int made = 0; made < w->each;) {
        task *batch[BATCH];
        tg_token *tokens[BATCH];
        tg_op *op = w->ops[random_below(&seed, OPERATIONS)];
        size_t count = 1 + random_below(&seed, BATCH);
        for (size_t i = 0; i < count; i++) {
            uint32_t kind = random_below(&seed, 8) == 0 ? KIND_HOLDS : (uint32_t)random_below(&seed, KIND_HOLDS);
            task *k = batch[i] = task_new(w, op, tg_pool_new_id(w->pool), kind);
            tokens[i] = &k->token;
            atomic_store(&k->in_pool, 1);
            task_retain(k); /* the pool's */
            if (random_below(&seed, 4) == 0)
                announce(w, k);
        }
        tg_receipt r = tg_pool_submit(w->pool, op, tokens, count, false, tg_now());
        CHECK(r.closed ? r.taken == 0 : r.taken == count);
        obey(w, r.summons);
        for (size_t i = 0; i < count; i++) {
            task *k = batch[i];
            if (r.closed)
                refuse(w, k);
            if (random_below(&seed, 2) == 0)
                expose(w, k, &seed);
            if (!k->waited && random_below(&seed, 4) == 0)
                announce(w, k);
            if (random_below(&seed, 16) == 0)
                block_on(w, k, me);
            task_drop(w, k);
        }
        made += (int)count;
        atomic_fetch_add(&w->submitted, (int)count);
    }
    return NULL;
}

/* ---- the one who ends tokens and moves limits ----------------------------------------------------------------- */

static void hold(void *owner) { task_retain(owner); }

/* Looks for a recent token by its number. It may start meanwhile, but is alive as long as it is held. */
static void kill_by_number(world *w, uint64_t *seed)
{
    uint64_t last = tg_pool_new_ids(w->pool), ago = random_below(seed, 2 * BATCH);
    if (ago >= last)
        return;
    tg_token *t = tg_pool_find(w->pool, last - ago, hold);
    if (t == NULL)
        return;
    CHECK(t->id == last - ago);
    end_from_outside(w, (task *)t, TG_KILLED, true);
    task_drop(w, (task *)t);
}

static void *shaker(void *arg)
{
    world *w = arg;
    uint64_t seed = 104729;
    for (unsigned turn = 0; atomic_load(&w->shake); turn++) {
        task *k = atomic_exchange(&w->shelf[random_below(&seed, SHELF)], NULL);
        if (k != NULL) {
            end_from_outside(w, k, TG_CANCELLED + (uint32_t)random_below(&seed, 3), random_below(&seed, 4) == 0);
            task_drop(w, k);
        } else {
            sched_yield();
        }
        if (turn % 8 == 0)
            check_pool(w->pool, true);
        if (turn % 8 == 4)
            kill_by_number(w, &seed);
        if (turn % 32 == 0) {
            tg_summons s;
            uint32_t most = 2 + (uint32_t)random_below(&seed, MOST_WORKERS - 1);
            tg_pool_resize(w->pool, most, 1 + (uint32_t)random_below(&seed, most), &s);
            obey(w, s);
        }
    }
    return NULL;
}

/* ---- the loop ------------------------------------------------------------------------------------------------ */

static void *loop(void *arg)
{
    world *w = arg;
    tg_token *kept = NULL;
    for (;;) {
        if (kept == NULL) {
            kept = tg_inbox_take(&w->inbox);
            if (kept == NULL) {
                if (atomic_load(&w->loop_closed))
                    return NULL;
                tg_park(&w->loop);
                continue;
            }
        }
        for (int n = 0; kept != NULL && n < LOOP_SLICE; n++) {
            task *k = (task *)kept;
            kept = kept->next; /* read first: the token may be gone with the reference */
            CHECK(tg_ended(tg_word_load(&k->token.word)));
            CHECK(atomic_fetch_add(&k->told, 1) == 0);
            task_drop(w, k);
            atomic_fetch_add(&w->told, 1);
        }
        if (kept != NULL)
            tg_inbox_arm(&w->inbox, tg_now());
    }
}

/* ---- rounds -------------------------------------------------------------------------------------------------- */

enum { STOP_DRAINS, STOP_RUNS_OUT, STOP_DISCARDS, STOP_IN_MIDST, STOPS };

static void join_workers(world *w)
{
    for (;;) {
        pthread_mutex_lock(&w->threads_lock);
        thread_record *r = w->threads;
        if (r != NULL && (w->threads = r->next) == NULL)
            w->threads_end = &w->threads;
        pthread_mutex_unlock(&w->threads_lock);
        if (r == NULL)
            return; /* a worker that starts another does so before it ends, so none can follow */
        check_join(r->thread);
        free(r);
    }
}

/* Nothing moves any more: the accounts must close. */
static void check_accounts(world *w)
{
    tg_pool *p = w->pool;
    tg_pool_view view;
    check_pool(p, true);
    tg_pool_look(p, &view);
    CHECK(view.workers == 0 && view.idle == 0 && view.queued == 0 && view.admitted == 0);
    CHECK(!p->waking && p->abandoned == 0);
    for (int i = 0; i < OPERATIONS; i++) {
        tg_op *op = w->ops[i];
        uint64_t ended = 0;
        for (int s = TG_COMPLETED; s < TG_STATES; s++)
            ended += tg_counted(&op->ended[s]);
        CHECK_EQ(tg_counted(&op->submitted), ended);
        CHECK(tg_op_live(op) == 0);
        CHECK_EQ(tg_counted(&op->admitted), tg_counted(&op->started) + tg_counted(&op->dropped));
        CHECK_EQ(tg_counted(&op->started), tg_counted(&op->returned));
        CHECK(atomic_load(&op->abandoned_now) == 0);
    }
}

static void play(world *w, int stop)
{
    pthread_t submitters[SUBMITTERS], shaking;
    atomic_store(&w->submitters, 0);
    atomic_store(&w->submitted, 0);
    atomic_store(&w->shake, true);
    start_line_init(&w->line, SUBMITTERS);
    check_start(&shaking, shaker, w);
    for (int i = 0; i < SUBMITTERS; i++)
        check_start(&submitters[i], submitter, w);
    if (stop == STOP_IN_MIDST) {
        while (atomic_load(&w->submitted) < w->each / 2)
            sched_yield();
        tg_pool_close(w->pool);
    }
    for (int i = 0; i < SUBMITTERS; i++)
        check_join(submitters[i]);
    if (stop == STOP_DRAINS) {
        tg_pool_watch(w->pool, true);
        while (live_tokens(w) > 0)
            tg_park(&w->drained);
        tg_pool_watch(w->pool, false);
    }
    if (stop == STOP_DISCARDS) {
        tg_pool_refuse(w->pool);
        end_waiting(w);
    }
    tg_pool_close(w->pool);
    join_workers(w); /* hangs if a worker sleeps through the close */
    atomic_store(&w->shake, false);
    check_join(shaking);
    join_workers(w); /* those that an abandonment called for */
    for (int i = 0; i < SHELF; i++) {
        task *k = atomic_exchange(&w->shelf[i], NULL);
        if (k != NULL)
            task_drop(w, k);
    }
    while (atomic_load(&w->told) < atomic_load(&w->to_tell))
        sched_yield();
    CHECK(atomic_load(&w->live) == 0);
    tg_pool_open(w->pool);
}

int main(int argc, char **argv)
{
    static world w;
    pthread_t looping;
    w.each = check_rounds(argc, argv);
    w.threads_end = &w.threads;
    pthread_mutex_init(&w.threads_lock, NULL);
    tg_inbox_init(&w.inbox);
    tg_parker_init(&w.loop);
    tg_parker_init(&w.drained);
    for (int i = 0; i < SUBMITTERS; i++)
        tg_parker_init(&w.blocked[i]);
    CHECK((w.pool = tg_pool_new(MOST_WORKERS, MOST_WORKERS)) != NULL);
    for (int i = 0; i < OPERATIONS; i++)
        CHECK((w.ops[i] = tg_pool_add_op(w.pool, 1000, &(tg_policy){.key_limit = 1})) != NULL);
    check_start(&looping, loop, &w);
    for (int round = 0; round < 2 * STOPS; round++) {
        play(&w, round % STOPS);
        check_accounts(&w);
    }
    atomic_store(&w.loop_closed, true);
    tg_unpark(&w.loop);
    check_join(looping);
    tg_pool_release(w.pool);
    return 0;
}
