/* The pool, one rule at a time. The test thread plays the submitter, the gate and the callers; workers are puppets that
 * do nothing but wait for a token when told to, so that every step has one outcome. */
#include "pool_check.h"

#define PUPPETS 6
#define MS 1000000
#define UNIT TG_SETTLE_NS /* the shortest run after which a worker settles its account at once */

/* ---- tokens -------------------------------------------------------------------------------------------------- */

/* References are not counted here (test_path.c does): tokens live in this store until the test ends. */
static tg_token store[4096];
static size_t stored;

static tg_token *token_new(tg_op *op)
{
    CHECK(stored < sizeof store / sizeof store[0]);
    tg_token *t = &store[stored];
    memset(t, 0, sizeof *t);
    tg_token_init(t, op, NULL, stored++, 1);
    t->created = tg_now();
    return t;
}

/* Submits `count` new tokens and returns the first; the others follow it in the store. */
static tg_token *submit(tg_pool *p, tg_op *op, size_t count, tg_summons *s)
{
    tg_token *tokens[512];
    CHECK(count <= 512);
    for (size_t i = 0; i < count; i++)
        tokens[i] = token_new(op);
    tg_receipt r = tg_pool_submit(p, op, tokens, count, false, tg_now());
    CHECK(r.taken == count && !r.closed && r.shed == NULL);
    *s = r.summons;
    check_pool(p, false);
    return tokens[0];
}

static const tg_policy FREE = {.key_limit = 1}; /* no limit of any kind */

static bool nobody(tg_summons s) { return s.wake == NULL && !s.start; }

/* Hands over one token; false: the pool takes nothing any more. */
static bool submit_one(tg_pool *p, tg_op *op, tg_token *t, tg_summons *s)
{
    tg_receipt r = tg_pool_submit(p, op, &t, 1, false, tg_now());
    CHECK(r.closed == (r.taken == 0) && r.shed == NULL);
    *s = r.summons;
    return !r.closed;
}

/* A pool whose ring holds two tokens: with short ones, that many are admitted ahead, however many the lane would take. */
static tg_pool *pool_new(uint32_t most, uint32_t limit)
{
    tg_pool *p = tg_pool_new(most, limit);
    CHECK(p != NULL);
    tg_ring_destroy(&p->ring);
    CHECK(tg_ring_init(&p->ring, 2));
    return p;
}

/* An operation of such tokens. */
static tg_op *op_new(tg_pool *p)
{
    tg_op *op = tg_pool_add_op(p, 1000, &FREE);
    CHECK(op != NULL);
    op->measured = true;
    return op;
}

/* Takes one token out that has not started; NULL: there is none. */
static tg_token *detach(tg_pool *p, tg_op *only)
{
    tg_token *t = NULL;
    return tg_pool_detach(p, only, &t, 1) == 1 ? t : NULL;
}

static uint32_t state(tg_token *t) { return tg_state_of(tg_word_load(&t->word)); }

/* A caller's cancel, wherever the token is. */
static tg_summons cancel(tg_pool *p, tg_token *t)
{
    tg_step step = tg_word_end(&t->word, TG_CANCELLED);
    CHECK(step.moved);
    if (tg_state_of(step.old) == TG_WAITING)
        tg_pool_unlink(p, t);
    if (tg_state_of(step.old) == TG_ADMITTED)
        CHECK(!tg_op_give_place(t->op, &t->op->dropped)); /* no operation here has a limit */
    if (tg_state_of(step.old) == TG_EXECUTING) {
        tg_op_abandoned_add(t->op, 1);
        return tg_pool_abandon(p, t->op, tg_now());
    }
    return (tg_summons){NULL, false, false, false};
}

/* ---- puppets ------------------------------------------------------------------------------------------------- */

enum { PUPPET_AWAY, PUPPET_WAITS, PUPPET_HOLDS, PUPPET_LEFT };

typedef struct {
    tg_pool *pool;
    tg_worker *worker;
    tg_token *token;
    tg_parker go;
    atomic_int at;
    pthread_t thread;
} puppet;

static void *puppet_body(void *arg)
{
    puppet *u = arg;
    u->worker = tg_pool_enter(u->pool);
    CHECK(u->worker != NULL);
    for (;;) {
        tg_token *t = u->token = tg_pool_wait(u->pool, u->worker);
        atomic_store(&u->at, t != NULL ? PUPPET_HOLDS : PUPPET_LEFT);
        if (t == NULL)
            return NULL;
        tg_park(&u->go);
    }
}

/* Until the puppet holds a token, has left, or sleeps among the idle. Returns its token. */
static tg_token *settle(puppet *u)
{
    for (;; sched_yield()) {
        int at = atomic_load(&u->at);
        if (at == PUPPET_LEFT) {
            check_join(u->thread);
            atomic_store(&u->at, PUPPET_AWAY);
        }
        if (at != PUPPET_WAITS)
            break;
        bool idle = false;
        tg_mutex_lock(&u->pool->lock);
        for (tg_worker *w = u->pool->idle; w != NULL; w = w->next_idle)
            idle |= w == u->worker;
        tg_mutex_unlock(&u->pool->lock);
        if (idle)
            return NULL;
    }
    return atomic_load(&u->at) == PUPPET_HOLDS ? u->token : NULL;
}

/* The thread that a summons asked for. */
static tg_token *enter(puppet *u, tg_pool *p)
{
    CHECK(atomic_load(&u->at) == PUPPET_AWAY);
    u->pool = p;
    tg_parker_init(&u->go);
    atomic_store(&u->at, PUPPET_WAITS);
    check_start(&u->thread, puppet_body, u);
    return settle(u);
}

static tg_token *wake(puppet *u, tg_summons s)
{
    CHECK(s.wake == u->worker && !s.start);
    tg_unpark(&s.wake->parker);
    return settle(u);
}

/* The token it holds has been dealt with, and nothing else was left: it waits. */
static tg_token *wait_again(puppet *u)
{
    u->token = NULL;
    atomic_store(&u->at, PUPPET_WAITS);
    tg_unpark(&u->go);
    return settle(u);
}

static void start(puppet *u)
{
    tg_step step = tg_word_try_start(&u->token->word);
    CHECK(step.moved && tg_state_of(step.old) == TG_ADMITTED);
    tg_count(&u->token->op->started);
}

/* Its function has run for `ran` ns. Returns the next token, which the puppet then holds. */
static tg_token *finish_measured(puppet *u, int64_t ran, tg_summons *s)
{
    tg_token *t = u->token;
    bool late = !tg_word_finish(&t->word, TG_COMPLETED).moved;
    CHECK(!tg_op_give_place(t->op, &t->op->returned));
    if (late) {
        tg_op_abandoned_add(t->op, -1);
        tg_word_returned(&t->word);
    }
    return u->token = tg_pool_next(u->pool, u->worker, t->op, t->charge, ran, late, tg_now(), s);
}

/* The same in a test that does not care for time: its tokens stay short. */
static tg_token *finish(puppet *u, int64_t ran, tg_summons *s)
{
    u->token->op->mean = 0;
    return finish_measured(u, ran, s);
}

static void run_all(puppet *u)
{
    tg_summons s;
    do
        start(u);
    while (finish(u, UNIT, &s) != NULL);
    CHECK(nobody(s));
}

static bool away(puppet *u) { return atomic_load(&u->at) == PUPPET_AWAY; }

static void close_all(tg_pool *p, puppet *u, int count)
{
    tg_pool_close(p);
    for (int i = 0; i < count; i++)
        if (!away(&u[i])) {
            CHECK(settle(&u[i]) == NULL);
            CHECK(away(&u[i]));
        }
    CHECK(p->workers == 0 && p->n_idle == 0 && p->idle == NULL && !p->waking);
    tg_pool_release(p);
    stored = 0;
}

/* A pool in which `idle` puppets sleep. */
static tg_pool *pool_with_idle(uint32_t most, uint32_t limit, puppet *u, int idle, tg_op **op)
{
    tg_summons s;
    tg_pool *p = pool_new(most, (uint32_t)idle);
    *op = op_new(p);
    if (idle > 0) {
        submit(p, *op, (size_t)idle, &s);
        for (int i = 0; i < idle; i++) {
            CHECK(s.start && enter(&u[i], p) != NULL);
            s = tg_pool_claimed(p, u[i].worker);
        }
        for (int i = 0; i < idle; i++) {
            start(&u[i]);
            CHECK(finish(&u[i], UNIT, &s) == NULL && nobody(s) && wait_again(&u[i]) == NULL);
        }
    }
    tg_pool_resize(p, most, limit, &s);
    CHECK(nobody(s) && p->n_idle == (uint32_t)idle && p->workers == (uint32_t)idle);
    check_pool(p, false);
    return p;
}

/* ---- waking -------------------------------------------------------------------------------------------------- */

static void test_one_wake_per_work(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_pool *p = pool_new(4, 4);
    tg_summons s;
    op = op_new(p);
    submit(p, op, 1, &s);
    CHECK(s.start && s.wake == NULL);
    submit(p, op, 1, &s);
    CHECK(nobody(s)); /* [P3]: one is on its way */
    CHECK(enter(&u[0], p) == &store[0]);
    CHECK(p->waking);
    submit(p, op, 1, &s);
    CHECK(nobody(s)); /* it has claimed, but could not run yet */
    s = tg_pool_claimed(p, u[0].worker);
    CHECK(s.start); /* now the next, for there is more work */
    CHECK(enter(&u[1], p) == &store[1]);
    s = tg_pool_claimed(p, u[1].worker);
    CHECK(s.start);
    CHECK(enter(&u[2], p) == &store[2]);
    s = tg_pool_claimed(p, u[2].worker);
    CHECK(nobody(s)); /* three tokens, three workers */
    CHECK_EQ(p->wakes, 3);
    for (int i = 0; i < 3; i++) {
        start(&u[i]);
        CHECK(finish(&u[i], UNIT, &s) == NULL && nobody(s));
        CHECK(wait_again(&u[i]) == NULL && !away(&u[i]));
    }
    submit(p, op, 1, &s);
    tg_summons first = s;
    CHECK(first.wake == u[2].worker); /* the one that fell asleep last is the warmest */
    submit(p, op, 1, &s);
    CHECK(nobody(s));
    CHECK_EQ(p->n_idle, 2);
    CHECK(wake(&u[2], first) != NULL);
    s = tg_pool_claimed(p, u[2].worker);
    CHECK(s.wake == u[1].worker && wake(&u[1], s) != NULL);
    CHECK(nobody(tg_pool_claimed(p, u[1].worker)));
    CHECK_EQ(p->wakes, 5); /* five tokens: three started, two woken */
    for (int i = 1; i < 3; i++) {
        run_all(&u[i]);
        CHECK(wait_again(&u[i]) == NULL);
    }
    close_all(p, u, PUPPETS);
}

/* A busy worker takes what comes after without anybody being woken for it. */
static void test_woken_for_nothing(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s, last;
    tg_pool *p = pool_with_idle(4, 4, u, 2, &op);
    submit(p, op, 1, &s);
    CHECK(wake(&u[1], s) != NULL && nobody(tg_pool_claimed(p, u[1].worker)));
    start(&u[1]);
    submit(p, op, 1, &last);
    CHECK(last.wake == u[0].worker);
    CHECK(finish(&u[1], UNIT, &s) != NULL && nobody(s)); /* it was faster than the one on its way */
    CHECK(wake(&u[0], last) == NULL && !away(&u[0]));  /* which goes back to sleep */
    CHECK(!p->waking);                                 /* and is no longer expected */
    submit(p, op, 1, &s);
    CHECK(wake(&u[0], s) != NULL && nobody(tg_pool_claimed(p, u[0].worker)));
    run_all(&u[0]);
    run_all(&u[1]);
    CHECK(wait_again(&u[0]) == NULL && wait_again(&u[1]) == NULL);
    close_all(p, u, PUPPETS);
}

/* The first half of a pop, as a consumer stopped in the middle of it leaves the ring. */
static void *half_pop(tg_ring *r, size_t *ticket)
{
    *ticket = atomic_fetch_add(&r->head, 1);
    CHECK(atomic_load(&r->slots[*ticket & r->mask].stamp) == *ticket + 1);
    return r->slots[*ticket & r->mask].value;
}

static void rest_of_pop(tg_ring *r, size_t ticket)
{
    atomic_store(&r->slots[ticket & r->mask].stamp, ticket + r->mask + 1);
}

/* [P4] Two workers each hold the slot that they pop from, and may be busy for long after: the ring is empty and has no
 * room, yet tokens wait. An idle worker must come for them, and must get them. */
static void test_ring_held_by_poppers(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s;
    tg_pool *p = pool_with_idle(4, 0, u, 2, &op);
    size_t ticket[2];
    submit(p, op, 5, &s);
    CHECK(nobody(s) && tg_ring_length(&p->ring) == 2); /* the limit is 0 so far */
    CHECK(half_pop(&p->ring, &ticket[0]) == &store[stored - 5]);
    CHECK(half_pop(&p->ring, &ticket[1]) == &store[stored - 4]);
    CHECK(tg_ring_length(&p->ring) == 0 && !tg_ring_has_room(&p->ring));
    tg_pool_resize(p, 4, 2, &s);
    CHECK(s.wake != NULL);
    CHECK(wake(&u[1], s) == &store[stored - 3]); /* past the ring, in order */
    s = tg_pool_claimed(p, u[1].worker);
    CHECK(wake(&u[0], s) == &store[stored - 2]);
    CHECK(nobody(tg_pool_claimed(p, u[0].worker)));
    start(&u[1]);
    CHECK(finish(&u[1], UNIT, &s) == &store[stored - 1] && nobody(s));
    rest_of_pop(&p->ring, ticket[0]);
    rest_of_pop(&p->ring, ticket[1]);
    run_all(&u[0]);
    run_all(&u[1]);
    CHECK(wait_again(&u[0]) == NULL && wait_again(&u[1]) == NULL);
    close_all(p, u, PUPPETS);
}

static void test_limit(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s;
    tg_pool *p = pool_with_idle(4, 2, u, 3, &op);
    submit(p, op, 10, &s);
    CHECK(wake(&u[2], s) != NULL);
    s = tg_pool_claimed(p, u[2].worker);
    CHECK(wake(&u[1], s) != NULL);
    CHECK(nobody(tg_pool_claimed(p, u[1].worker))); /* two are active */
    tg_pool_resize(p, 4, 1, &s);
    CHECK(nobody(s));
    start(&u[1]);
    CHECK(finish(&u[1], UNIT, &s) == NULL && nobody(s)); /* one too many: it stops here */
    CHECK(wait_again(&u[1]) == NULL && !away(&u[1]));
    start(&u[2]);
    CHECK(finish(&u[2], UNIT, &s) != NULL && nobody(s));
    check_pool(p, false);
    tg_pool_resize(p, 4, 3, &s); /* a greater limit takes effect at once, one worker at a time */
    CHECK(wake(&u[1], s) != NULL);
    s = tg_pool_claimed(p, u[1].worker);
    CHECK(wake(&u[0], s) != NULL);
    CHECK(nobody(tg_pool_claimed(p, u[0].worker)));
    check_pool(p, false);
    for (int i = 0; i < 3; i++) { /* the first runs the queue dry, the others what they hold */
        run_all(&u[i]);
        CHECK(wait_again(&u[i]) == NULL);
    }
    close_all(p, u, PUPPETS);
}

static void test_start_failed(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s;
    tg_pool *p = pool_new(4, 4);
    op = op_new(p);
    submit(p, op, 5, &s);
    CHECK(s.start && p->workers == 1);
    CHECK_EQ(tg_pool_start_failed(p), 0);
    CHECK(!p->waking && p->workers == 0);
    /* nobody will ever come: the caller gets all of them, those in the ring too */
    bool seen[5] = {false};
    tg_token *t;
    while ((t = detach(p, NULL)) != NULL) {
        CHECK(state(t) == TG_ADMITTED && !seen[t->id]);
        seen[t->id] = true;
    }
    for (int i = 0; i < 5; i++)
        CHECK(seen[i]);
    CHECK_EQ(tg_counted(&op->admitted), 5);
    submit(p, op, 3, &s); /* the next one tries again */
    CHECK(s.start && enter(&u[0], p) != NULL);
    CHECK(tg_pool_claimed(p, u[0].worker).start);
    CHECK_EQ(tg_pool_start_failed(p), 1);
    start(&u[0]);
    CHECK(finish(&u[0], UNIT, &s) != NULL && s.start); /* and a worker that goes on, as long as work remains */
    CHECK_EQ(tg_pool_start_failed(p), 1);
    start(&u[0]);
    CHECK(finish(&u[0], UNIT, &s) != NULL && nobody(s));
    run_all(&u[0]);
    CHECK(wait_again(&u[0]) == NULL);
    close_all(p, u, PUPPETS);
}

/* The worker that could not start had the place of one that went idle as surplus meanwhile. */
static void test_start_failed_place(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s;
    tg_pool *p = pool_with_idle(4, 3, u, 2, &op);
    submit(p, op, 9, &s);
    CHECK(wake(&u[1], s) != NULL);
    s = tg_pool_claimed(p, u[1].worker);
    CHECK(wake(&u[0], s) != NULL);
    CHECK(tg_pool_claimed(p, u[0].worker).start);
    tg_pool_resize(p, 4, 2, &s);
    CHECK(nobody(s));
    start(&u[0]);
    CHECK(finish(&u[0], UNIT, &s) == NULL && nobody(s) && wait_again(&u[0]) == NULL);
    CHECK(p->n_idle == 1);
    CHECK_EQ(tg_pool_start_failed(p), 2);
    CHECK(p->n_idle == 0 && p->waking);
    while (settle(&u[0]) == NULL) /* woken by the pool itself */
        sched_yield();
    CHECK(nobody(tg_pool_claimed(p, u[0].worker)));
    run_all(&u[0]);
    run_all(&u[1]);
    CHECK(wait_again(&u[0]) == NULL && wait_again(&u[1]) == NULL);
    close_all(p, u, PUPPETS);
}

/* ---- abandoned runs ------------------------------------------------------------------------------------------ */

static void test_abandon(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s;
    tg_pool *p = pool_with_idle(1, 1, u, 1, &op);
    tg_token *stuck = submit(p, op, 3, &s);
    CHECK(wake(&u[0], s) == stuck && nobody(tg_pool_claimed(p, u[0].worker)));
    start(&u[0]);
    s = cancel(p, stuck);
    CHECK(tg_abandoned(tg_word_load(&stuck->word)));
    CHECK(s.start); /* its place goes to another, beyond the greatest number of workers */
    check_pool(p, false);
    CHECK(enter(&u[1], p) == stuck + 1 && nobody(tg_pool_claimed(p, u[1].worker)));
    CHECK_EQ(p->workers, 2);
    start(&u[1]);
    CHECK(finish(&u[0], 5 * UNIT, &s) == NULL && nobody(s)); /* returns at last: one too many */
    CHECK(state(stuck) == TG_CANCELLED && !tg_abandoned(tg_word_load(&stuck->word)));
    CHECK_EQ(p->abandoned, 0);
    CHECK(wait_again(&u[0]) == NULL && away(&u[0]));
    CHECK_EQ(p->workers, 1);
    CHECK(finish(&u[1], UNIT, &s) == stuck + 2 && nobody(s));
    run_all(&u[1]);
    CHECK(wait_again(&u[1]) == NULL);
    close_all(p, u, PUPPETS);
}

/* The return is counted before the abandonment: the account is off by one for a moment, and nothing else. */
static void test_return_before_abandon(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s;
    tg_pool *p = pool_with_idle(1, 1, u, 1, &op);
    tg_token *t = submit(p, op, 2, &s);
    CHECK(wake(&u[0], s) == t && nobody(tg_pool_claimed(p, u[0].worker)));
    start(&u[0]);
    CHECK(tg_word_end(&t->word, TG_KILLED).moved);
    CHECK(finish(&u[0], UNIT, &s) == t + 1 && nobody(s));
    CHECK(p->abandoned == -1 && tg_pool_replaced(p) == 0);
    check_pool(p, false);
    CHECK(nobody(tg_pool_abandon(p, op, tg_now())));
    CHECK_EQ(p->abandoned, 0);
    run_all(&u[0]);
    CHECK(wait_again(&u[0]) == NULL);
    close_all(p, u, PUPPETS);
}

static void test_replacements_are_bounded(void)
{
    tg_op *op;
    tg_pool *p = pool_with_idle(4, 4, NULL, 0, &op);
    p->abandoned = TG_REPLACEMENTS + 100;
    p->workers = TG_REPLACEMENTS + 100;
    CHECK_EQ(tg_pool_replaced(p), TG_REPLACEMENTS);
    tg_summons s;
    CHECK(submit_one(p, op, token_new(op), &s));
    CHECK(nobody(s)); /* 100 stuck workers more than are replaced: the lane has shrunk to nothing */
    p->abandoned = TG_REPLACEMENTS;
    p->workers = TG_REPLACEMENTS + 3;
    CHECK(tg_pool_abandon(p, op, 1).start == true);
    CHECK(p->workers == TG_REPLACEMENTS + 4);
    p->abandoned = 0;
    p->workers = 1;
    CHECK_EQ(tg_pool_start_failed(p), 0);
    while (detach(p, NULL) != NULL) {
    }
    close_all(p, NULL, 0);
}

/* ---- taking tokens out --------------------------------------------------------------------------------------- */

static void test_unlink(void)
{
    tg_op *op;
    tg_summons s;
    tg_pool *p = pool_with_idle(1, 0, NULL, 0, &op);
    tg_token *t = submit(p, op, 7, &s); /* the first two are admitted */
    CHECK(nobody(s) && op->waiting == 5 && tg_ring_length(&p->ring) == 2);
    cancel(p, &t[4]); /* from the middle */
    check_pool(p, false);
    cancel(p, &t[2]); /* the head */
    check_pool(p, false);
    cancel(p, &t[6]); /* the tail */
    check_pool(p, false);
    CHECK(op->main.head == &t[3] && op->main.tail == &t[5] && op->waiting == 2);
    tg_pool_unlink(p, &t[4]); /* again: nothing to do */
    CHECK_EQ(op->waiting, 2);
    cancel(p, &t[0]); /* in the ring: whoever pops it sees that */
    CHECK(op->waiting == 2 && tg_ring_length(&p->ring) == 2);
    cancel(p, &t[3]);
    cancel(p, &t[5]);
    CHECK(op->main.head == NULL && op->main.tail == NULL && op->main.heap_at == 0 && p->gate.fair.length == 0);
    check_pool(p, false);
    CHECK(tg_ring_pop(&p->ring) == &t[0] && tg_ring_pop(&p->ring) == &t[1]);
    close_all(p, NULL, 0);
}

/* [P5] Ended, but its ender has not come for it yet: admission throws it out of the queue and leaves it alone. */
static void test_ended_in_queue(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s;
    tg_pool *p = pool_with_idle(1, 0, u, 1, &op);
    tg_token *t = submit(p, op, 6, &s);
    CHECK(tg_word_end(&t[2].word, TG_EXPIRED).moved && tg_word_end(&t[3].word, TG_EXPIRED).moved);
    tg_pool_resize(p, 1, 1, &s);
    CHECK(wake(&u[0], s) == &t[0] && nobody(tg_pool_claimed(p, u[0].worker)));
    CHECK(!t[2].linked && !t[3].linked && t[2].admitted == 0);
    tg_pool_unlink(p, &t[2]);
    tg_pool_unlink(p, &t[3]);
    check_pool(p, false);
    start(&u[0]);
    CHECK(finish(&u[0], UNIT, &s) == &t[1]);
    start(&u[0]);
    CHECK(finish(&u[0], UNIT, &s) == &t[4]);
    start(&u[0]);
    CHECK(finish(&u[0], UNIT, &s) == &t[5]);
    run_all(&u[0]);
    CHECK_EQ(tg_counted(&op->admitted), 1 + 4); /* the one that brought the puppet, and these */
    CHECK(wait_again(&u[0]) == NULL);
    close_all(p, u, PUPPETS);
}

/* Ended after admission: the worker that pops it skips it, and the operation gets its charge back. */
static void test_skip(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s;
    tg_pool *p = pool_with_idle(1, 1, u, 1, &op);
    tg_token *t = submit(p, op, 2, &s);
    CHECK(wake(&u[0], s) == t && nobody(tg_pool_claimed(p, u[0].worker)));
    uint64_t service = op->service;
    cancel(p, t);
    CHECK(!tg_word_try_start(&t->word).moved);
    u[0].token = tg_pool_skip(p, u[0].worker, op, t->charge, tg_now(), &s);
    CHECK(u[0].token == t + 1 && nobody(s));
    CHECK(t->charge > 0);
    CHECK_EQ(op->service, service - (uint64_t)t->charge);
    run_all(&u[0]);
    CHECK(wait_again(&u[0]) == NULL);
    close_all(p, u, PUPPETS);
}

static void test_detach(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *one, *two;
    tg_summons s;
    tg_pool *p = pool_with_idle(1, 0, u, 1, &one);
    two = op_new(p);
    tg_token *a = submit(p, one, 5, &s), *b = submit(p, two, 2, &s);
    CHECK(tg_ring_length(&p->ring) == 2 && one->waiting == 3 && two->waiting == 2);
    CHECK_EQ(tg_pool_unstarted(p, NULL), 7);
    CHECK_EQ(tg_pool_unstarted(p, two), 4); /* the ring might hold its own */
    CHECK(detach(p, two) == &b[0]);
    CHECK(tg_ring_length(&p->ring) == 0); /* what is not its own goes back to its queue, in order */
    CHECK(one->waiting == 5 && one->main.head == &a[0] && a[0].next == &a[1] && state(&a[0]) == TG_WAITING);
    CHECK_EQ(tg_pool_unstarted(p, two), 1);
    cancel(p, &a[1]);
    CHECK(tg_word_end(&a[2].word, TG_CANCELLED).moved); /* its ender is on the way */
    CHECK(detach(p, one) == &a[0] && state(&a[0]) == TG_ADMITTED);
    CHECK(detach(p, one) == &a[3]);             /* the oldest that still waits */
    CHECK(state(&a[3]) == TG_ADMITTED && !a[3].linked);
    tg_pool_unlink(p, &a[2]);
    check_pool(p, false);
    tg_token *x = detach(p, NULL), *y = detach(p, NULL);
    CHECK((x == &a[4] && y == &b[1]) || (x == &b[1] && y == &a[4]));
    CHECK_EQ(tg_counted(&two->admitted), 2);
    CHECK(detach(p, NULL) == NULL);
    CHECK_EQ(tg_counted(&one->admitted), 1 + 3); /* with the one that brought the puppet */
    a = submit(p, one, 2, &s);
    CHECK(tg_ring_length(&p->ring) == 2);
    cancel(p, &a[1]);
    CHECK(detach(p, one) == &a[0] && state(&a[0]) == TG_ADMITTED);  /* from the ring */
    CHECK(detach(p, one) == &a[1] && state(&a[1]) == TG_CANCELLED); /* with the ring's reference */
    CHECK(detach(p, one) == NULL && tg_ring_length(&p->ring) == 0);
    CHECK_EQ(tg_counted(&one->admitted), 1 + 5);
    check_pool(p, false);
    close_all(p, u, PUPPETS);
}

/* ---- fewer, none, again -------------------------------------------------------------------------------------- */

static void test_resize(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s;
    tg_pool *p = pool_with_idle(4, 4, u, 4, &op);
    submit(p, op, 1, &s);
    CHECK(wake(&u[3], s) != NULL && nobody(tg_pool_claimed(p, u[3].worker)));
    start(&u[3]);
    tg_pool_resize(p, 2, 2, &s);
    CHECK(nobody(s));
    /* two too many: both are idle, so they leave at once; the third sleeps on */
    CHECK(settle(&u[2]) == NULL && settle(&u[1]) == NULL && settle(&u[0]) == NULL);
    while (!away(&u[2]) || !away(&u[1])) {
        CHECK(settle(&u[2]) == NULL && settle(&u[1]) == NULL);
        sched_yield();
    }
    CHECK(!away(&u[0]) && p->workers == 2 && p->n_idle == 1);
    tg_pool_resize(p, 0, 0, &s);
    while (!away(&u[0])) {
        CHECK(settle(&u[0]) == NULL);
        sched_yield();
    }
    CHECK_EQ(p->workers, 1); /* the busy one leaves when it has run */
    CHECK(finish(&u[3], UNIT, &s) == NULL && nobody(s));
    CHECK(wait_again(&u[3]) == NULL && away(&u[3]) && p->workers == 0);
    submit(p, op, 3, &s);
    CHECK(nobody(s));
    tg_pool_resize(p, 2, 2, &s);
    CHECK(s.start && enter(&u[0], p) != NULL);
    CHECK(u[0].worker->index < 4 && p->records == 4); /* a record is used again */
    s = tg_pool_claimed(p, u[0].worker);
    CHECK(s.start && enter(&u[1], p) != NULL);
    CHECK(nobody(tg_pool_claimed(p, u[1].worker)));
    run_all(&u[0]);
    run_all(&u[1]);
    CHECK(wait_again(&u[0]) == NULL && wait_again(&u[1]) == NULL);
    close_all(p, u, PUPPETS);
}

static void test_close(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s;
    tg_pool *p = pool_with_idle(2, 1, u, 2, &op);
    submit(p, op, 4, &s);
    CHECK(wake(&u[1], s) != NULL && nobody(tg_pool_claimed(p, u[1].worker)));
    start(&u[1]);
    tg_pool_close(p);
    /* the idle one may not run, for the limit is 1; if it went back to sleep nobody would ever wake it */
    while (!away(&u[0])) {
        CHECK(settle(&u[0]) == NULL);
        sched_yield();
    }
    CHECK_EQ(p->workers, 1);
    tg_token *refused = token_new(op);
    CHECK(!submit_one(p, op, refused, &s) && nobody(s));
    CHECK(state(refused) == TG_CREATED && !refused->linked);
    int ran = 1;
    while (finish(&u[1], UNIT, &s) != NULL) {
        CHECK(nobody(s));
        start(&u[1]);
        ran++;
    }
    CHECK_EQ(ran, 4); /* what waited still runs */
    CHECK(wait_again(&u[1]) == NULL && away(&u[1]) && p->workers == 0);
    tg_pool_open(p);
    CHECK(submit_one(p, op, refused, &s) && s.start);
    CHECK(enter(&u[0], p) == refused && nobody(tg_pool_claimed(p, u[0].worker)));
    run_all(&u[0]);
    CHECK(wait_again(&u[0]) == NULL && !away(&u[0]));
    tg_pool_refuse(p);
    refused = token_new(op);
    CHECK(!submit_one(p, op, refused, &s));
    CHECK_EQ(p->n_idle, 1); /* refusing wakes nobody */
    close_all(p, u, PUPPETS);
}

/* A thread asked for before the close arrives after it. */
static void test_close_while_starting(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s;
    tg_pool *p = pool_with_idle(2, 2, u, 0, &op);
    submit(p, op, 1, &s);
    CHECK(s.start);
    cancel(p, &store[0]);
    tg_pool_close(p);
    CHECK(enter(&u[0], p) == &store[0]); /* popped, and dropped as ended */
    CHECK(nobody(tg_pool_claimed(p, u[0].worker)));
    CHECK(tg_pool_skip(p, u[0].worker, op, store[0].charge, tg_now(), &s) == NULL && nobody(s));
    CHECK(wait_again(&u[0]) == NULL && away(&u[0]));
    close_all(p, u, PUPPETS);
}

/* ---- cost ---------------------------------------------------------------------------------------------------- */

static void test_depth(void)
{
    tg_op *op;
    tg_pool *p = pool_with_idle(8, 8, NULL, 0, &op);
    const struct { uint64_t mean; uint32_t active; size_t depth; } rows[] = {
        {0, 0, 32}, {0, 1, 32}, {0, 8, 256}, {TG_SETTLE_NS / 32, 1, 32}, {10000, 1, 5}, {10000, 8, 40},
        {TG_SETTLE_NS, 1, 1}, {TG_SETTLE_NS, 8, 8}, /* longer ones only for those who could come at once: */
        {TG_SETTLE_NS + 1, 0, 6}, {(UINT64_C(1) << 32) - 1, 2, 4}, {UINT64_C(1) << 40, 6, 0}, {UINT64_C(1) << 40, 8, 0},
    };
    p->limit = 6;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        op->mean = rows[i].mean;
        p->workers = rows[i].active;
        op->measured = true;
        CHECK_EQ(tg_pool_depth(p, op), rows[i].depth);
        op->measured = false; /* not a single one has run: as if they were long */
        CHECK_EQ(tg_pool_depth(p, op), rows[i].active < 6 ? 6 - rows[i].active : 0);
    }
    /* one worker, two runs of which are abandoned: the function that waits, and the one that it ran while it waited */
    op->mean = 0;
    op->measured = true;
    p->workers = 1;
    p->abandoned = 2;
    CHECK_EQ(tg_pool_depth(p, op), 32);
    p->workers = 0;
    p->abandoned = 0;
    close_all(p, NULL, 0);
}

static void test_account(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s;
    tg_pool *p = tg_pool_new(1, 1);
    CHECK((op = tg_pool_add_op(p, MS, &FREE)) != NULL);
    submit(p, op, 100, &s);
    CHECK(s.start && enter(&u[0], p) != NULL && nobody(tg_pool_claimed(p, u[0].worker)));
    CHECK_EQ(tg_ring_length(&p->ring), 0); /* of long ones each is chosen when a worker comes for it */
    start(&u[0]);
    CHECK_EQ(u[0].token->charge, MS); /* the hint */
    CHECK(finish_measured(&u[0], 200 * (int64_t)1000, &s) != NULL); /* longer than the account may grow: settled at once */
    CHECK(op->measured && op->mean == 200000 && u[0].worker->due_op == NULL);
    uint64_t waiting = op->waiting, ran = 1;
    op->mean = 100; /* from here on tiny */
    while (op->waiting > 0) {
        start(&u[0]);
        CHECK(finish_measured(&u[0], 100, &s) != NULL && nobody(s));
        ran++;
        CHECK(u[0].worker->due_tokens < TG_SETTLE_TOKENS);
        CHECK(tg_ring_length(&p->ring) <= TG_SETTLE_TOKENS); /* of short ones a few are admitted ahead */
    }
    CHECK(waiting > 90 && ran < 100);
    do {
        start(&u[0]);
        ran++;
    } while (finish_measured(&u[0], 100, &s) != NULL);
    CHECK_EQ(ran, 100);
    CHECK(wait_again(&u[0]) == NULL);
    CHECK_EQ(op->mean, 100);
    CHECK(op->service >= 200000 + 99 * 100); /* what has run has been charged in full */
    close_all(p, u, PUPPETS);
}

/* A heap of dear tokens in the queue delays a cheap one by the one that runs, and no more. */
static void test_fair_share(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *heavy, *light;
    tg_summons s;
    tg_pool *p = tg_pool_new(1, 1);
    CHECK((heavy = tg_pool_add_op(p, 10 * MS, &FREE)) != NULL && (light = tg_pool_add_op(p, MS, &FREE)) != NULL);
    for (int i = 0; i < 4; i++)
        submit(p, heavy, 500, i == 0 ? &s : &(tg_summons){NULL, false, false, false});
    CHECK(s.start && enter(&u[0], p) != NULL && nobody(tg_pool_claimed(p, u[0].worker)));
    tg_summons none;
    for (int i = 0; i < 50; i++) {
        start(&u[0]);
        CHECK(finish_measured(&u[0], 10 * MS, &none) != NULL);
    }
    tg_token *cheap = submit(p, light, 1, &none);
    int before = 0;
    for (; u[0].token != cheap; before++) {
        start(&u[0]);
        CHECK(finish_measured(&u[0], 10 * MS, &none) != NULL);
    }
    CHECK(before <= 1); /* the one that runs */
    unsigned turns[2] = {0};
    submit(p, light, 500, &none);
    for (int i = 0; i < 440; i++) {
        turns[u[0].token->op == light]++;
        start(&u[0]);
        CHECK(finish_measured(&u[0], u[0].token->op == light ? MS : 10 * MS, &none) != NULL);
    }
    CHECK(turns[1] >= 9 * turns[0] && turns[1] <= 11 * turns[0] + 30); /* equal time, not equal turns */
    cancel(p, u[0].token);
    u[0].token = NULL;
    tg_token *t;
    while ((t = detach(p, NULL)) != NULL)
        CHECK(tg_word_end_unstarted(&t->word, TG_KILLED).moved);
    CHECK(wait_again(&u[0]) == NULL);
    close_all(p, u, PUPPETS);
}

static void test_look(void)
{
    puppet u[PUPPETS] = {0};
    tg_op *op;
    tg_summons s;
    tg_pool *p = pool_with_idle(3, 2, u, 2, &op);
    tg_pool_view v;
    tg_op_view o;
    tg_token *t = submit(p, op, 6, &s);
    CHECK(wake(&u[1], s) == t);
    tg_pool_look(p, &v);
    CHECK(v.workers == 2 && v.idle == 1 && v.max_workers == 3 && v.limit == 2);
    CHECK(v.queued + v.admitted == 5 && v.admitted >= 1 && v.wakes == 3);
    CHECK(v.cpu_seconds >= 0.0);
    tg_pool_look_op(p, op, &o);
    CHECK(o.waiting == v.queued && o.oldest == op->main.head->created);
    s = tg_pool_claimed(p, u[1].worker);
    CHECK(wake(&u[0], s) != NULL && nobody(tg_pool_claimed(p, u[0].worker)));
    run_all(&u[1]);
    run_all(&u[0]);
    CHECK(wait_again(&u[1]) == NULL && wait_again(&u[0]) == NULL);
    tg_pool_look(p, &v);
    CHECK(v.queued == 0 && v.admitted == 0 && v.idle == 2);
    tg_pool_look_op(p, op, &o);
    CHECK(o.waiting == 0 && o.oldest == 0);
    close_all(p, u, PUPPETS);
}

/* Ids start at 1; watchers count; the pool lives as long as its last reference. */
static void test_small_change(void)
{
    tg_op *op;
    tg_pool *p = pool_with_idle(1, 1, NULL, 0, &op);
    CHECK(tg_pool_new_id(p) == 1 && tg_pool_new_id(p) == 2);
    CHECK(!tg_pool_watched(p));
    tg_pool_watch(p, true);
    tg_pool_watch(p, true);
    tg_pool_watch(p, false);
    CHECK(tg_pool_watched(p));
    tg_pool_watch(p, false);
    CHECK(!tg_pool_watched(p));
    CHECK(tg_pool_retain(p) == p);
    tg_pool_release(p);
    for (int i = 0; i < 100; i++)
        CHECK(tg_pool_add_op(p, UNIT, &FREE) != NULL);
    CHECK(p->n_ops == 101 && p->gate.fair.room >= 101);
    close_all(p, NULL, 0);
}

int main(int argc, char **argv)
{
    for (int rounds = check_rounds(argc, argv); rounds > 0; rounds--) {
        test_one_wake_per_work();
        test_woken_for_nothing();
        test_ring_held_by_poppers();
        test_limit();
        test_start_failed();
        test_start_failed_place();
        test_abandon();
        test_return_before_abandon();
        test_replacements_are_bounded();
        test_unlink();
        test_ended_in_queue();
        test_skip();
        test_detach();
        test_resize();
        test_close();
        test_close_while_starting();
        test_depth();
        test_account();
        test_fair_share();
        test_look();
        test_small_change();
    }
    return 0;
}
