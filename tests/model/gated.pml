/* Places of an operation with a limit: tg_places.h, and what tg_pool.h does with `gated` and `barred`.
 *
 * An operation is taken out of the heap when all its places are taken, and whoever gives a place back outside the lock
 * has to notice. Waking is that of pool.pml without its details: at most one idle worker at a time is called. README.md
 * maps each part to the C code and says what is left out.
 *
 * Shape: TOKENS, WORKERS, LIMIT. Also: CANCEL (token 0 may be ended at any moment), CONFIGURE=n (the limit becomes n at
 * some moment), PAUSE (the operation is paused and resumed), RECALL (what lies in the ring goes back at
 * some moment).
 *
 * Each macro that starts with BREAK_ leaves one thing out that the protocol needs. Two of them weaken a memory order:
 * GATED_HELD keeps a store where only its own thread sees it, until `memory` lets it out, and ASKED_FIRST is what a
 * processor makes of a plain count before a plain look.
 */
#ifndef TOKENS
#define TOKENS 3
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef LIMIT
#define LIMIT 1
#endif

#define RING 2
#define NONE 255

#define CREATED 0
#define WAITING 1
#define ADMITTED 2
#define EXECUTING 3
#define COMPLETED 4
#define CANCELLED 5

byte state[TOKENS];
bool linked[TOKENS];
byte waiting;
chan ring = [RING] of { byte };

bool lock;
byte limit = LIMIT;
bool in_heap;              /* the operation's queue: it may be admitted from */
bool paused, barred;
byte admitted;             /* written under the lock */
byte returned, dropped;    /* written by whoever gives the place back */
byte started;
bool gated;
bool waking;
byte n_idle, called;       /* workers that sleep; wake-ups on their way to them */

bool gated_held;           /* BREAK_GATED_HELD: `gated = 1`, not visible yet */

/* What is watched, and steers the run; no part of the protocol. */
byte running;              /* functions on a worker's stack, abandoned ones too */
bool lowered;              /* what had been admitted before may exceed the limit */
bool released;             /* blocked functions may return */

#define places (admitted - returned - dropped)
#define has_place (places < limit)
#define executing (started - returned)
#define may_be_open (waiting > 0 && !paused)
#define work (len(ring) > 0 || in_heap)

/* The release of the lock also lets out what its holder has stored. */
#define UNLOCK atomic { !gated_held -> lock = false }

/* ---- under the lock: tg_places.h -------------------------------------------------------------------------------- */

/* tg_gate_open: announced first, looked at again second. */
inline look()
{
    if
    :: !may_be_open -> open = false
    :: may_be_open && has_place -> open = true
    :: else ->
#ifdef BREAK_GATED_HELD
        gated_held = true;
#else
        gated = true;
#endif
#ifdef BREAK_NO_RECHECK
        open = false
#else
        open = has_place
#endif
    fi
}

/* tg_gate_refresh */
inline refresh()
{
    look();
    atomic { in_heap = open; open = false }
}

/* tg_gate_refresh_op */
inline refresh_operation()
{
    atomic { gated = false; gated_held = false }
    refresh()
}

/* tg_op_link */
inline link(t)
{
    atomic { linked[t] = true; waiting++ }
    if
    :: !in_heap -> refresh()
    :: else
    fi
}

/* tg_op_unlink */
inline unlink(t)
{
    linked[t] = false;
    waiting--;
    if
    :: waiting == 0 -> in_heap = false
    :: else
    fi
}

/* tg_gate_give_back */
inline put_back(t)
{
    atomic {
        if
        :: state[t] == ADMITTED ->
            state[t] = WAITING;
#ifndef BREAK_GIVE_BACK_KEEPS
            admitted--;
#endif
            back = true
        :: else
        fi
    }
    if
    :: back -> link(t)
    :: else
    fi
}

/* tg_gate_admit */
inline admit(t)
{
    t = NONE;
    do
    :: t == NONE && in_heap ->
        look();
        atomic {
            if
            :: open ->
                if
                :: linked[0] -> t = 0
                :: linked[1] -> t = 1
#if TOKENS > 2
                :: linked[2] -> t = 2
#endif
#if TOKENS > 3
                :: linked[3] -> t = 3
#endif
                fi;
                unlink(t);
                if
                :: state[t] == WAITING -> state[t] = ADMITTED; admitted++
                :: else -> t = NONE
                fi
            :: else -> in_heap = false
            fi;
            open = false
        }
    :: else -> break
    od
}

/* tg_pool_refill */
inline refill()
{
    do
    :: in_heap && len(ring) < RING ->
        admit(other);
        atomic {
            if
            :: other != NONE -> ring!other
            :: else
            fi;
            other = 0
        }
    :: true -> break /* how many may lie in the ring is tg_pool_depth's choice: any number, none too */
    od
}

/* tg_ring_pop */
inline pop(t)
{
    atomic {
        if
        :: len(ring) > 0 -> ring?t
        :: else -> t = NONE
        fi
    }
}

/* tg_pool_choose: wakes one if none is on its way. */
inline choose()
{
    atomic {
        if
        :: !waking && work && n_idle > 0 -> n_idle--; waking = true; called++
        :: else
        fi
    }
}

/* tg_op_give_place: counted first, looked at `gated` second. */
inline give_place(counter)
{
#ifdef BREAK_ASKED_FIRST
    asked = gated;
    counter++
#else
    counter++;
    asked = gated
#endif
}

/* tg_pool_freed */
inline freed()
{
    atomic { !lock -> lock = true }
    refresh_operation();
    refill();
#ifndef BREAK_FREED_SILENT
    choose();
#endif
    UNLOCK
}

/* ---- submitter: tg_pool_submit, one token at a time ------------------------------------------------------------- */

active proctype submitter()
{
    byte t, other;
    bool open;

    do
    :: t < TOKENS ->
        atomic { !lock -> lock = true; state[t] = WAITING }
        link(t);
        refill();
        choose();
        UNLOCK;
        t++
    :: else -> break
    od
}

/* ---- worker: Worker.work, tg_pool_wait, tg_pool_claimed, tg_pool_next, tg_pool_turn ------------------------- */

/* tg_pool_take */
inline take()
{
    refill();
    pop(token);
    if
    :: token == NONE -> admit(token)
    :: else
    fi
}

/* tg_pool_turn */
inline turn(asks)
{
    atomic { !lock -> lock = true }
    if
    :: asks && (gated || gated_held) -> refresh_operation()
    :: else
    fi;
    take();
    choose();
    UNLOCK
}

/* The usual start, without the lock: counted only after the edge. `ours`: the function is to be called. */
inline start(t)
{
    atomic {
        if
        :: state[t] == ADMITTED ->
            state[t] = EXECUTING;
            ours = true;
            running++;
            assert(running <= limit || lowered)
        :: else
        fi
    }
    if
    :: ours -> started++
    :: else
    fi
}

/* tg_pool_start, for an operation that is barred: under the lock. `back`: it is in its queue again. */
inline start_barred(t)
{
    atomic { !lock -> lock = true }
    if
    :: !paused && executing < limit ->
        if
        :: places <= limit -> barred = false
        :: else
        fi;
        start(t)
    :: else -> put_back(t)
    fi;
    UNLOCK
}

active [WORKERS] proctype worker()
{
    byte token = NONE;
    byte other;
    bool open, asked, back, late, ours, summoned;

wait:
    atomic { !lock -> lock = true }
    take();
    if
    :: token == NONE ->
        atomic {
            if
            :: summoned -> summoned = false; waking = false
            :: else
            fi;
            n_idle++
        }
        UNLOCK;
end_idle:
        atomic { called > 0 -> called--; summoned = true }
        goto wait
    :: else -> UNLOCK
    fi;

    atomic {
        !lock ->
        lock = true;
        if
        :: summoned -> summoned = false; waking = false
        :: else
        fi
    }
    refill();
    choose();
    UNLOCK;

have:
    if
    :: barred -> start_barred(token)
    :: else -> start(token)
    fi;
    if
    :: ours -> ours = false
    :: else ->
        token = NONE;
        if
        :: back -> back = false; turn(false) /* tg_pool_again */
        :: else -> turn(true) /* tg_pool_skip */
        fi;
        goto next
    fi;
    if /* the function: it may block until nothing else moves */
    :: skip
    :: true -> released
    fi;
    atomic {
        running--;
        if
        :: state[token] == EXECUTING -> state[token] = COMPLETED
        :: else -> late = true /* abandoned: its place is given back only now */
        fi;
        token = NONE
    }
#ifdef BREAK_ABANDONED_FREES
    if
    :: !late -> give_place(returned)
    :: else
    fi;
#else
    give_place(returned);
#endif
    late = false;
#ifdef BREAK_NOT_ASKED
    asked = false;
#endif
    if
    :: !asked -> asked = false; pop(token)
    :: true
    fi;
    if
    :: token == NONE ->
#ifdef BREAK_NOT_ASKED
        turn(false)
#else
        turn(true)
#endif
    :: else
    fi;
    asked = false;

next:
    if
    :: token != NONE -> goto have
    :: else -> goto wait
    fi
}

/* ---- who ends token 0: TokenBase.end --------------------------------------------- */

#ifdef CANCEL
active proctype ender()
{
    byte was, other;
    bool open, asked;

end_nothing_to_end:
    atomic {
        state[0] != CREATED ->
        was = state[0];
        if
        :: was < COMPLETED -> state[0] = CANCELLED
        :: else
        fi
    }
    if
    :: was == WAITING ->
        atomic {
            !lock ->
            if
            :: linked[0] -> unlink(0)
            :: else
            fi
        }
    :: was == ADMITTED ->
        give_place(dropped);
#ifdef BREAK_DROP_UNASKED
        asked = false;
#endif
        if
        :: asked -> freed()
        :: else
        fi
#ifdef BREAK_ABANDONED_FREES
    :: was == EXECUTING ->
        give_place(returned);
        if
        :: asked -> freed()
        :: else
        fi
#endif
    :: else
    fi
}
#endif

/* ---- administration: tg_pool_configure and tg_pool_pause, both with tg_op_bar ---------------------------- */

inline bar()
{
    barred = paused || places > limit;
#ifndef BREAK_BAR_UNREFRESHED
    refresh_operation();
#endif
    refill();
    choose();
    UNLOCK
}

#ifdef CONFIGURE
active proctype configurer()
{
    byte other;
    bool open;

    atomic {
        !lock ->
        lock = true;
        lowered = CONFIGURE < limit;
        limit = CONFIGURE
    }
    bar()
}
#endif

#ifdef PAUSE
active proctype pauser()
{
    byte other;
    bool open;

    atomic { !lock -> lock = true; paused = true }
    bar();
    if
    :: skip
    :: true -> released
    fi;
    atomic { !lock -> lock = true; paused = false }
    bar()
}
#endif

#ifdef RECALL
/* tg_pool_recall; tg_pool_detach does the same with the tokens of other operations. */
active proctype recaller()
{
    byte token;
    bool open, back;

    atomic { !lock -> lock = true }
    do
    :: atomic { len(ring) > 0 -> ring?token }
        put_back(token);
        back = false
    :: else -> break
    od;
    UNLOCK
}
#endif

#ifdef BREAK_GATED_HELD
active proctype memory()
{
end_nothing_held:
    do
    :: atomic { gated_held -> gated = true; gated_held = false }
    od
}
#endif

/* ---- what must hold whenever nothing can move -------------------------------------------------------------------- */

active proctype monitor()
{
    byte i;

    atomic {
        timeout ->
        assert(!lock && !waking && called == 0);
        /* With a token that may start and somebody to start it, somebody does. */
        assert(!(n_idle > 0 && (len(ring) > 0 || (may_be_open && has_place))));
        released = true
    }
    atomic {
        timeout ->
        assert(waiting == 0 && len(ring) == 0 && running == 0);
        assert(places == 0);
        do
        :: i < TOKENS -> assert(state[i] >= COMPLETED); i++
        :: else -> break
        od
    }
}
