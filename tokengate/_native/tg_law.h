/* The control law of the active limit: how many workers may be active at once, judged over windows. Pure: what was
 * seen goes in, a limit and the reason come out; no clock, no lock, no thread. The keeper (tg_keeper.h) feeds it.
 *
 * Two quantities steer it. `busy` is the CPU time of the workers per second: while tokens wait and every active worker
 * is taken, a low one says that they sleep and that more of them would do more. `level` is the smoothed lag of the event
 * loop where it starved, that is, waited for an interpreter that workers held; lag that the loop's own callbacks made
 * never gets here.
 *
 * Capacity is what `busy` can reach: 1 under a GIL, the number of CPUs where the workers burn CPU outside of it (the
 * loop answers at once although they burn) or where there is no GIL. Below TG_LAW_ROOM of it the limit grows, fast while
 * workers sleep, and never past a multiple of capacity / (CPU share of one worker), where more workers could only wait
 * for each other. At capacity it does not grow; it shrinks if the lag says so, or if more burn than there are CPUs.
 */
#ifndef TG_LAW_H
#define TG_LAW_H

#include "tg_base.h"

#define TG_LAW_ROOM 0.93       /* below this part of capacity more workers may do more */
#define TG_LAW_FULL 0.98       /* above it fewer workers may do as much */
#define TG_LAW_BEYOND 0.85     /* the same where as many as there are CPUs burn outside the GIL already */
#define TG_LAW_QUICK 0.75      /* below it the limit doubles, if the workers' shares allow it, */
#define TG_LAW_ASLEEP 0.3      /* and below it also once capacity has been reached before */
#define TG_LAW_ALONE 0.65      /* workers with at least this CPU share are not let in beyond the CPUs, */
#define TG_LAW_ALONE_GIL 0.85  /* nor, with this one, a second one beside one that holds the GIL */
#define TG_LAW_SPREAD 2.5      /* phases are random: so many times capacity / share are needed to use it all */
#define TG_LAW_HALF 0.5        /* workers that use this burn, they do not only wake up now and then */
#define TG_LAW_ASLEEP_IN 12    /* in one look of so many all workers sleep, or the GIL is taken, */
#define TG_LAW_ASLEEP_FOR 4    /* and in one of so many where the limit is doubled */
#define TG_LAW_PART 0.25       /* workers that use less than this sleep, whatever else in the process burns */
#define TG_LAW_LUMP_NS 8000000 /* CPU time of the process is smoothed over about this */
#define TG_LAW_WANTING 0.8     /* so many of the active workers are ready to run */
#define TG_LAW_NEAR 0.8        /* lag above this part of the target: no step up, and one down where that is free */
#define TG_LAW_PRESSED 0.7     /* workers burn enough to starve a loop */
#define TG_LAW_PROMPT_NS 1000000     /* an answer within this: nobody holds the GIL */
#define TG_LAW_PROOFS 6              /* so many of them, and none later, prove it */
#define TG_LAW_TWO 1.2               /* more CPU than this cannot have been used by threads that hold the GIL */
#define TG_LAW_SLOW_NS 2000000       /* a mean beyond this: somebody does */
#define TG_LAW_RAMP_NS 900000        /* least window of a doubling, */
#define TG_LAW_DOUBT_NS 5000000      /* of one while workers burn, or may be waiting for a loop that does, */
#define TG_LAW_CUT_NS 15000000       /* of a cut, */
#define TG_LAW_STEP_NS 20000000      /* of a step up, and of a doubling once capacity has been reached before, */
#define TG_LAW_TRIM_NS 50000000      /* of a step down */
#define TG_LAW_WINDOW_NS 60000000    /* no window is longer */
#define TG_LAW_PROOF_NS 50000000     /* so long a prompt answer proves that the GIL was free */
#define TG_LAW_AGAIN_NS 500000000    /* after a cut, not before this up to where it was cut from; doubles each time */
#define TG_LAW_AGAIN_MOST_NS 8000000000

typedef enum {
    TG_LAW_STARTED,   /* the initial limit */
    TG_LAW_RAMPED,    /* doubled: the workers sleep */
    TG_LAW_STEPPED,   /* a step up: capacity is left */
    TG_LAW_PROBED,    /* a step up to see whether they hold the GIL */
    TG_LAW_CUT_LAG,   /* the loop starved */
    TG_LAW_CUT_CPU,   /* more burn CPU than there are CPUs */
    TG_LAW_TRIMMED,   /* a step down: fewer may do as much with less lag */
    TG_LAW_REVERTED,  /* the last step up brought nothing */
    TG_LAW_RESTED,    /* idle for a while: the initial limit again */
    TG_LAW_RESIZED,   /* asked for */
    TG_LAW_HELD,      /* no change */
} tg_reason;

/* What one look at the pool found. Times in ns. */
typedef struct {
    int64_t now, span;
    int64_t cpu;                    /* of all workers in `span`; -1: cannot be known here */
    int64_t ready;                  /* as long as they were running or ready to: by looking, so only roughly */
    int64_t loop_cpu;               /* of the busiest loop's thread */
    int64_t process;                /* of the process but for its loops' threads; -1: unknown */
    int64_t steady_cpu, steady;     /* of the workers that were active from beginning to end: CPU, and span summed */
    bool asleep;                    /* no worker was ready to run, and no loop without a CPU, or that cannot be known */
    uint32_t active, max, cpus;
    bool gil;
    bool full;                      /* tokens wait, every place is taken, and nobody is on the way */
    bool loop;                      /* there is an event loop to be careful of */
    uint32_t starved;               /* answers of loops that starved: how many, and how late at the mean */
    int64_t starved_lag;
    uint32_t prompt;                /* answers within TG_LAW_PROMPT_NS */
    uint32_t attached;              /* workers that attached to the interpreter, and how long that took in all */
    int64_t attach;
} tg_look;

typedef struct {
    int64_t target; /* lag to stay below */
    uint32_t limit;
    double level;   /* smoothed lag of loops that starved */
    double recent;  /* CPU s per s of the process but for its loops, over the last looks */
    double share;   /* CPU share that one active worker wants; an upper estimate */
    /* the window */
    int64_t span, cpu, process, ready, loop_cpu, steady_cpu, steady, attach;
    uint32_t starved, prompt, attached, looks, asleep;
    /* memory */
    int64_t proof;                 /* when a prompt answer last proved the GIL free; 0: never */
    uint32_t bad;                  /* a limit that starved the loop; not reached again before */
    int64_t bad_until, bad_for;
    int64_t trim_after, probe_after;
    bool settled;                  /* capacity has been reached: from now on in steps */
    uint32_t before;               /* the limit before the last step up, and how busy it was */
    double before_busy;
} tg_law;

typedef struct { uint32_t limit; tg_reason reason; double busy; } tg_ruling;

static inline void tg_law_restart(tg_law *s)
{
    s->span = s->cpu = s->process = s->ready = s->loop_cpu = s->steady_cpu = s->steady = s->attach = 0;
    s->starved = s->prompt = s->attached = s->looks = s->asleep = 0;
}

/* Forgets what it learnt. */
static inline void tg_law_reset(tg_law *s, uint32_t limit)
{
    int64_t target = s->target;
    *s = (tg_law){0};
    s->target = target;
    s->limit = limit;
}

static inline void tg_law_absorb(tg_law *s, const tg_look *l)
{
    s->span += l->span;
    s->cpu += l->cpu > 0 ? l->cpu : 0;
    s->process += l->process > 0 ? l->process : 0;
    s->ready += l->ready;
    s->looks++;
    s->asleep += l->asleep;
    s->loop_cpu += l->loop_cpu;
    s->steady_cpu += l->steady_cpu;
    s->steady += l->steady;
    s->attach += l->attach;
    s->attached += l->attached;
    s->starved += l->starved;
    s->prompt += l->prompt;
    for (uint32_t i = 0; i < l->starved && i < 8; i++) {
        /* one outlier is worth two targets at the most, and a quarter of that: it takes more to cut */
        double lag = (double)l->starved_lag, most = 2.0 * (double)s->target;
        s->level += ((lag > most ? most : lag) - s->level) * 0.25;
    }
    for (uint32_t i = 0; i < l->prompt && i < 8; i++)
        s->level -= s->level * 0.25;
}

static inline tg_ruling tg_law_to(tg_law *s, uint32_t limit, tg_reason reason, double busy)
{
    s->limit = limit;
    tg_law_restart(s);
    return (tg_ruling){limit, reason, busy};
}

static inline tg_ruling tg_law_judge(tg_law *s, const tg_look *l)
{
    tg_law_absorb(s, l);
    tg_ruling held = {s->limit, TG_LAW_HELD, 0};
    if (s->span <= 0)
        return held;
    double span = (double)s->span, target = (double)s->target;
    double attach = s->attached ? (double)s->attach / s->attached : 0;
    bool slow = l->gil && (l->loop ? s->level >= TG_LAW_SLOW_NS : attach >= TG_LAW_SLOW_NS);
    double busy = l->cpu >= 0 ? (double)s->cpu / span : slow ? 1.0 : 0.0;
    /* Libraries compute on threads of their own while the worker that asked for it sleeps. What the process uses counts
     * where workers are at least part of it; the clock that tells it is known in lumps of some ms. */
    if (l->span > 0 && l->process >= 0) {
        double weight = (double)l->span / TG_LAW_LUMP_NS;
        s->recent += ((double)l->process / (double)l->span - s->recent) * (weight > 1 ? 1 : weight);
    }
    double whole = busy >= TG_LAW_PART && s->recent > busy ? s->recent : busy;
    if (busy >= TG_LAW_PART && s->span >= TG_LAW_STEP_NS && (double)s->process / span > whole)
        whole = (double)s->process / span; /* the last moment may have been one in which others had the CPUs */
    held.busy = busy;
    if (l->active > s->limit) {
        /* A cut takes effect as tokens end; what is seen until then says nothing about it. But those that are past the
         * limit may sleep for ever, and then the others must not wait for them. */
        uint32_t to = l->active + (l->active / 4 ? l->active / 4 : 1);
        if (to > l->max)
            to = l->max;
        if (l->full && to > s->limit && s->span >= TG_LAW_STEP_NS && whole < TG_LAW_ASLEEP && s->starved == 0 &&
            s->steady > 0 && (double)s->ready < 0.5 * (double)s->steady)
            return tg_law_to(s, to, TG_LAW_RAMPED, busy);
        if (s->span >= TG_LAW_WINDOW_NS || !l->full)
            tg_law_restart(s);
        return held;
    }

    /* Two threads that hold the GIL in turn cannot use more than one CPU. And by chance a loop answers at once now and
     * then although somebody holds it, but not so often in a row. */
    if (busy >= 0.5 && !slow && (whole >= TG_LAW_TWO || (l->loop ? s->prompt >= TG_LAW_PROOFS && s->starved == 0
                                                                : s->attached > 0 && attach < TG_LAW_PROMPT_NS)))
        s->proof = l->now;
    /* Of those that share a GIL all but one sleep: all of them ready means that they want CPUs and have none. */
    bool wanting = s->steady >= TG_LAW_CUT_NS && (double)s->ready >= TG_LAW_WANTING * (double)s->steady;
    if (wanting && l->active > 1 && (double)s->ready >= TG_LAW_TWO * span)
        s->proof = l->now;
    else if (slow)
        s->proof = 0;
    bool free_gil = !l->gil || (s->proof != 0 && l->now - s->proof <= TG_LAW_PROOF_NS);
    double capacity = free_gil ? (double)l->cpus : 1.0;
    double load = free_gil ? whole : busy;
    /* What they would use with CPUs of their own. Several that share a GIL are not asked: a look comes with the timers
     * that wake them, and finds more of them ready than there are. */
    bool ask = free_gil || l->active <= 1;
    if (ask && load < (double)s->ready / span)
        load = (double)s->ready / span;

    if (!free_gil && busy >= TG_LAW_HALF)
        load += (double)s->loop_cpu / span; /* the loop needs the GIL, too: workers that burn can have what it leaves */

    /* How much CPU one worker wants shows only while they do not wait for each other. */
    if (s->steady > 0) {
        double share = (double)(ask && s->ready > s->steady_cpu ? s->ready : s->steady_cpu) / (double)s->steady;
        double weight = (double)l->steady / TG_LAW_STEP_NS; /* a short look may have met one phase of a token */
        if (share > s->share || load < TG_LAW_ROOM * capacity)
            s->share += ((share > 1 ? 1 : share) - s->share) * (weight > 0.5 ? 0.5 : weight);
    }

    /* down */
    if (l->gil && l->loop && s->level > target && s->starved > 0 && l->active > 1 && s->span >= TG_LAW_CUT_NS &&
        (busy >= TG_LAW_PRESSED || attach >= TG_LAW_SLOW_NS) &&
        (load >= TG_LAW_ROOM * capacity || s->level > 1.5 * target)) {
        double keep = target / s->level;
        uint32_t to = (uint32_t)((double)l->active * (keep < 0.5 ? 0.5 : keep > 0.85 ? 0.85 : keep));
        s->bad = l->active;
        s->bad_for = s->bad_for == 0 ? TG_LAW_AGAIN_NS : s->bad_for < TG_LAW_AGAIN_MOST_NS ? 2 * s->bad_for : s->bad_for;
        s->bad_until = l->now + s->bad_for;
        s->level = target * 0.5; /* what comes now is judged afresh */
        s->before = 0;
        s->settled = true;
        return tg_law_to(s, to < 1 ? 1 : to, TG_LAW_CUT_LAG, busy);
    }
    if (free_gil && l->active > l->cpus && whole >= TG_LAW_ROOM * capacity &&
        s->span >= TG_LAW_STEP_NS) {
        uint32_t to = l->active * 3 / 4;
        s->before = 0;
        return tg_law_to(s, to < l->cpus ? l->cpus : to, TG_LAW_CUT_CPU, busy);
    }
    if (!free_gil && l->loop && l->active > 1 && l->active == s->limit && busy >= TG_LAW_FULL && s->level > TG_LAW_NEAR * target &&
        s->span >= TG_LAW_TRIM_NS && l->now >= s->trim_after) {
        s->before = 0;
        s->trim_after = l->now + TG_LAW_STEP_NS;
        return tg_law_to(s, s->limit - 1, TG_LAW_TRIMMED, busy);
    }

    /* up */
    if (!l->full || s->limit >= l->max) {
        if (!l->full || s->span >= TG_LAW_WINDOW_NS)
            tg_law_restart(s);
        return held;
    }
    /* Where CPUs are short, those that share a GIL use little of what they want. But at any time one of them is ready. */
    if (!free_gil && s->asleep * TG_LAW_ASLEEP_IN < s->looks) {
        if (s->span >= TG_LAW_WINDOW_NS)
            tg_law_restart(s);
        return held;
    }
    uint32_t most = l->max;
    if (l->now < s->bad_until && s->bad - 1 < most)
        most = s->bad > 1 ? s->bad - 1 : 1;
    /* There others that have the CPUs for a moment make it look as if workers left them free: judged over a longer window. */
    bool beyond = l->gil && free_gil && s->limit >= l->cpus && load >= TG_LAW_HALF * capacity;
    if (load >= (beyond ? TG_LAW_BEYOND : TG_LAW_ROOM) * capacity) {
        s->before = 0;
        s->settled = s->settled || s->span >= TG_LAW_DOUBT_NS;
        if (!free_gil && !l->loop && s->attached == 0 && s->limit < l->cpus && s->limit < most &&
            s->span >= TG_LAW_CUT_NS && l->now >= s->probe_after) {
            s->probe_after = l->now + 2 * TG_LAW_AGAIN_NS;
            return tg_law_to(s, s->limit + 1, TG_LAW_PROBED, busy);
        }
        if (s->span >= TG_LAW_WINDOW_NS)
            tg_law_restart(s);
        return held;
    }
    double knee = s->share > 0.001 ? capacity / s->share : 1e6;
    knee = knee * TG_LAW_SPREAD + 0.99;
    if (s->share >= (free_gil ? TG_LAW_ALONE : TG_LAW_ALONE_GIL))
        knee = capacity;
    if (knee < most)
        most = (uint32_t)knee;
    if (s->limit >= most || (l->loop && s->level > TG_LAW_NEAR * target && busy >= 0.5)) {
        if (s->span >= TG_LAW_WINDOW_NS)
            tg_law_restart(s);
        return held;
    }
    if (load < whole)
        load = whole;
    bool doubt = s->settled || load >= TG_LAW_ASLEEP || (!free_gil && (double)s->loop_cpu >= TG_LAW_ASLEEP * span);
    if (load < (s->settled ? TG_LAW_ASLEEP : TG_LAW_QUICK) && s->steady >= TG_LAW_RAMP_NS &&
        s->asleep * TG_LAW_ASLEEP_FOR >= s->looks &&
        (double)s->ready < 0.5 * (double)s->steady && /* asleep, and not only without a CPU */
        s->span >= (s->settled ? TG_LAW_STEP_NS : doubt ? TG_LAW_DOUBT_NS : TG_LAW_RAMP_NS)) {
        uint32_t to = s->limit * 2;
        s->before = 0;
        return tg_law_to(s, to > most ? most : to, TG_LAW_RAMPED, busy);
    }
    if (s->span < (beyond ? TG_LAW_WINDOW_NS : TG_LAW_STEP_NS))
        return held;
    if (s->before != 0 && s->before < s->limit && busy >= 0.5 && busy < s->before_busy * 1.02) {
        uint32_t to = s->before;
        s->bad = s->limit;
        s->bad_until = l->now + TG_LAW_AGAIN_NS;
        s->before = 0;
        return tg_law_to(s, to, TG_LAW_REVERTED, busy);
    }
    uint32_t step = s->limit / 4 ? s->limit / 4 : 1, to = s->limit + step;
    s->before = s->limit;
    s->before_busy = busy;
    if (s->trim_after != 0)
        s->trim_after = l->now + 2 * TG_LAW_AGAIN_NS; /* a step down cost throughput: not again for a while */
    return tg_law_to(s, to > most ? most : to, TG_LAW_STEPPED, busy);
}

#endif
