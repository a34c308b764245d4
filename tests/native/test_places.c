/* Places: which token may be admitted and when, rule by rule, and then in long random play against a model.
 *
 * One thread plays everybody; the pool has no workers, so nothing is admitted but where the test takes a token. Time is
 * the test's own. */
#include "pool_check.h"

#include "tg_inbox.h"

#define MS INT64_C(1000000)
#define OPS 4
#define KEYS 3
#define ITEMS 96

enum { GONE, MADE, WAITS, ADMITTED, TAKEN, RUNS }; /* TAKEN: admitted to the test, which only ends it */

typedef struct {
    tg_token token;
    tg_extra extra;
    int at, op, key;     /* key: -1 for none */
    bool in_main;        /* in the operation's own queue */
    bool ended, aside;
} item;

/* What the pool should think. */
typedef struct {
    tg_op *op;
    tg_policy policy;
    bool paused;
    uint32_t running[KEYS];
    int ready[KEYS], n_ready; /* keys that may be served, in turn */
} model_op;

static struct {
    tg_pool *pool;
    model_op ops[OPS];
    tg_key keys[OPS][KEYS];
    item items[ITEMS];
    bool paused;
    uint32_t workers;
    int64_t now;
    uint64_t seed;
    uint64_t ended, made;
} m;

static uint64_t below(uint64_t bound) { return random_below(&m.seed, bound); }

/* Nobody can be started here. */
static void obey(tg_summons s)
{
    CHECK(s.wake == NULL);
    if (s.start)
        tg_pool_start_failed(m.pool);
}

/* ---- the model ----------------------------------------------------------------------------------------------- */

static int count(int op, int at)
{
    int n = 0;
    for (int i = 0; i < ITEMS; i++)
        n += m.items[i].op == op && m.items[i].at == at;
    return n;
}

static int places(int op) { return count(op, ADMITTED) + count(op, TAKEN) + count(op, RUNS); }

static int abandoned(int op)
{
    int n = 0;
    for (int i = 0; i < ITEMS; i++)
        n += m.items[i].op == op && m.items[i].at == RUNS && m.items[i].ended;
    return n;
}

static int aside(int op)
{
    int n = 0;
    for (int i = 0; i < ITEMS; i++)
        n += m.items[i].op == op && m.items[i].aside;
    return n;
}

static bool stopped(int op) { return m.paused || m.ops[op].paused; }

static bool has_place(int op)
{
    uint32_t limit = m.ops[op].policy.limit, cap = tg_gate_cap(m.workers);
    if (limit != 0)
        return places(op) < (int)limit;
    return cap == 0 || places(op) - abandoned(op) - aside(op) < (int)cap;
}

static bool same_queue(const item *a, const item *b)
{
    if (a->op != b->op || (a->key < 0) != (b->key < 0))
        return false;
    return a->key >= 0 || (a->in_main && b->in_main) ||
           (!a->in_main && !b->in_main && a->extra.priority == b->extra.priority);
}

/* The first that waits of those for which `with` says so; by number, which is the order of submission. */
static item *first(bool (*with)(const item *, const item *), const item *like)
{
    item *found = NULL;
    for (int i = 0; i < ITEMS; i++) {
        item *x = &m.items[i];
        if (x->at == WAITS && with(x, like) && (found == NULL || x->token.id < found->token.id))
            found = x;
    }
    return found;
}

static bool same_key(const item *a, const item *b) { return a->op == b->op && a->key >= 0 && a->key == b->key; }
static bool same_op(const item *a, const item *b) { return a->op == b->op; }

static item *first_of_key(int op, int key) { return first(same_key, &(item){.op = op, .key = key}); }

static void key_refresh(int op, int key)
{
    model_op *o = &m.ops[op];
    bool ready = first_of_key(op, key) != NULL && o->running[key] < o->policy.key_limit;
    for (int i = 0; i < o->n_ready; i++) {
        if (o->ready[i] != key)
            continue;
        if (!ready) {
            o->n_ready--;
            memmove(&o->ready[i], &o->ready[i + 1], sizeof(int) * (size_t)(o->n_ready - i));
        }
        return;
    }
    if (ready)
        o->ready[o->n_ready++] = key;
}

/* Of its key one more runs: the other keys go first. */
static void key_take(item *x)
{
    if (x->key < 0)
        return;
    model_op *o = &m.ops[x->op];
    o->running[x->key] = UINT32_MAX;
    key_refresh(x->op, x->key);
    o->running[x->key] = 0;
    for (int i = 0; i < ITEMS; i++)
        o->running[x->key] += same_key(&m.items[i], x) && m.items[i].at > WAITS;
    key_refresh(x->op, x->key);
}

static void move(item *x, int at)
{
    x->at = at;
    if (x->key < 0)
        return;
    if (at == GONE || at == WAITS) {
        uint32_t *running = &m.ops[x->op].running[x->key];
        *running = 0;
        for (int i = 0; i < ITEMS; i++)
            *running += same_key(&m.items[i], x) && m.items[i].at > WAITS;
    }
    key_refresh(x->op, x->key);
}

static bool full(int op)
{
    const tg_policy *policy = &m.ops[op].policy;
    int64_t waiting = count(op, WAITS), free = m.workers;
    if (policy->max_waiting == 0 || waiting < (int64_t)policy->max_waiting)
        return false;
    if (stopped(op))
        return true;
    for (int i = 0; i < OPS; i++)
        free += abandoned(i) + aside(i);
    if (policy->limit != 0 && (int64_t)policy->limit - places(op) < free)
        free = (int64_t)policy->limit - places(op);
    return waiting >= (int64_t)policy->max_waiting + (free > 0 ? free : 0);
}

/* ---- the pool against it ------------------------------------------------------------------------------------- */

static void compare(void)
{
    check_pool(m.pool, true);
    for (int i = 0; i < OPS; i++) {
        model_op *o = &m.ops[i];
        tg_op_view v;
        tg_pool_look_op(m.pool, o->op, &v);
        CHECK_EQ(v.waiting, count(i, WAITS));
        CHECK_EQ(tg_op_places(o->op), places(i));
        CHECK_EQ(tg_op_executing(o->op), count(i, RUNS));
        CHECK_EQ(tg_op_abandoned_now(o->op), abandoned(i));
        CHECK(v.paused == stopped(i));
        item *oldest = first(same_op, &(item){.op = i});
        CHECK(v.oldest == (oldest != NULL ? oldest->token.created : 0));
        for (int k = 0; k < KEYS; k++)
            CHECK_EQ(m.keys[i][k].running, o->running[k]);
        tg_queue *keyed = NULL;
        for (tg_queue *q = &o->op->main; q != NULL; q = q->next) {
            keyed = q->keyed ? q : keyed;
            CHECK(!q->aged || q->head != NULL);
        }
        const tg_key *k = keyed != NULL ? keyed->ready_head : NULL;
        for (int n = 0; n < o->n_ready; n++, k = k->ready_next)
            CHECK(k == &m.keys[i][o->ready[n]]);
        CHECK(k == NULL);
        /* whoever is over, or paused, must be asked before it starts */
        int started = count(i, RUNS), starting = count(i, ADMITTED);
        if (starting > 0 && (stopped(i) || (o->policy.limit != 0 && started + starting > (int)o->policy.limit)))
            CHECK(tg_op_barred(o->op));
    }
}

static void begin(uint64_t seed)
{
    memset(&m, 0, sizeof m);
    m.seed = seed;
    m.now = tg_now();
    CHECK((m.pool = tg_pool_new(0, 0)) != NULL);
    for (int i = 0; i < OPS; i++) {
        m.ops[i].policy = (tg_policy){.key_limit = 1};
        CHECK((m.ops[i].op = tg_pool_add_op(m.pool, MS, &m.ops[i].policy)) != NULL);
        watch_op(m.ops[i].op)->loose = true; /* the model is stricter */
    }
}

static item *item_new(int op, int key, bool extra, int32_t priority)
{
    item *x = m.items;
    while (x->at != GONE)
        if (++x == m.items + ITEMS)
            return NULL;
    memset(x, 0, sizeof *x);
    tg_token_init(&x->token, m.ops[op].op, x, tg_pool_new_id(m.pool), 1);
    x->token.created = ++m.now;
    x->at = MADE;
    x->op = op;
    x->key = key;
    x->in_main = key < 0;
    if (extra || key >= 0) {
        x->token.extra = &x->extra;
        x->extra.token = &x->token;
        x->extra.priority = priority;
    }
    if (key >= 0) {
        x->extra.key = &m.keys[op][key];
        x->extra.queue = tg_pool_key_queue(m.pool, m.ops[op].op);
        CHECK(x->extra.queue != NULL && x->extra.queue->keyed);
    } else if (extra) {
        x->in_main = priority == m.ops[op].policy.priority;
    }
    m.made++;
    return x;
}

/* Its place comes back, as from a worker or from who ended it. */
static void give_place(item *x, _Atomic(uint64_t) *counter)
{
    tg_op_give_place(m.ops[x->op].op, counter);
    if (x->key >= 0)
        tg_pool_give_key(m.pool, &x->token);
    move(x, GONE);
    if (tg_op_gated(m.ops[x->op].op))
        obey(tg_pool_freed(m.pool, m.ops[x->op].op, m.now));
}

static void end(item *x, uint32_t state)
{
    tg_op *op = m.ops[x->op].op;
    tg_step step = tg_word_end(&x->token.word, state);
    CHECK(step.moved && !x->ended);
    x->ended = true;
    m.ended++;
    switch (x->at) {
    case WAITS:
        CHECK(tg_state_of(step.old) == TG_WAITING);
        tg_pool_unlink(m.pool, &x->token);
        move(x, GONE);
        break;
    case ADMITTED:
    case TAKEN:
        CHECK(tg_state_of(step.old) == TG_ADMITTED);
        give_place(x, &op->dropped);
        break;
    default:
        CHECK(x->at == RUNS && tg_state_of(step.old) == TG_EXECUTING);
        tg_op_abandoned_add(op, 1);
        obey(tg_pool_abandon(m.pool, op, m.now));
    }
}

/* Hands over `n` items of one operation; what is not taken is ended by the test. */
static void submit(item **batch, size_t n, bool patient)
{
    tg_token *tokens[8];
    item *shed[8];
    size_t taken = 0, sheds = 0;
    int op = batch[0]->op;
    for (size_t i = 0; i < n; i++)
        tokens[i] = &batch[i]->token;
    tg_receipt r = tg_pool_submit(m.pool, m.ops[op].op, tokens, n, patient, m.now);
    for (; taken < n; taken++) {
        if (full(op)) {
            if (patient || m.ops[op].policy.overflow != TG_SHED_OLDEST)
                break;
            item *oldest = first(same_op, batch[taken]);
            if (oldest != NULL) {
                shed[sheds++] = oldest;
                move(oldest, TAKEN);
                key_take(oldest);
            }
        }
        move(batch[taken], WAITS);
    }
    obey(r.summons);
    CHECK_EQ(r.taken, taken);
    CHECK(!r.closed);
    compare();
    for (tg_token *t = r.shed, *rest; t != NULL; t = rest) { /* the one shed last comes first */
        rest = t->prev;
        CHECK(sheds > 0 && t == &shed[--sheds]->token);
        end(shed[sheds], TG_KILLED);
    }
    CHECK(sheds == 0);
    for (size_t i = taken; i < n; i++) {
        CHECK(tg_state_of(tg_word_load(&batch[i]->token.word)) == TG_CREATED);
        CHECK(tg_word_end(&batch[i]->token.word, TG_KILLED).moved);
        batch[i]->at = GONE;
        m.ended++;
    }
}

/* Of all queues that may be admitted from none goes before the one that is. */
static void check_choice(const item *x)
{
    tg_queue *mine = tg_queue_of((tg_token *)&x->token);
    CHECK(mine->priority == (x->key >= 0 || x->in_main ? m.ops[x->op].policy.priority : x->extra.priority));
    for (int i = 0; i < ITEMS; i++) {
        item *y = &m.items[i];
        if (y->at == WAITS && !stopped(y->op) && has_place(y->op) && (y->key < 0 || m.ops[y->op].n_ready > 0))
            CHECK(!tg_fair_before(tg_queue_of(&y->token), mine));
    }
}

/* Admits the next token, as refill or a worker does. */
static item *take(void)
{
    tg_mutex_lock(&m.pool->lock);
    tg_fair_age(&m.pool->gate.fair, m.now);
    m.pool->gate.crowd = SIZE_MAX / 2; /* no short cut: places are looked at */
    bool aged[ITEMS];
    for (int i = 0; i < ITEMS; i++)
        aged[i] = m.items[i].at == WAITS && tg_queue_of(&m.items[i].token)->aged;
    tg_queue before[ITEMS];
    for (int i = 0; i < ITEMS; i++)
        if (m.items[i].at == WAITS)
            before[i] = *tg_queue_of(&m.items[i].token);
    uint64_t service[OPS];
    for (int i = 0; i < OPS; i++)
        service[i] = m.ops[i].op->service;
    tg_token *t = tg_gate_admit(&m.pool->gate, m.now);
    item *x = t != NULL ? t->owner : NULL;
    if (x == NULL) {
        for (int i = 0; i < ITEMS; i++) {
            item *y = &m.items[i];
            CHECK(y->at != WAITS || stopped(y->op) || !has_place(y->op) || (y->key >= 0 && m.ops[y->op].n_ready == 0));
        }
    } else {
        CHECK(x->at == WAITS && !stopped(x->op) && has_place(x->op));
        if (x->key >= 0)
            CHECK(x == first_of_key(x->op, m.ops[x->op].ready[0]));
        else
            CHECK(x == first(same_queue, x));
        /* as things were before it was charged for */
        uint64_t now_served[OPS];
        for (int i = 0; i < OPS; i++) {
            now_served[i] = m.ops[i].op->service;
            m.ops[i].op->service = service[i];
        }
        bool was = tg_queue_of(t)->aged;
        tg_queue_of(t)->aged = aged[x - m.items];
        check_choice(x);
        tg_queue_of(t)->aged = was;
        for (int i = 0; i < OPS; i++)
            m.ops[i].op->service = now_served[i];
        CHECK(before[x - m.items].priority == tg_queue_of(t)->priority);
        move(x, ADMITTED);
        key_take(x);
    }
    tg_mutex_unlock(&m.pool->lock);
    return x;
}

/* A worker that holds it tries to start it. True: it runs. */
static bool start(item *x)
{
    model_op *o = &m.ops[x->op];
    bool may = !stopped(x->op) && (o->policy.limit == 0 || count(x->op, RUNS) < (int)o->policy.limit);
    if (!tg_op_barred(o->op)) {
        CHECK(may);
        CHECK(tg_word_try_start(&x->token.word).moved);
        tg_count(&o->op->started);
    } else {
        CHECK(tg_pool_start(m.pool, &x->token) == (may ? TG_STARTED : TG_PUT_BACK));
    }
    CHECK(tg_state_of(tg_word_load(&x->token.word)) == (may ? TG_EXECUTING : TG_WAITING));
    move(x, may ? RUNS : WAITS);
    return may;
}

static void step_aside(item *x)
{
    CHECK(x->at == RUNS && !x->aside);
    x->aside = true;
    obey(tg_pool_aside(m.pool, m.ops[x->op].op, m.now));
}

static void step_back(item *x)
{
    CHECK(x->aside);
    x->aside = false;
    tg_pool_back(m.pool, m.ops[x->op].op);
}

/* Its function returns. */
static void finish(item *x)
{
    tg_op *op = m.ops[x->op].op;
    bool late = !tg_word_finish(&x->token.word, TG_COMPLETED).moved;
    CHECK(late == x->ended);
    if (x->aside)
        step_back(x);
    if (late) {
        tg_op_abandoned_add(op, -1);
        tg_word_returned(&x->token.word);
        tg_pool_unabandon(m.pool);
    } else {
        m.ended++;
    }
    give_place(x, &op->returned);
}

/* A worker is about to wait for it. */
static void help(item *x)
{
    model_op *o = &m.ops[x->op];
    bool may = !stopped(x->op) && (o->policy.limit == 0 || count(x->op, RUNS) < (int)o->policy.limit);
    if (x->at != WAITS && o->policy.limit != 0)
        may = may && places(x->op) <= (int)o->policy.limit;
    if (x->at != WAITS && x->key >= 0)
        may = may && o->running[x->key] <= o->policy.key_limit;
    if (x->at == WAITS) {
        may = may && (o->policy.limit == 0 || has_place(x->op));
        if (x->key >= 0)
            may = may && o->running[x->key] < o->policy.key_limit && first_of_key(x->op, x->key) == x;
    }
    uint32_t was = TG_STATES;
    tg_summons s;
    CHECK(tg_pool_help(m.pool, &x->token, m.now, &was, &s) == may);
    obey(s);
    if (!may)
        return;
    CHECK(was == (x->at == WAITS ? TG_WAITING : TG_ADMITTED));
    bool waited = x->at == WAITS;
    move(x, RUNS);
    if (waited)
        key_take(x);
}

/* Who made it runs it, if it may start at once; else it is still to be submitted. */
static bool start_here(item *x)
{
    model_op *o = &m.ops[x->op];
    bool may = !stopped(x->op);
    if (o->policy.limit != 0)
        may = may && has_place(x->op) && count(x->op, RUNS) < (int)o->policy.limit;
    if (x->key >= 0)
        may = may && o->running[x->key] < o->policy.key_limit && first_of_key(x->op, x->key) == NULL;
    CHECK(tg_pool_start_here(m.pool, &x->token, m.now) == may);
    CHECK(tg_state_of(tg_word_load(&x->token.word)) == (may ? TG_EXECUTING : TG_CREATED));
    if (!may)
        return false;
    CHECK(tg_stamped(&x->token.admitted) == m.now);
    move(x, RUNS);
    key_take(x);
    return true;
}

static void detach(int op, size_t most)
{
    tg_token *out[8];
    size_t n = tg_pool_detach(m.pool, op < 0 ? NULL : m.ops[op].op, out, most), expected = 0;
    item *all[8];
    for (int i = OPS - 1; i >= 0; i--) /* the last operation made comes first */
        for (item *x; (op < 0 || op == i) && expected < most && (x = first(same_op, &(item){.op = i})) != NULL;) {
            CHECK(expected < n && out[expected] == &x->token);
            all[expected++] = x;
            move(x, TAKEN);
            key_take(x);
        }
    CHECK_EQ(n, expected);
    compare();
    for (size_t i = 0; i < n; i++)
        end(all[i], TG_KILLED);
}

static void pause_op(int op, bool paused)
{
    if (op < 0)
        m.paused = paused;
    else
        m.ops[op].paused = paused;
    obey(tg_pool_pause(m.pool, op < 0 ? NULL : m.ops[op].op, paused));
}

static void configure(int op, tg_policy policy)
{
    m.ops[op].policy = policy;
    obey(tg_pool_configure(m.pool, m.ops[op].op, &policy));
    uint64_t after = 0;
    for (item *next;; after = next->token.id) { /* keys that may be served again: in the order of their tokens */
        next = NULL;
        for (int i = 0; i < ITEMS; i++) {
            item *x = &m.items[i];
            if (x->at == WAITS && x->op == op && x->key >= 0 && x->token.id > after &&
                (next == NULL || x->token.id < next->token.id))
                next = x;
        }
        if (next == NULL)
            break;
        if (first_of_key(op, next->key) == next)
            key_refresh(op, next->key);
    }
}

static void resize(uint32_t workers)
{
    tg_summons s;
    m.workers = workers;
    tg_pool_resize(m.pool, workers, 0, &s);
    obey(s);
}

/* Everybody goes home; the accounts must close. */
static void finish_all(void)
{
    pause_op(-1, false);
    for (int i = 0; i < OPS; i++)
        pause_op(i, false);
    for (int left = 1; left;) {
        left = 0;
        for (int i = 0; i < ITEMS; i++) {
            item *x = &m.items[i];
            left |= x->at != GONE;
            if (x->at == RUNS)
                finish(x);
            else if (x->at == ADMITTED)
                start(x);
        }
        take();
        compare();
    }
    CHECK_EQ(m.ended, m.made);
    for (int i = 0; i < OPS; i++) {
        CHECK(tg_op_places(m.ops[i].op) == 0 && m.ops[i].op->waiting == 0 && m.ops[i].op->aside == 0);
        for (int k = 0; k < KEYS; k++)
            CHECK(m.keys[i][k].running == 0 && !m.keys[i][k].ready && m.keys[i][k].head == NULL);
    }
    CHECK(m.pool->gate.fair.length == 0 && m.pool->abandoned == 0 && m.pool->workers == 0);
    tg_pool_release(m.pool);
    unwatch_all();
}

static item *one(int op)
{
    item *x = item_new(op, -1, false, 0);
    submit(&x, 1, false);
    return x;
}

static item *one_with_key(int op, int key)
{
    item *x = item_new(op, key, true, 0);
    submit(&x, 1, false);
    return x;
}

static item *one_of_priority(int op, int32_t priority)
{
    item *x = item_new(op, -1, true, priority);
    submit(&x, 1, false);
    return x;
}

/* ---- one rule at a time -------------------------------------------------------------------------------------- */

static void test_limit(void)
{
    begin(1);
    configure(0, (tg_policy){.limit = 2, .key_limit = 1});
    item *x[5];
    for (int i = 0; i < 5; i++)
        x[i] = one(0);
    CHECK(take() == x[0] && take() == x[1] && take() == NULL);
    CHECK(tg_op_gated(m.ops[0].op));
    start(x[0]);
    end(x[1], TG_CANCELLED); /* in the lane, not started: its place is free */
    CHECK(take() == x[2] && take() == NULL);
    end(x[0], TG_EXPIRED); /* runs on: its place is not */
    CHECK(take() == NULL);
    finish(x[0]);
    CHECK(take() == x[3] && take() == NULL);
    configure(0, (tg_policy){.limit = 3, .key_limit = 1});
    CHECK(take() == x[4]);
    finish_all();
}

/* What had been admitted before the limit was lowered starts only as far as the new one goes; and the order stays. */
static void test_limit_lowered(void)
{
    begin(1);
    item *x[6];
    for (int i = 0; i < 6; i++)
        x[i] = one(0);
    for (int i = 0; i < 4; i++)
        CHECK(take() == x[i]);
    configure(0, (tg_policy){.limit = 1, .key_limit = 1});
    CHECK(tg_op_barred(m.ops[0].op));
    /* two workers at the same time: the second sees the first */
    CHECK(start(x[0]) && !start(x[1]) && !start(x[3]) && !start(x[2]));
    compare();
    CHECK(take() == NULL);
    for (int i = 0; i < 5; i++) {
        finish(x[i]);
        CHECK(take() == x[i + 1] && start(x[i + 1]));
        CHECK(!tg_op_barred(m.ops[0].op) || i == 0);
    }
    finish_all();
}

/* Ended at the very moment when it was to be put back. */
static void test_put_back_ended(void)
{
    begin(1);
    item *x = one(0);
    CHECK(take() == x);
    pause_op(0, true);
    end(x, TG_CANCELLED);
    CHECK(tg_pool_start(m.pool, &x->token) == TG_NOT_STARTED);
    compare();
    pause_op(0, false);
    CHECK(tg_pool_start(m.pool, &x->token) == TG_NOT_STARTED);
    compare();
    finish_all();
}

static void test_pause(void)
{
    begin(1);
    item *x[4], *other = one(1);
    for (int i = 0; i < 4; i++)
        x[i] = one(0);
    CHECK(take() == other && take() == x[0] && take() == x[1] && take() == x[2]);
    start(x[0]);
    pause_op(0, true);
    CHECK(!start(x[1]) && !start(x[2]) && take() == NULL);
    CHECK(start(other)); /* only that one is paused */
    other = one(1);
    CHECK(take() == other);
    pause_op(-1, true);
    CHECK(!start(other) && take() == NULL);
    pause_op(0, false); /* still: everything is paused */
    CHECK(take() == NULL);
    pause_op(1, true);
    pause_op(-1, false);
    CHECK(take() == x[1] && take() == x[2] && take() == x[3] && take() == NULL); /* in order; the other by itself is */
    finish(x[0]);
    pause_op(1, false);
    CHECK(take() == other && start(other));
    finish_all();
}

static void test_keys(void)
{
    begin(1);
    item *a[3], *b[2], *c;
    for (int i = 0; i < 3; i++)
        a[i] = one_with_key(0, 0);
    for (int i = 0; i < 2; i++)
        b[i] = one_with_key(0, 1);
    c = one_with_key(0, 2);
    CHECK(take() == a[0] && take() == b[0] && take() == c && take() == NULL);
    start(b[0]);
    finish(b[0]);
    CHECK(take() == b[1] && take() == NULL);
    end(a[0], TG_CANCELLED); /* admitted only */
    CHECK(take() == a[1] && take() == NULL);
    start(a[1]);
    end(a[1], TG_KILLED); /* its function runs on and keeps the key */
    CHECK(take() == NULL);
    finish(a[1]);
    CHECK(take() == a[2]);
    finish_all();
    begin(1); /* two at once of each key: in turn all the same, and in order */
    configure(0, (tg_policy){.key_limit = 2});
    for (int i = 0; i < 3; i++)
        a[i] = one_with_key(0, 0);
    for (int i = 0; i < 2; i++)
        b[i] = one_with_key(0, 1);
    CHECK(take() == a[0] && take() == b[0] && take() == a[1] && take() == b[1] && take() == NULL);
    pause_op(0, true);
    CHECK(!start(a[1]) && !start(a[0])); /* back where they were */
    pause_op(0, false);
    configure(0, (tg_policy){.key_limit = 3});
    CHECK(take() == a[0] && take() == a[1] && take() == a[2]);
    finish_all();
}

static void test_priority(void)
{
    begin(1);
    configure(1, (tg_policy){.priority = 5, .key_limit = 1});
    item *low = one(0), *high = one(1), *keyed = one_with_key(1, 0), *own = one_of_priority(0, 7), *under = one_of_priority(1, -3);
    CHECK(take() == own);
    item *next = take(), *then = take(); /* of one priority and one operation: either first */
    CHECK((next == high && then == keyed) || (next == keyed && then == high));
    CHECK(take() == low && take() == under && take() == NULL);
    low = one(0);
    m.now += TG_AGE_NS / 2;
    high = one(1);
    CHECK(take() == high);
    m.now += TG_AGE_NS / 2 + TG_AGE_LOOK_NS;
    high = one(1);
    CHECK(take() == low); /* has waited for two seconds */
    low = one(0);
    CHECK(take() == high && take() == low); /* that was for once */
    /* nobody jumps the queue for what another one of it has waited */
    low = one(0);
    high = one(1);
    item *higher = one_of_priority(1, 8);
    m.now += TG_AGE_NS + TG_AGE_LOOK_NS;
    pause_op(1, true); /* looked at, but not served */
    pause_op(1, false);
    tg_mutex_lock(&m.pool->lock);
    tg_fair_age(&m.pool->gate.fair, m.now);
    tg_mutex_unlock(&m.pool->lock);
    CHECK(tg_queue_of(&low->token)->aged && tg_queue_of(&high->token)->aged && !tg_queue_of(&higher->token)->aged);
    end(low, TG_CANCELLED);
    low = one(0);
    CHECK(take() == high && take() == higher && take() == low);
    finish_all();
}

static void test_overflow(void)
{
    begin(1);
    configure(0, (tg_policy){.max_waiting = 2, .key_limit = 1});
    configure(1, (tg_policy){.max_waiting = 2, .key_limit = 1, .overflow = TG_SHED_OLDEST});
    item *x[8];
    for (int op = 0; op < 2; op++) {
        for (int i = 0; i < 4; i++)
            x[4 * op + i] = item_new(op, -1, false, 0);
        submit(&x[4 * op], 4, false);
    }
    CHECK(x[0]->at == WAITS && x[1]->at == WAITS && x[2]->at == GONE && x[3]->at == GONE);
    CHECK(x[4]->at == GONE && x[5]->at == GONE && x[6]->at == WAITS && x[7]->at == WAITS);
    item *patient = item_new(1, -1, false, 0);
    submit(&patient, 1, true);
    CHECK(patient->at == GONE && x[6]->at == WAITS);
    CHECK(!tg_pool_want_room(m.pool, m.ops[0].op, true));
    CHECK(tg_pool_unlink(m.pool, &x[0]->token)); /* somebody waits for that */
    move(x[0], TAKEN);
    CHECK(tg_word_try_admit(&x[0]->token.word).moved);
    tg_count(&m.ops[0].op->admitted);
    end(x[0], TG_CANCELLED);
    CHECK(tg_pool_want_room(m.pool, m.ops[0].op, true));
    CHECK(tg_pool_want_room(m.pool, m.ops[0].op, false));
    /* of a key: the oldest goes, and the key is free again */
    configure(2, (tg_policy){.max_waiting = 2, .key_limit = 1, .overflow = TG_SHED_OLDEST});
    for (int i = 0; i < 3; i++)
        one_with_key(2, 0);
    CHECK(m.ops[2].running[0] == 0 && count(2, WAITS) == 2);
    finish_all();
}

/* Somebody else may end a shed token, and put it into an inbox, before its submitter comes to it. */
static void test_shed_and_delivered(void)
{
    begin(1);
    configure(0, (tg_policy){.max_waiting = 1, .key_limit = 1, .overflow = TG_SHED_OLDEST});
    item *x = one(0), *y = item_new(0, -1, false, 0), *elsewhere = item_new(1, -1, false, 0);
    tg_token *t = &y->token;
    tg_receipt r = tg_pool_submit(m.pool, m.ops[0].op, &t, 1, false, m.now);
    CHECK(r.taken == 1 && r.shed == &x->token);
    move(x, TAKEN);
    move(y, WAITS);
    tg_inbox box;
    tg_inbox_init(&box);
    CHECK(tg_inbox_push(&box, &elsewhere->token, m.now));
    end(x, TG_CANCELLED);
    tg_inbox_push(&box, &x->token, m.now);
    CHECK(r.shed == &x->token && r.shed->prev == NULL);
    CHECK(tg_inbox_take(&box) == &elsewhere->token && elsewhere->token.next == &x->token);
    x->token.next = elsewhere->token.next = NULL;
    submit(&elsewhere, 1, false);
    finish_all();
}

/* A token that has to make room is still there for a moment, and somebody may be about to wait for it. Its key is in use:
 * it must not run beside the other. */
static void test_help_taken(void)
{
    begin(1);
    item *x = one_with_key(0, 0), *y = one_with_key(0, 0);
    CHECK(take() == x && start(x));
    tg_token *out[1];
    CHECK(tg_pool_detach(m.pool, m.ops[0].op, out, 1) == 1 && out[0] == &y->token);
    move(y, TAKEN);
    key_take(y);
    uint32_t was;
    tg_summons s;
    CHECK(!tg_pool_help(m.pool, &y->token, m.now, &was, &s));
    end(y, TG_KILLED);
    finish(x);
    /* nor in the place of one that is about to be started without a lock */
    configure(0, (tg_policy){.limit = 1, .key_limit = 1});
    x = one(0);
    y = one(0);
    CHECK(take() == x);
    CHECK(tg_pool_detach(m.pool, m.ops[0].op, out, 1) == 1 && out[0] == &y->token);
    move(y, TAKEN);
    CHECK(!tg_pool_help(m.pool, &y->token, m.now, &was, &s));
    end(y, TG_KILLED);
    CHECK(start(x));
    finish_all();
}

/* An operation without a limit leaves two workers of sixteen to the others. */
static void test_reserve(void)
{
    begin(1);
    CHECK(tg_gate_cap(15) == 0 && tg_gate_cap(16) == 14 && tg_gate_cap(32) == 28 && tg_gate_cap(64) == 56);
    resize(16);
    item *x[20];
    for (int i = 0; i < 20; i++)
        x[i] = one(0);
    for (int i = 0; i < 14; i++) {
        CHECK(take() == x[i]);
        start(x[i]);
    }
    CHECK(take() == NULL);
    end(x[0], TG_CANCELLED); /* abandoned: its worker has been replaced */
    CHECK(take() == x[14] && take() == NULL);
    step_aside(x[1]); /* waits for others: the same */
    CHECK(take() == x[15] && take() == NULL);
    item *other = one(1);
    CHECK(take() == other);
    finish(x[0]);
    CHECK(take() == NULL); /* there are fourteen without it */
    finish(x[2]);
    CHECK(take() == x[16] && take() == NULL);
    resize(8);
    CHECK(take() == x[17] && take() == x[18] && take() == x[19]);
    finish_all();
}

static item *held;

static void hold(void *owner) { held = owner; }

/* A worker stopped in the middle of a pop still has its slot, so the ring may have no room for what was taken out. */
static void test_beside_popper(void)
{
    begin(1);
    resize(0);
    tg_ring *ring = &m.pool->ring;
    tg_ring_destroy(ring);
    CHECK(tg_ring_init(ring, 2));
    item *x = one(0), *y = one(1);
    CHECK(take() == x && take() == y);
    CHECK(tg_ring_push(ring, &x->token) && tg_ring_push(ring, &y->token));
    CHECK(atomic_fetch_add(&ring->head, 1) == 0);
    tg_token *out[8];
    CHECK(tg_pool_detach(m.pool, m.ops[2].op, out, 8) == 0); /* y comes out, and is not wanted */
    move(y, WAITS);
    compare();
    CHECK(tg_pool_find(m.pool, y->token.id, hold) == &y->token && held == y);
    atomic_store(&ring->slots[0].stamp, 2);
    CHECK(take() == y);
    CHECK(tg_ring_push(ring, &y->token));
    CHECK(atomic_fetch_add(&ring->head, 1) == 2);
    CHECK(tg_pool_recall(m.pool, out, 8) == 0 && tg_pool_detach(m.pool, NULL, out, 8) == 0);
    atomic_store(&ring->slots[0].stamp, 4);
    finish_all();
}

/* A place that comes back because a token goes back to its queue is there for the operation's other queues, too. */
static void test_give_back_to_other_queue(void)
{
    begin(1);
    configure(0, (tg_policy){.limit = 1, .key_limit = 1});
    item *x = one_with_key(0, 0);
    CHECK(take() == x && tg_ring_push(&m.pool->ring, &x->token));
    item *y = one(0);
    CHECK(take() == NULL);
    tg_token *out[1];
    CHECK(tg_pool_detach(m.pool, m.ops[1].op, out, 1) == 0);
    move(x, WAITS);
    compare();
    end(x, TG_CANCELLED);
    compare();
    CHECK(take() == y);
    finish_all();
}

static void test_find(void)
{
    begin(1);
    item *x = one(0), *y = one_with_key(0, 1), *z = one(1), *w = one_of_priority(0, 3);
    item *all[] = {x, y, z, w};
    for (size_t i = 0; i < 4; i++) {
        CHECK(tg_pool_find(m.pool, all[i]->token.id, hold) == &all[i]->token && held == all[i]);
    }
    held = NULL;
    CHECK(tg_pool_find(m.pool, 1000, hold) == NULL && held == NULL);
    CHECK(tg_pool_first(m.pool, m.ops[1].op, hold) == &z->token && held == z);
    CHECK(tg_pool_first(m.pool, m.ops[2].op, hold) == NULL);
    /* in the ring it is not found, but it can be called back */
    CHECK(take() == w && tg_ring_push(&m.pool->ring, &w->token));
    item *gone = take();
    CHECK(tg_ring_push(&m.pool->ring, &gone->token));
    end(gone, TG_CANCELLED);
    held = NULL;
    CHECK(tg_pool_find(m.pool, w->token.id, hold) == NULL && held == NULL);
    tg_token *out[2];
    CHECK(tg_pool_recall(m.pool, out, 2) == 1 && out[0] == &gone->token);
    move(w, WAITS);
    compare();
    CHECK(tg_pool_find(m.pool, w->token.id, hold) == &w->token && held == w);
    finish_all();
}

static uint64_t all_held;

static void hold_all(void *owner)
{
    (void)owner;
    all_held++;
}

static void test_list(void)
{
    begin(1);
    tg_token *out[4];
    CHECK(tg_pool_list(m.pool, out, 4, hold_all) == 0 && all_held == 0);
    item *x = one(0), *y = one_with_key(0, 1), *z = one(1);
    CHECK(tg_pool_list(m.pool, NULL, 0, hold_all) == 3 && all_held == 0);
    CHECK(tg_pool_list(m.pool, out, 2, hold_all) == 3 && all_held == 2);
    CHECK(tg_pool_list(m.pool, out, 4, hold_all) == 3 && all_held == 5);
    uint64_t ids = 0;
    for (size_t i = 0; i < 3; i++)
        ids += out[i]->id;
    CHECK_EQ(ids, x->token.id + y->token.id + z->token.id);
    finish_all();
}

/* Nobody is admitted or woken before somebody asks for it. */
static void test_quietly(void)
{
    begin(1);
    configure(0, (tg_policy){.limit = 1, .key_limit = 1});
    pause_op(0, true);
    item *x = one(0), *y = one(0);
    CHECK(!start_here(item_new(0, -1, false, 0)));
    m.items[2].at = GONE; /* never handed over */
    m.made--;
    tg_pool_pause_quietly(m.pool, m.ops[0].op, false);
    m.ops[0].paused = false;
    compare();
    CHECK(tg_ring_length(&m.pool->ring) == 0);
    help(x);
    help(y); /* there is no place */
    CHECK(x->at == RUNS && y->at == WAITS);
    tg_pool_configure_quietly(m.pool, m.ops[0].op, &(tg_policy){.limit = 2, .key_limit = 1});
    m.ops[0].policy.limit = 2;
    compare();
    CHECK(tg_ring_length(&m.pool->ring) == 0);
    help(y);
    CHECK(y->at == RUNS);
    item *z = item_new(0, -1, false, 0);
    CHECK(!start_here(z));
    submit(&z, 1, false);
    finish(x);
    tg_pool_freed_quietly(m.pool, m.ops[0].op);
    help(z);
    CHECK(z->at == RUNS);
    finish_all();
}

static void test_many_priorities(void)
{
    begin(1);
    for (int32_t i = 0; i < TG_QUEUES + 10; i++) { /* one after the other: their queues stay */
        item *x = item_new(0, -1, true, i - 20);
        x->in_main |= i > TG_QUEUES && i != 20; /* too many: they share the operation's own queue */
        x->extra.priority = i - 20;
        submit(&x, 1, false);
        CHECK(tg_queue_of(&x->token)->priority == (i - 20) || i >= TG_QUEUES);
        end(x, TG_CANCELLED);
    }
    CHECK(m.pool->n_queues == OPS + TG_QUEUES - 1);
    item *x = one_with_key(0, 0); /* one more is always there for keys */
    CHECK(take() == x);
    finish_all();
}

/* ---- random play --------------------------------------------------------------------------------------------- */

static item *any(int at)
{
    for (uint64_t n = 0, from = below(ITEMS); n < ITEMS; n++)
        if (m.items[(from + n) % ITEMS].at == at)
            return &m.items[(from + n) % ITEMS];
    return NULL;
}

static tg_policy random_policy(void)
{
    return (tg_policy){
        .limit = (uint32_t)below(5), .key_limit = 1 + (uint32_t)below(3), .max_waiting = below(2) ? 0 : 1 + below(8),
        .priority = (int32_t)below(3) - 1, .overflow = (uint8_t)below(3)};
}

static void random_submit(void)
{
    item *batch[4];
    size_t n = 1 + below(4), made = 0;
    int op = (int)below(OPS), kind = (int)below(3);
    for (; made < n; made++) {
        batch[made] = item_new(op, kind == 0 ? (int)below(KEYS) : -1, kind == 1, (int32_t)below(3) - 1);
        if (batch[made] == NULL)
            break;
    }
    if (made == 1 && below(2) == 0 && start_here(batch[0]))
        return;
    if (made > 0)
        submit(batch, made, below(4) == 0);
}

static void random_step(void)
{
    item *x;
    switch (below(20)) {
    case 0: case 1: case 2: case 3:
        random_submit();
        break;
    case 4: case 5: case 6: case 7:
        take();
        break;
    case 8: case 9:
        if ((x = any(ADMITTED)) != NULL)
            start(x);
        break;
    case 10: case 11: case 12:
        if ((x = any(RUNS)) != NULL)
            finish(x);
        break;
    case 13:
        if ((x = any((int[]){WAITS, ADMITTED, RUNS}[below(3)])) != NULL && !x->ended)
            end(x, TG_CANCELLED + (uint32_t)below(3));
        break;
    case 14:
        if ((x = any(below(2) ? WAITS : ADMITTED)) != NULL)
            help(x);
        break;
    case 15:
        pause_op((int)below(OPS + 1) - 1, below(3) == 0);
        break;
    case 16:
        configure((int)below(OPS), random_policy());
        break;
    case 17:
        if (below(4) == 0)
            detach((int)below(OPS + 1) - 1, 1 + below(8));
        break;
    case 18:
        m.now += (int64_t)below((uint64_t)TG_AGE_NS / 4);
        if (below(8) == 0)
            resize(below(2) ? 0 : 16);
        break;
    default:
        if ((x = any(RUNS)) != NULL && x->aside)
            step_back(x);
        else if (x != NULL)
            step_aside(x);
    }
    compare();
}

static void test_model(int rounds)
{
    for (int round = 0; round < rounds; round++) {
        begin(88172645463325252u + (unsigned)round);
        for (int i = 0; i < 400; i++)
            random_step();
        finish_all();
    }
}

int main(int argc, char **argv)
{
    int rounds = check_rounds(argc, argv);
    test_limit();
    test_limit_lowered();
    test_put_back_ended();
    test_pause();
    test_keys();
    test_priority();
    test_overflow();
    test_shed_and_delivered();
    test_help_taken();
    test_reserve();
    test_beside_popper();
    test_give_back_to_other_queue();
    test_find();
    test_list();
    test_quietly();
    test_many_priorities();
    test_model(rounds);
    return 0;
}
