/* The workers' side of a pool: they wait, claim, take the next token, help themselves, and leave. Rules [P1] to [P5]:
 * tg_pool.h. */
#ifndef TG_CREW_H
#define TG_CREW_H

#include "tg_pool_state.h"

/* A thread that tg_summons asked for takes a worker's record. NULL: no memory; call tg_pool_start_failed. */
static inline tg_worker *tg_pool_enter(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    tg_worker *w = p->spare;
    if (w != NULL) {
        p->spare = w->next_free;
    } else {
        w = (tg_worker *)calloc(1, sizeof *w);
        if (w == NULL) {
            tg_mutex_unlock(&p->lock);
            return NULL;
        }
        tg_parker_init(&w->parker);
        atomic_init(&w->runs, NULL);
        w->index = p->records++;
        w->next_all = p->all;
        p->all = w;
    }
    w->summoned = true;
    w->present = true;
    w->guest = TG_GUEST_NONE;
    w->parked = false;
    w->wake_fd = 0;
    w->clock = tg_own_clock();
    w->state = NULL;
    atomic_store_explicit(&w->runs, NULL, memory_order_relaxed);
#if !defined(_WIN32)
    w->thread = pthread_self();
#endif
    tg_mutex_unlock(&p->lock);
    return w;
}

/* `holds` can tell of this worker whether it holds the GIL, by `state`, until it leaves. On its own thread. */
static inline void tg_pool_watch_gil(tg_pool *p, tg_worker *w, bool (*holds)(void *state), void *state)
{
    tg_mutex_lock(&p->lock);
    p->steer.holds = holds;
    w->state = state;
    tg_mutex_unlock(&p->lock);
}

/* Which operation's function the worker is in from now on; NULL: none. On its own thread. */
static inline void tg_worker_runs(tg_worker *w, tg_op *op)
{
    atomic_store_explicit(&w->runs, op, memory_order_relaxed);
}

static inline tg_op *tg_worker_running(tg_worker *w)
{
    return atomic_load_explicit(&w->runs, memory_order_relaxed);
}

/* The thread could not be started. Returns how many workers are left; with none, the caller ends
 * what waits, or leaves it to the next submission, which tries again. */
static inline uint32_t tg_pool_start_failed(tg_pool *p)
{
    tg_mutex_lock(&p->lock);
    uint32_t left = --p->workers;
    p->waking = false;
    p->steer.invited = TG_GUEST_NONE;
    tg_summons s = {NULL, false, false, false};
    if (p->idle != NULL) {
        s = tg_pool_choose(p); /* the place it held may be free for one that had to park as surplus */
        p->room |= s.room;
    }
    tg_mutex_unlock(&p->lock);
    if (s.wake != NULL)
        tg_worker_wake(s.wake);
    return left;
}

static inline uint64_t tg_thread_cpu(tg_worker *w)
{
#if defined(__linux__)
    clockid_t clock;
    struct timespec ts;
    if (pthread_getcpuclockid(w->thread, &clock) == 0 && clock_gettime(clock, &ts) == 0)
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
#else
    (void)w;
#endif
    return 0;
}

static inline void tg_pool_settle(tg_pool *p, tg_worker *w)
{
    tg_op *op = w->due_op;
    if (op == NULL)
        return;
    tg_fair_charge(&p->gate.fair, op, w->due_run - w->due_charge);
    if (w->due_tokens > 0) {
        int64_t each = w->due_run / w->due_tokens, mean = (int64_t)op->mean;
        int64_t weight = w->due_tokens < 8 ? w->due_tokens : 8;
        op->mean = (uint64_t)(op->measured ? mean + (each - mean) * weight / 8 : each);
        op->measured = true;
    }
    w->due_op = NULL;
    w->due_run = w->due_charge = 0;
    w->due_tokens = 0;
}

/* ---- a guest ------------------------------------------------------------------------------------------------- */

/* None of the operation's functions is at work. */
static inline bool tg_op_absent(tg_op *op)
{
    return atomic_load_explicit(&op->started, memory_order_relaxed) ==
           atomic_load_explicit(&op->returned, memory_order_relaxed);
}

/* Its tokens are for such a guest. */
static inline bool tg_op_for_guest(tg_op *op, tg_guest guest)
{
    return tg_op_absent(op) && (guest == TG_GUEST_ANY || (op->measured && op->mean <= TG_GUEST_NS));
}

/* The queue in the heap that such a guest takes from; NULL: none. */
static inline tg_queue *tg_pool_queue_for(tg_pool *p, tg_guest guest)
{
    tg_fair *fair = &p->gate.fair;
    tg_queue *best = NULL;
    for (size_t i = 0; i < fair->length; i++) {
        tg_queue *q = fair->queues[i];
        if (guest == TG_GUEST_SHORT && !q->aged && q->priority < fair->queues[0]->priority)
            continue;
        if (tg_op_for_guest(q->op, guest) && (best == NULL || tg_fair_before(q, best)) && tg_gate_open(&p->gate, q))
            best = q;
    }
    return best;
}

/* True: such a guest may find a token. */
static inline bool tg_pool_others_wait(tg_pool *p, tg_guest guest)
{
    /* whose those in the ring are is seen only by taking them out */
    return tg_ring_length(&p->ring) > 0 || tg_pool_queue_for(p, guest) != NULL;
}

/* Takes a token for a guest, out of the ring or the queues; what lies in the ring before it goes back to its queue, in
 * order. NULL: there is none. */
static inline tg_token *tg_pool_take_other(tg_pool *p, tg_guest guest, int64_t now)
{
    tg_token *found = NULL;
    tg_queue *q;
    uint64_t taken = 0;
    while (found == NULL) {
        tg_token *t = (tg_token *)tg_ring_pop(&p->ring);
        if (t == NULL)
            break;
        taken++;
        /* The others go back to their queues. One that cannot has ended or been started, and is the caller's to skip. */
        if (tg_op_for_guest(t->op, guest) || !tg_gate_give_back(&p->gate, t))
            found = t;
    }
    while (found == NULL && (q = tg_pool_queue_for(p, guest)) != NULL) {
        found = tg_gate_admit_from(&p->gate, q, now);
        if (found == NULL)
            continue; /* that one had ended */
        taken++;
        p->steer.taken++;
        p->room = p->room || found->op->room_wanted;
    }
    p->steer.visited += guest == TG_GUEST_SHORT ? taken : 0;
    return found;
}

/* A token past the limit for a worker that comes as a guest, or goes on as one. NULL: none, and it is no guest. */
static inline tg_token *tg_pool_entertain(tg_pool *p, tg_worker *w, tg_guest guest, int64_t now)
{
    tg_token *t = tg_pool_take_other(p, guest, now);
    if (t != NULL) {
        w->guest = guest;
        p->steer.guests++;
    }
    return t;
}

/* The worker that was summoned by an invitation. */
static inline tg_token *tg_pool_welcome(tg_pool *p, tg_worker *w)
{
    tg_guest guest = p->steer.invited;
    p->steer.invited = TG_GUEST_NONE;
    if (tg_pool_places(p) <= (int64_t)p->limit)
        return NULL; /* a place has become free meanwhile */
    w->stay = 0;
    return tg_pool_entertain(p, w, guest, tg_now());
}

/* Lets a guest in: the next worker to arrive, unless one is on its way for another reason. */
static inline tg_summons tg_pool_invite(tg_pool *p, tg_guest guest)
{
    tg_mutex_lock(&p->lock);
    bool free = !p->waking;
    if (free)
        p->steer.invited = guest;
    tg_summons s = tg_pool_choose(p);
    if (free && !p->waking)
        p->steer.invited = TG_GUEST_NONE; /* there is nobody to come */
    tg_mutex_unlock(&p->lock);
    return s;
}

/* One look for work, without waiting. Returns a token ADMITTED, or NULL: the worker is among the idle now, and whoever has
 * work wakes it. left: it has left the pool instead and must end. */
static inline tg_token *tg_pool_poll(tg_pool *p, tg_worker *w, bool *left)
{
    tg_mutex_lock(&p->lock);
    if (w->parked) { /* woken by something else than this pool */
        tg_worker **at = &p->idle;
        while (*at != w)
            at = &(*at)->next_idle;
        *at = w->next_idle;
        p->n_idle--;
        w->parked = false;
    }
    tg_pool_settle(p, w);
    tg_token *t = NULL;
    if (w->summoned && p->steer.invited != TG_GUEST_NONE)
        t = tg_pool_welcome(p, w);
    if (t == NULL && tg_pool_places(p) <= (int64_t)p->limit)
        t = tg_pool_take(p, tg_now());
    if (t != NULL) {
        tg_mutex_unlock(&p->lock);
        return t;
    }
    tg_pool_arrive(p, w);
    bool excess = (int64_t)p->workers - tg_pool_replaced(p) > (int64_t)p->max_workers;
    /* Closing: there is no work, or the limit keeps it from this worker and leaves it to the active ones. Either way
     * nobody parks in a closing pool, for nobody would wake it again. */
    if (excess || p->closing) {
        p->workers--;
        p->cpu_before += tg_thread_cpu(w);
        w->present = false;
        w->next_free = p->spare;
        p->spare = w;
        /* nobody to wake in its place: it found no work, or what is left active still fills the limit */
        *left = true;
    } else {
        w->next_idle = p->idle;
        p->idle = w;
        p->n_idle++;
        w->parked = true;
    }
    tg_mutex_unlock(&p->lock);
    return NULL;
}

/* Waits for a token. Returns it ADMITTED, or NULL: the worker has left the pool and must end. Called detached from
 * the interpreter. */
static inline tg_token *tg_pool_wait(tg_pool *p, tg_worker *w)
{
    for (;;) {
        bool left = false;
        tg_token *t = tg_pool_poll(p, w, &left);
        if (t != NULL || left)
            return t;
        tg_park(&w->parker);
    }
}

/* The claimant is about to run; with it attached the next may be woken [P3]. */
static inline tg_summons tg_pool_claimed(tg_pool *p, tg_worker *w)
{
    tg_mutex_lock(&p->lock);
    tg_pool_arrive(p, w);
    tg_pool_refill(p, tg_now());
    tg_summons s = tg_pool_choose(p);
    tg_mutex_unlock(&p->lock);
    return s;
}

/* The slow half of tg_pool_next and tg_pool_skip: settle, admit, take, choose whom to wake. */
static inline tg_token *tg_pool_turn(tg_pool *p, tg_worker *w, tg_op *op, bool late, int64_t now, tg_summons *out)
{
    tg_token *t = NULL;
    *out = (tg_summons){NULL, false, false, false};
    tg_mutex_lock(&p->lock);
    if (late)
        p->abandoned--;
    if (w->guest != TG_GUEST_NONE)
        w->stay += w->due_run; /* a guest settles after each token */
    tg_pool_settle(p, w);
    if (op != NULL && tg_op_gated(op))
        tg_gate_refresh_op(&p->gate, op);
    tg_guest guest = w->guest;
    if (guest != TG_GUEST_NONE) {
        w->guest = TG_GUEST_NONE;
        p->steer.guests--;
    }
    if (tg_pool_places(p) <= (int64_t)p->limit) {
        t = tg_pool_take(p, now);
        *out = tg_pool_choose(p); /* without a token there is no work, so it asks for nothing */
    } else if (guest != TG_GUEST_NONE && w->stay < TG_GUEST_NS) {
        t = tg_pool_entertain(p, w, guest, now);
        *out = tg_pool_choose(p);
    }
    tg_mutex_unlock(&p->lock);
    return t;
}

/* A function of `op` has returned after `run` ns: notes it in the worker's account. */
static inline void tg_pool_book(tg_pool *p, tg_worker *w, tg_op *op, int64_t charge, int64_t run)
{
    if (w->due_op != NULL && w->due_op != op) {
        tg_mutex_lock(&p->lock);
        tg_pool_settle(p, w);
        tg_mutex_unlock(&p->lock);
    }
    w->due_op = op;
    w->due_run += run;
    w->due_charge += charge;
    w->due_tokens++;
}

/* A function of `op` has returned after `run` ns: takes the next token without waiting, lock-free while the account
 * is small. NULL: nothing to run and nothing asked in `out`, go to tg_pool_wait. late: the token had been abandoned
 * before. */
static inline tg_token *tg_pool_next(tg_pool *p, tg_worker *w, tg_op *op, int64_t charge, int64_t run, bool late,
                                     int64_t now, tg_summons *out)
{
    tg_pool_book(p, w, op, charge, run);
    if (!late && w->guest == TG_GUEST_NONE && !tg_op_gated(op) && w->due_run < TG_SETTLE_NS && w->due_tokens < TG_SETTLE_TOKENS) {
        tg_token *t = (tg_token *)tg_ring_pop(&p->ring);
        if (t != NULL) {
            *out = (tg_summons){NULL, false, false, false};
            return t;
        }
    }
    return tg_pool_turn(p, w, op, late, now, out);
}

/* A token that was popped had ended already (its charge goes back): takes the next one. */
static inline tg_token *tg_pool_skip(tg_pool *p, tg_worker *w, tg_op *op, int64_t charge, int64_t now,
                                     tg_summons *out)
{
    tg_mutex_lock(&p->lock);
    tg_fair_charge(&p->gate.fair, op, -charge);
    tg_mutex_unlock(&p->lock);
    return tg_pool_turn(p, w, op, false, now, out);
}

/* Starts a popped token of a barred operation, if it may start; see tg_gate_start. */
static inline enum tg_start tg_pool_start(tg_pool *p, tg_token *t)
{
    tg_mutex_lock(&p->lock);
    enum tg_start how = tg_gate_start(&p->gate, t);
    tg_mutex_unlock(&p->lock);
    return how;
}

/* The next token for a worker that has run none. */
static inline tg_token *tg_pool_again(tg_pool *p, tg_worker *w, int64_t now, tg_summons *out)
{
    return tg_pool_turn(p, w, NULL, false, now, out);
}

/* For a worker that is about to wait for this very token: starts it, if it has not started and pause, limit and key let
 * it. True: the caller runs it; `was` tells from which state, and from WAITING it owns the queue's reference. */
static inline bool tg_pool_help(tg_pool *p, tg_token *t, int64_t now, uint32_t *was, tg_summons *out)
{
    tg_op *op = t->op;
    tg_key *key = t->extra != NULL ? t->extra->key : NULL;
    bool ours = false;
    *out = (tg_summons){NULL, false, false, false};
    tg_mutex_lock(&p->lock);
    uint32_t state = tg_state_of(tg_word_load(&t->word));
    bool may = !op->paused && !p->gate.paused;
    if (op->policy.limit != 0 && tg_op_executing(op) >= (int64_t)op->policy.limit)
        may = false;
    if (state == TG_WAITING)
        may = may && t->linked && (op->policy.limit == 0 || tg_gate_has_place(&p->gate, op)) &&
              (key == NULL || (key->ready && key->head == t));
    else
        may = may && (op->policy.limit == 0 || tg_op_places(op) <= (int64_t)op->policy.limit) &&
              (key == NULL || key->running <= op->policy.key_limit); /* beyond it: to be ended, not run */
    if (may && (state == TG_WAITING || state == TG_ADMITTED)) {
        tg_step step = tg_word_try_start(&t->word);
        ours = step.moved;
        *was = tg_state_of(step.old);
    }
    if (ours) {
        tg_count(&op->started);
        if (*was == TG_WAITING) {
            tg_op_unlink(&p->gate, t);
            tg_stamp(&t->admitted, now);
            tg_count(&op->admitted);
            if (key != NULL)
                tg_key_take(t->extra);
            out->room = op->room_wanted;
        }
    }
    tg_mutex_unlock(&p->lock);
    return ours;
}

/* For a caller that runs functions itself: starts a token that nobody else knows yet, past queue and ring, if pause, limit
 * and key let it. It takes no worker, so it asks for none. False: nothing has happened, hand it over. */
static inline bool tg_pool_start_here(tg_pool *p, tg_token *t, int64_t now)
{
    tg_op *op = t->op;
    tg_key *key = t->extra != NULL ? t->extra->key : NULL;
    tg_mutex_lock(&p->lock);
    bool may = p->accepting && !op->paused && !p->gate.paused;
    if (op->policy.limit != 0)
        may = may && tg_gate_has_place(&p->gate, op) && tg_op_executing(op) < (int64_t)op->policy.limit;
    if (key != NULL) /* in order: not before those of its key that wait */
        may = may && key->head == NULL && key->running < op->policy.key_limit;
    if (may) {
        tg_step step = tg_word_submit(&t->word);
        assert(step.moved);
        step = tg_word_try_start(&t->word);
        assert(step.moved);
        (void)step;
        tg_count(&op->submitted);
        tg_stamp(&t->admitted, now);
        tg_count(&op->admitted);
        tg_count(&op->started);
        if (key != NULL)
            tg_key_take(t->extra);
    }
    tg_mutex_unlock(&p->lock);
    return may;
}

#endif
