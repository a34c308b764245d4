/* Guests: who is let in past the limit while every worker is inside a long function, when, for which tokens, and for how
 * long. One thread plays all workers and the keeper; time is the test's own, nothing sleeps. */
#include "pool_check.h"

#include "tg_keeper.h"

#define MS INT64_C(1000000)
#define MOST 64

static struct {
    tg_pool *pool;
    tg_op *heavy, *light;
    tg_token tokens[MOST];
    size_t made;
} m;

static tg_op *operation(int32_t priority)
{
    tg_policy policy = {.key_limit = 1, .priority = priority};
    tg_op *op = tg_pool_add_op(m.pool, 200000, &policy);
    CHECK(op != NULL);
    return op;
}

static void measured(tg_op *op, int64_t mean)
{
    op->measured = true;
    op->mean = (uint64_t)mean;
}

static tg_summons submit(tg_op *op, size_t count)
{
    tg_token *list[MOST];
    for (size_t i = 0; i < count; i++) {
        CHECK(m.made < MOST);
        list[i] = &m.tokens[m.made++];
        tg_token_init(list[i], op, NULL, tg_pool_new_id(m.pool), 0);
        list[i]->created = tg_now();
    }
    tg_receipt r = tg_pool_submit(m.pool, op, list, count, false, tg_now());
    CHECK_EQ(r.taken, count);
    return r.summons;
}

static void start(tg_token *t)
{
    CHECK(tg_word_try_start(&t->word).moved);
    tg_count(&t->op->started);
}

/* The worker that was asked for takes a token and starts it. */
static tg_token *come(tg_worker *w, tg_op *expected)
{
    bool left = false;
    tg_token *t = tg_pool_poll(m.pool, w, &left);
    CHECK(t != NULL && t->op == expected);
    CHECK(tg_pool_claimed(m.pool, w).wake == NULL);
    start(t);
    return t;
}

static void finish(tg_token *t)
{
    CHECK(tg_word_finish(&t->word, TG_COMPLETED).moved);
    tg_op_give_place(t->op, &t->op->returned);
    tg_op_ended(t->op, TG_COMPLETED);
}

/* Its function has returned after `run`: the token it goes on with, started; NULL: it leaves. */
static tg_token *go_on(tg_worker *w, tg_token *t, int64_t run)
{
    tg_summons s;
    finish(t);
    t = tg_pool_next(m.pool, w, t->op, (int64_t)t->charge, run, false, tg_now(), &s);
    CHECK(s.wake == NULL && !s.start);
    if (t != NULL)
        start(t);
    return t;
}

static void park(tg_worker *w)
{
    bool left = false;
    CHECK(tg_pool_poll(m.pool, w, &left) == NULL && !left);
    CHECK_EQ(m.pool->steer.guests, 0);
    CHECK(w->guest == TG_GUEST_NONE && m.pool->steer.invited == TG_GUEST_NONE);
}

/* A pool whose one place is taken by a heavy token, with another one waiting. Returns the worker that has it. */
static tg_worker *begin(tg_token **first)
{
    memset(&m, 0, sizeof m);
    CHECK((m.pool = tg_pool_new(4, 1)) != NULL);
    m.heavy = operation(0);
    m.light = operation(0);
    measured(m.heavy, 500 * MS);
    CHECK(submit(m.heavy, 2).start);
    tg_worker *w = tg_pool_enter(m.pool);
    CHECK(w != NULL);
    *first = come(w, m.heavy);
    return w;
}

static void end(void)
{
    m.pool->closing = true;
    tg_pool_release(m.pool);
}

/* Who waits is reported, and a thread is asked for; it enters. */
static tg_worker *invite(tg_guest guest)
{
    CHECK(tg_pool_others_wait(m.pool, guest));
    tg_summons s = tg_pool_invite(m.pool, guest);
    CHECK(s.wake != NULL || s.start);
    return s.start ? tg_pool_enter(m.pool) : s.wake;
}

/* What has not been measured is not known to be short: it waits for the later guest, which goes on with all that is. */
static void test_unmeasured(void)
{
    tg_token *first;
    begin(&first);
    tg_summons s = submit(m.light, 10);
    CHECK(s.wake == NULL && !s.start);
    CHECK(!tg_pool_others_wait(m.pool, TG_GUEST_SHORT));
    tg_worker *w = invite(TG_GUEST_ANY);
    tg_token *t = come(w, m.light);
    CHECK(w->guest == TG_GUEST_ANY && m.pool->steer.guests == 1);
    int served = 0;
    for (; t != NULL; served++) {
        CHECK(t->op == m.light && t->id == first->id + 2 + (uint64_t)served);
        t = go_on(w, t, 10000);
    }
    CHECK_EQ(served, 10);
    CHECK(m.light->measured && m.light->mean == 10000);
    park(w);
    CHECK_EQ(m.heavy->waiting, 1);
    end();
}

/* It leaves when its tokens have run for long enough together, whatever waits. */
static void test_stay(void)
{
    tg_token *first;
    begin(&first);
    measured(m.light, 1 * MS);
    submit(m.light, 20);
    uint64_t turns = m.pool->ring.head + m.pool->steer.taken;
    tg_worker *w = invite(TG_GUEST_SHORT);
    tg_token *t = come(w, m.light);
    int served = 0;
    for (; t != NULL; served++)
        t = go_on(w, t, 1 * MS);
    CHECK_EQ(served, TG_GUEST_NS / MS);
    CHECK_EQ(m.light->waiting, 20 - (uint64_t)served);
    CHECK_EQ(m.pool->steer.visited, served);
    CHECK_EQ(m.pool->ring.head + m.pool->steer.taken - turns, served);
    park(w);
    /* the next one begins afresh */
    CHECK(invite(TG_GUEST_SHORT) == w);
    t = come(w, m.light);
    for (; t != NULL; served++)
        t = go_on(w, t, 1 * MS);
    CHECK_EQ(served, 2 * TG_GUEST_NS / MS);
    park(w);
    end();
}

/* Tokens that lie in the ring are taken in order; those that are not for it go back to their queue. */
static void test_ring(void)
{
    tg_token *first;
    begin(&first);
    tg_op *other = operation(0);
    measured(m.light, 10000);
    measured(other, 10000);
    submit(other, 2);
    submit(m.light, 2);
    CHECK(tg_ring_length(&m.pool->ring) > 0);
    tg_count(&other->started); /* one of them is at work */
    tg_worker *w = invite(TG_GUEST_SHORT);
    tg_token *t = come(w, m.light);
    CHECK_EQ(t->id, first->id + 4);
    t = go_on(w, t, 10000);
    CHECK(t != NULL && t->id == first->id + 5);
    CHECK(go_on(w, t, 10000) == NULL);
    park(w);
    CHECK_EQ(other->waiting + tg_ring_length(&m.pool->ring), 2);
    CHECK(!tg_pool_others_wait(m.pool, TG_GUEST_SHORT) || tg_ring_length(&m.pool->ring) > 0);
    end();
}

/* Long tokens of another operation get one guest for one token, and not the early one. */
static void test_long(void)
{
    tg_token *first;
    begin(&first);
    tg_op *other = operation(0);
    measured(other, 100 * MS);
    submit(other, 3);
    CHECK(!tg_pool_others_wait(m.pool, TG_GUEST_SHORT));
    tg_worker *w = invite(TG_GUEST_ANY);
    tg_token *t = come(w, other);
    CHECK(!tg_pool_others_wait(m.pool, TG_GUEST_ANY)); /* it is at work now */
    CHECK(go_on(w, t, 100 * MS) == NULL);
    CHECK_EQ(other->waiting, 2);
    CHECK_EQ(m.pool->steer.visited, 0);
    park(w);
    end();
}

/* Short ones that others go before by priority wait as before for the later guest. */
static void test_priority(void)
{
    tg_token *first;
    begin(&first);
    tg_op *high = operation(10);
    measured(high, 500 * MS);
    measured(m.light, 10000);
    submit(high, 1);
    submit(m.light, 1);
    tg_count(&high->started); /* one of them is at work */
    CHECK(!tg_pool_others_wait(m.pool, TG_GUEST_SHORT));
    tg_worker *w = invite(TG_GUEST_ANY);
    CHECK(go_on(w, come(w, m.light), 10000) == NULL);
    park(w);
    end();
}

/* After a cut more are at work than the limit allows: light tokens do not wait until those have ended. */
static void test_after_cut(void)
{
    tg_token *first;
    begin(&first);
    tg_mutex_lock(&m.pool->lock);
    tg_pool_limit(m.pool, 2, TG_LAW_RAMPED, 0, 0);
    tg_mutex_unlock(&m.pool->lock);
    CHECK(tg_pool_nudge(m.pool, tg_now()).start);
    tg_worker *second = tg_pool_enter(m.pool);
    CHECK(second != NULL);
    come(second, m.heavy);
    tg_mutex_lock(&m.pool->lock);
    tg_pool_limit(m.pool, 1, TG_LAW_CUT_LAG, 0, 0);
    tg_mutex_unlock(&m.pool->lock);
    measured(m.light, 10000);
    CHECK(!submit(m.light, 1).start);
    tg_worker *w = invite(TG_GUEST_SHORT);
    CHECK(go_on(w, come(w, m.light), 10000) == NULL);
    park(w);
    end();
}

/* A place has become free meanwhile: it is an ordinary worker. */
static void test_late(void)
{
    tg_token *first;
    tg_worker *host = begin(&first);
    tg_summons s;
    measured(m.light, 10000);
    submit(m.light, 1);
    tg_worker *w = invite(TG_GUEST_SHORT);
    finish(first);
    tg_mutex_lock(&m.pool->lock);
    tg_pool_limit(m.pool, 2, TG_LAW_STEPPED, 0, 0);
    tg_mutex_unlock(&m.pool->lock);
    tg_token *t = tg_pool_next(m.pool, host, m.heavy, (int64_t)first->charge, 500 * MS, false, tg_now(), &s);
    CHECK(t != NULL && t->op == m.light);
    come(w, m.heavy);
    CHECK(w->guest == TG_GUEST_NONE && m.pool->steer.guests == 0 && m.pool->steer.invited == TG_GUEST_NONE);
    end();
}

/* Nobody is invited while a worker is on its way, past the worker count, or where the thread does not start. */
static void test_nobody_comes(void)
{
    tg_token *first;
    begin(&first);
    measured(m.light, 10000);
    submit(m.light, 1);
    m.pool->waking = true;
    tg_summons s = tg_pool_invite(m.pool, TG_GUEST_SHORT);
    CHECK(s.wake == NULL && !s.start && m.pool->steer.invited == TG_GUEST_NONE);
    m.pool->waking = false;
    m.pool->max_workers = 1;
    s = tg_pool_invite(m.pool, TG_GUEST_SHORT);
    CHECK(s.wake == NULL && !s.start && m.pool->steer.invited == TG_GUEST_NONE);
    m.pool->max_workers = 4;
    CHECK(tg_pool_invite(m.pool, TG_GUEST_SHORT).start && m.pool->steer.invited == TG_GUEST_SHORT);
    CHECK_EQ(tg_pool_start_failed(m.pool), 1);
    CHECK(m.pool->steer.invited == TG_GUEST_NONE && !m.pool->waking);
    end();
}

/* When which guest is due: nothing taken for 20 ms, nothing but by SHORT guests for 50. */
static void test_due(void)
{
    tg_keeper k;
    memset(&k, 0, sizeof k);
    int64_t now = 1000 * MS;
    uint64_t taken = 7, turns = 7;
    CHECK(tg_keeper_due(&k, true, taken, turns, now) == TG_GUEST_NONE);
    CHECK(tg_keeper_due(&k, true, taken, turns, now + TG_KEEPER_SHORT_NS - 1) == TG_GUEST_NONE);
    CHECK(tg_keeper_due(&k, true, taken, turns, now + TG_KEEPER_SHORT_NS) == TG_GUEST_SHORT);
    /* a SHORT guest takes some: the next is due later, but what is not short waits no longer for that */
    CHECK(tg_keeper_due(&k, true, taken + 3, turns, now + TG_KEEPER_SHORT_NS + MS) == TG_GUEST_NONE);
    CHECK(tg_keeper_due(&k, true, taken + 3, turns, now + 2 * TG_KEEPER_SHORT_NS + MS) == TG_GUEST_SHORT);
    CHECK(tg_keeper_due(&k, true, taken + 4, turns, now + TG_KEEPER_GUEST_NS) == TG_GUEST_ANY);
    CHECK(tg_keeper_due(&k, true, taken + 5, turns + 1, now + TG_KEEPER_GUEST_NS + MS) == TG_GUEST_NONE);
    /* nothing waits: it begins afresh */
    now += 1000 * MS;
    CHECK(tg_keeper_due(&k, false, taken + 5, turns + 1, now) == TG_GUEST_NONE);
    CHECK(tg_keeper_due(&k, true, taken + 5, turns + 1, now + MS) == TG_GUEST_NONE);
}

int main(void)
{
    test_unmeasured();
    test_stay();
    test_ring();
    test_long();
    test_priority();
    test_after_cut();
    test_late();
    test_nobody_comes();
    test_due();
    return 0;
}
