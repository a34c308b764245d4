/* Timers: the deadlines of tokens, earliest first, in a binary heap; one thread sleeps until the next one.
 *
 * Only tokens with a deadline are here, each at most once, and none once it has ended: who ends a token disarms it
 * before letting go of it, so what the heap points to is alive whenever the lock is held.
 */
#ifndef TG_TIMER_H
#define TG_TIMER_H

#include "tg_parker.h"
#include "tg_token.h"

typedef struct {
    tg_mutex lock; /* guards everything below down to the parker */
    tg_extra **heap;
    size_t length, room;
    int64_t sleeping; /* the thread sleeps until then; INT64_MAX: until woken; 0: it is awake and will look */
    bool running;     /* there is a thread, or one is being started */
    bool closing;
    tg_parker parker;
    /* references. Written: retain (relaxed add), release (acq_rel sub: the last one sees all that others wrote). */
    _Atomic(uint32_t) references;
} tg_timers;

static inline tg_timers *tg_timers_new(void)
{
    tg_timers *s = (tg_timers *)calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    tg_mutex_init(&s->lock);
    tg_parker_init(&s->parker);
    atomic_init(&s->references, 1);
    return s;
}

static inline tg_timers *tg_timers_retain(tg_timers *s)
{
    atomic_fetch_add_explicit(&s->references, 1, memory_order_relaxed);
    return s;
}

static inline void tg_timers_release(tg_timers *s)
{
    if (atomic_fetch_sub_explicit(&s->references, 1, memory_order_acq_rel) != 1)
        return;
    tg_parker_destroy(&s->parker);
    tg_mutex_destroy(&s->lock);
    free(s->heap);
    free(s);
}

static inline void tg_timers_place(tg_timers *s, size_t at, tg_extra *x)
{
    s->heap[at] = x;
    x->timer_at = at + 1;
}

static inline void tg_timers_sift(tg_timers *s, size_t at)
{
    tg_extra *x = s->heap[at];
    int64_t due = tg_stamped(&x->deadline);
    while (at > 0 && due < tg_stamped(&s->heap[(at - 1) / 2]->deadline)) {
        tg_timers_place(s, at, s->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= s->length)
            break;
        if (child + 1 < s->length && tg_stamped(&s->heap[child + 1]->deadline) < tg_stamped(&s->heap[child]->deadline))
            child++;
        if (due <= tg_stamped(&s->heap[child]->deadline))
            break;
        tg_timers_place(s, at, s->heap[child]);
        at = child;
    }
    tg_timers_place(s, at, x);
}

static inline void tg_timers_remove(tg_timers *s, tg_extra *x)
{
    size_t at = x->timer_at - 1;
    tg_extra *last = s->heap[--s->length];
    x->timer_at = 0;
    if (last != x) {
        tg_timers_place(s, at, last);
        tg_timers_sift(s, at);
    }
}

/* What the caller owes after arming. */
enum tg_timers_debt { TG_TIMERS_NOTHING, TG_TIMERS_WAKE, TG_TIMERS_START, TG_TIMERS_NO_MEMORY };

/* Ends the token at `deadline` (monotonic ns), or at the one it has if that is earlier. Any thread that holds the token;
 * it then looks whether the token has ended meanwhile, and disarms it in that case. */
static inline enum tg_timers_debt tg_timers_arm(tg_timers *s, tg_extra *x, int64_t deadline)
{
    enum tg_timers_debt debt = TG_TIMERS_NOTHING;
    tg_mutex_lock(&s->lock);
    int64_t had = tg_stamped(&x->deadline);
    if (had == 0 || deadline < had)
        tg_stamp(&x->deadline, deadline);
    if (x->timer_at == 0) {
        if (s->length == s->room) {
            size_t room = s->room ? 2 * s->room : 64;
            tg_extra **grown = (tg_extra **)realloc(s->heap, room * sizeof *grown);
            if (grown == NULL) {
                tg_mutex_unlock(&s->lock);
                return TG_TIMERS_NO_MEMORY;
            }
            s->heap = grown;
            s->room = room;
        }
        tg_timers_place(s, s->length++, x);
    }
    tg_timers_sift(s, x->timer_at - 1);
    if (!s->running) {
        s->running = true;
        s->sleeping = 0;
        debt = TG_TIMERS_START;
    } else if (s->heap[0] == x && tg_stamped(&x->deadline) < s->sleeping) {
        s->sleeping = 0;
        debt = TG_TIMERS_WAKE;
    }
    tg_mutex_unlock(&s->lock);
    return debt;
}

/* The token has ended. Any thread that still holds it. */
static inline void tg_timers_disarm(tg_timers *s, tg_extra *x)
{
    tg_mutex_lock(&s->lock);
    if (x->timer_at != 0)
        tg_timers_remove(s, x);
    tg_mutex_unlock(&s->lock);
}

/* Takes out up to `most` tokens whose deadline has passed; `hold` takes a reference to each, under the lock. */
static inline size_t tg_timers_due(tg_timers *s, int64_t now, tg_token **out, size_t most, void (*hold)(void *owner))
{
    size_t count = 0;
    tg_mutex_lock(&s->lock);
    while (count < most && s->length > 0 && tg_stamped(&s->heap[0]->deadline) <= now) {
        tg_token *t = s->heap[0]->token;
        tg_timers_remove(s, s->heap[0]);
        hold(t->owner);
        out[count++] = t;
    }
    tg_mutex_unlock(&s->lock);
    return count;
}

/* Sleeps until a deadline has passed. False: closing, the thread must end. The timers' own thread, detached from the
 * interpreter. With nothing armed it sleeps until woken. */
static inline bool tg_timers_wait(tg_timers *s)
{
    for (;;) {
        tg_mutex_lock(&s->lock);
        int64_t next = s->length > 0 ? tg_stamped(&s->heap[0]->deadline) : INT64_MAX;
        bool closing = s->closing;
        s->sleeping = closing || next <= tg_now() ? 0 : next;
        if (closing)
            s->running = false;
        int64_t until = s->sleeping;
        tg_mutex_unlock(&s->lock);
        if (closing)
            return false;
        if (until == 0)
            return true;
        if (until == INT64_MAX)
            tg_park(&s->parker);
        else
            tg_park_until(&s->parker, until);
    }
}

static inline void tg_timers_wake(tg_timers *s)
{
    tg_unpark(&s->parker);
}

/* The thread could not be started; the next deadline tries again. */
static inline void tg_timers_start_failed(tg_timers *s)
{
    tg_mutex_lock(&s->lock);
    s->running = false;
    tg_mutex_unlock(&s->lock);
}

/* Its thread ends. Tokens that are still armed end in other ways. */
static inline void tg_timers_close(tg_timers *s)
{
    tg_mutex_lock(&s->lock);
    s->closing = true;
    s->sleeping = 0;
    tg_mutex_unlock(&s->lock);
    tg_unpark(&s->parker);
}

/* Timers may be armed again. The thread of before may still be there and goes on then. */
static inline void tg_timers_open(tg_timers *s)
{
    tg_mutex_lock(&s->lock);
    s->closing = false;
    tg_mutex_unlock(&s->lock);
}

#endif
