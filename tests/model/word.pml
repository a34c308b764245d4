/* One token and everybody who may want to start it, end it or hear of its end: tg_word.h.
 *
 * Rules [W1]-[W6] are those of tg_word.h, [P5] that of tg_pool.h. README.md maps each process to the code and says
 * what is left out.
 *
 * Besides the one who submits, the gate, a worker, a canceller and one callback there may be: KILL (a second ender),
 * DETACH (who ends what waits, as stop() does), BAR (the operation is paused for a while), HELP (a worker that blocks
 * on the token), LOOP_WAITERS=2, READ (somebody who looks at any moment), WATCH (somebody who wants
 * to know when the token is over), WATCH=2 (two of them).
 *
 * Each macro that starts with BREAK_ leaves one thing out that the protocol needs.
 */
#define CREATED 0
#define WAITING 1
#define ADMITTED 2
#define EXECUTING 3
#define COMPLETED 4 /* and FAILED: the worker's own end */
#define CANCELLED 6
#define KILLED 8

#define WAITER 16
#define BLOCKED 32
#define RUNNING 64
#define WATCHED 128

#define state_of(value) (value & 15)
#define has_ended(value) (state_of(value) >= COMPLETED)
#define is_over(value) (has_ended(value) && !(value & RUNNING))

/* Sets of states, as TG_BIT makes them. */
#define UNSTARTED 7 /* CREATED | WAITING | ADMITTED */
#define UNENDED 15
#define STARTABLE 6 /* WAITING | ADMITTED */

#ifndef LOOP_WAITERS
#define LOOP_WAITERS 1
#endif

byte word = CREATED;

bool lock;                 /* the pool's */
bool linked;               /* in its operation's queue; under the lock */
bool in_ring;
#ifdef BAR
byte bars = 1;             /* times that the token, admitted, finds its operation paused */
#endif

bool section;              /* the token's critical section; guards the next five */
byte verdict;              /* what a caller's side end says: the state it is for */
bool stored[LOOP_WAITERS]; /* callbacks not delivered yet */
bool delivered;
bool blocker;              /* the lock a blocked thread waits for */
#ifdef WATCH
byte watching;             /* a bit set: who has asked and not been told */
#endif

byte value;                /* what the function returned: COMPLETED, or nothing */

/* What is watched; no part of the protocol. */
byte ends;                 /* edges into an ended state */
byte reference;            /* the queue's or the ring's [P5] */
short places;              /* taken of the operation's limit: admitted - returned - dropped */
bool call_here = true;     /* function and arguments, until somebody takes or drops them [W2] */
bool on_stack;             /* the function runs */
byte calls;
bool pushed;               /* into the loop's inbox, which holds a token at most once */
byte told[LOOP_WAITERS];
byte released;             /* how often the blocked thread's lock was released */
#ifdef WATCH
byte told_over;            /* how many were told that it is over */
#endif
bool was_abandoned;
short abandoned_now;       /* the operation's gauge */
byte abandoned_total;
bool finished_asking;      /* the blocked thread has its answer */

/* ---- the word -------------------------------------------------------------------------------------------------- */

/* The ghost half of an edge, in the same step as its compare-and-swap. */
inline witness(to)
{
    if
    :: to >= COMPLETED ->
        ends++;
        assert(ends == 1);
        if
        :: to != COMPLETED && state_of(old) == EXECUTING ->
            was_abandoned = true;
            assert(word & RUNNING) /* [W5] */
        :: else ->
            assert(!(word & RUNNING))
        fi
    :: to == EXECUTING ->
        assert(!on_stack);
        on_stack = true
    :: else
    fi
}

/* tg_word_move: `old` and `moved` are its answer. */
inline move(from, to, set, clear)
{
    old = word;
    do
    :: !((from >> state_of(old)) & 1) ->
        old = word;
        if
        :: !((from >> state_of(old)) & 1) -> moved = false; break
        :: else
        fi
    :: else ->
        atomic {
            if
#ifdef BREAK_SPLIT
            :: true ->
#else
            :: word == old ->
#endif
                word = (old & (255 - 15 - clear)) | to | set;
                moved = true;
                witness(to);
                break
            :: word != old -> old = word
            fi
        }
    od
}

/* tg_word_announce */
inline announce_waiter(flag)
{
#ifdef BREAK_ANNOUNCE_STORES
    old = word;
    word = old | flag
#else
    atomic { old = word; word = word | flag }
#endif
}

/* The reference goes; whoever comes to the token through the queue or the ring relies on it. */
inline drop_reference()
{
    atomic { assert(reference == 1); reference-- }
}

inline take_call()
{
    atomic { assert(call_here); call_here = false }
}

/* ---- telling --------------------------------------------------------------------------------------------------- */

/* TokenBase.tell_watchers, by who has made it over [W6] */
inline tell_watchers()
{
#ifdef WATCH
    atomic {
        !section ->
        assert(is_over(word) && !on_stack);
        if
        :: watching & 1 -> told_over++
        :: else
        fi;
        if
        :: watching & 2 -> told_over++
        :: else
        fi;
        watching = 0
    }
#else
    skip
#endif
}

/* TokenBase.announce: by the winner of the ending edge to a state, with the word before it. */
inline announce(ended)
{
    if
#ifdef BREAK_ENDER_TELLS
    :: old & WATCHED -> tell_watchers()
#else
    :: (old & WATCHED) && !((old & RUNNING) && ended != COMPLETED) -> tell_watchers()
#endif
    :: else
    fi;
    if
    :: old & WAITER -> atomic { assert(!pushed); pushed = true } /* Link.push */
    :: else
    fi;
    if
    :: old & BLOCKED ->
        /* TokenBase.release_blockers */
        atomic {
            !section ->
            if
            :: blocker -> blocker = false; released++
            :: else
            fi
        }
    :: else
    fi
}

/* tg_op_give_place, see gated.pml. */
inline give_place()
{
    places-- /* perhaps before it is counted as taken */
}

/* ---- the function: Worker.execute ------------------------------------------------------------------------------ */

inline execute()
{
    take_call(); /* [W2] */
    calls++;
    on_stack = false;
#ifndef BREAK_OUTCOME_LATE
    value = COMPLETED; /* [W3] */
#endif
#ifdef BREAK_FLAGS_EARLY
    flags = word & (WAITER + BLOCKED);
#endif
#ifdef BREAK_FINISH_KEEPS_RUNNING
    move(1 << EXECUTING, COMPLETED, 0, 0);
#else
    move(1 << EXECUTING, COMPLETED, 0, RUNNING);
#endif
    give_place();
    if
    :: moved ->
#ifdef BREAK_OUTCOME_LATE
        value = COMPLETED;
#endif
#ifdef BREAK_FLAGS_EARLY
        old = state_of(old) | flags;
#endif
        announce(COMPLETED)
    :: else ->
        value = 0; /* the late outcome is dropped */
        abandoned_now--;
#ifndef BREAK_RETURN_UNSEEN
#ifdef BREAK_RETURN_LOOKS_FIRST
        old = word;
        word = word & (255 - RUNNING);
#else
        atomic { old = word; word = word & (255 - RUNNING) } /* tg_word_returned */
#endif
#ifndef BREAK_RETURN_UNTOLD
        if
        :: old & WATCHED -> tell_watchers()
        :: else
        fi
#endif
#endif
    fi
}

/* ---- the way to a worker --------------------------------------------------------------------------------------- */

/* Core.spawn and tg_pool_submit */
active proctype submitter()
{
    byte old;
    bool moved;

    reference = 1;
    atomic { !lock -> lock = true }
    move(1 << CREATED, WAITING, 0, 0);
    assert(moved);
    atomic { linked = true; lock = false }
}

/* tg_pool_refill */
active proctype gate()
{
    byte old;
    bool moved;

end_nothing_waits:
    atomic {
        linked && !lock ->
        lock = true;
        assert(reference == 1); /* what is linked is alive */
        linked = false
    }
    move(1 << WAITING, ADMITTED, 0, 0);
    atomic {
        if
        :: moved -> in_ring = true; places++
        :: else /* it has ended: left to who ended it [P5] */
        fi
    }
#ifdef BREAK_REFILL_DROPS
    if
    :: !moved -> drop_reference()
    :: else
    fi;
#endif
    lock = false;
#ifdef BAR
    goto end_nothing_waits
#endif
}

/* Worker.work */
active proctype worker()
{
    byte old;
#ifdef BREAK_FLAGS_EARLY
    byte flags;
#endif
    bool moved;

end_nothing_admitted:
    atomic { in_ring -> in_ring = false; assert(reference == 1) } /* tg_ring_pop */
#ifdef BAR
    if
    :: bars > 0 ->
        /* tg_gate_give_back, with the reference */
        atomic { !lock -> lock = true; bars-- }
        move(1 << ADMITTED, WAITING, 0, 0);
        if
        :: moved ->
            places--;
#ifdef BREAK_BACK_DROPS
            drop_reference();
#endif
            atomic { linked = true; lock = false }
            goto end_nothing_admitted
        :: else -> lock = false
        fi
    :: true
    fi;
#endif
    drop_reference();
    move(STARTABLE, EXECUTING, RUNNING, 0);
    if
    :: moved -> execute()
    :: else
    fi
}

/* ---- who ends it from outside: TokenBase.end -------------------------------------------------------------------- */

/* tg_pool_unlink, then the queue's reference [P5] */
inline leave_queue()
{
#ifdef BREAK_DROP_FIRST
    drop_reference();
#endif
    atomic {
        !lock ->
#ifdef BREAK_UNLINK_BLIND
        assert(linked);
        linked = false
#else
        if
        :: linked -> linked = false
        :: else
        fi
#endif
    }
#ifndef BREAK_DROP_FIRST
    drop_reference()
#endif
}

inline end(to, from)
{
    if
    :: has_ended(word) -> moved = false
    :: else ->
#ifdef BREAK_VERDICT_UNGUARDED
        if
        :: false
#else
        atomic { !section -> section = true }
        if
        :: has_ended(word) -> moved = false
#endif
        :: else ->
            verdict = to;
            move(from, to, 0, 0);
            if
            :: !moved -> verdict = 0 /* the worker was first */
            :: else
            fi
        fi;
        section = false
    fi;
    if
    :: moved ->
        if
        :: state_of(old) == EXECUTING ->
            abandoned_now++;
            abandoned_total++;
#ifdef BREAK_CALL_DROPPED
            take_call()
#endif
        :: else ->
            take_call(); /* TokenBase.drop_call [W2] */
            if
            :: state_of(old) == WAITING -> leave_queue()
            :: state_of(old) == ADMITTED ->
                give_place()
#ifdef BREAK_ADMITTED_DROPS
                ;
                drop_reference()
#endif
            :: else
            fi
        fi;
        announce(to)
    :: else
    fi
}

active proctype canceller()
{
    byte old;
    bool moved;

    state_of(word) != CREATED; /* nobody has it before */
    end(CANCELLED, UNENDED)
}

#ifdef KILL
active proctype killer()
{
    byte old;
    bool moved;

    state_of(word) != CREATED;
    end(KILLED, UNENDED)
}
#endif

#ifdef DETACH
/* Core._kill_waiting: tg_pool_detach, then TokenBase.end for what has not started. */
active proctype detacher()
{
    byte old;
    bool moved;
    bool mine;

    atomic { !lock -> lock = true }
    if
    :: linked ->
        linked = false;
        move(1 << WAITING, ADMITTED, 0, 0);
        atomic {
            mine = moved;
            if
            :: moved -> places++
            :: else
            fi
        }
    :: else ->
        atomic {
            if
            :: in_ring -> in_ring = false; mine = true
            :: else
            fi
        }
    fi;
    lock = false;
    if
    :: mine ->
        drop_reference();
        end(KILLED, UNSTARTED)
    :: else
    fi
}
#endif

/* ---- who waits for it ------------------------------------------------------------------------------------------ */

/* TokenBase.store_callback; its caller calls back itself where it answers false. */
proctype loop_waiter(byte me)
{
    byte old;

    state_of(word) != CREATED;
#ifndef BREAK_WAITER_UNGUARDED
    atomic { !section -> section = true }
#endif
    if
    :: delivered -> told[me]++
    :: else ->
        stored[me] = true;
        announce_waiter(WAITER);
#ifndef BREAK_WAITER_TRUSTS
        if
        :: has_ended(old) && !(old & WAITER) ->
            atomic {
#if LOOP_WAITERS > 1
                assert(!stored[1 - me]); /* nobody else's is thrown away */
#endif
                stored[me] = false;
                delivered = true;
                told[me]++
            }
        :: else
        fi
#endif
    fi;
#ifndef BREAK_WAITER_UNGUARDED
    section = false
#endif
}

/* Link.drain and TokenBase.deliver */
active proctype drain()
{
end_nothing_pushed:
    atomic {
        pushed && !section ->
        assert(!delivered);
        delivered = true;
        if
        :: stored[0] -> stored[0] = false; told[0]++
        :: else
        fi;
#if LOOP_WAITERS > 1
        if
        :: stored[1] -> stored[1] = false; told[1]++
        :: else
        fi
#endif
    }
}

#ifdef HELP
/* A worker whose function blocks in result(): Worker.help, then TokenBase.add_blocker. */
active proctype helper()
{
    byte old;
#ifdef BREAK_FLAGS_EARLY
    byte flags;
#endif
    bool moved, blocked;

    state_of(word) != CREATED;
    /* tg_pool_help */
    atomic { !lock -> lock = true; old = word; moved = false }
    if
    :: (state_of(old) == WAITING && linked) || state_of(old) == ADMITTED ->
        move(STARTABLE, EXECUTING, RUNNING, 0);
        atomic {
            if
            :: moved && state_of(old) == WAITING ->
#ifndef BREAK_HELPER_LEAVES_LINKED
                linked = false;
#endif
                places++
            :: else
            fi
        }
    :: else
    fi;
    lock = false;
    if
    :: moved ->
#ifndef BREAK_HELPER_KEEPS
        if
        :: state_of(old) == WAITING -> drop_reference()
        :: else
        fi;
#endif
        execute()
    :: else ->
        atomic { !section -> section = true }
        if
        :: has_ended(word) -> skip
        :: else ->
            blocker = true;
            announce_waiter(BLOCKED);
#ifdef BREAK_BLOCKER_TRUSTS
            blocked = true
#else
            if
            :: !has_ended(old) -> blocked = true
            :: else -> blocker = false
            fi
#endif
        fi;
        section = false;
        if
        :: blocked -> released == 1
        :: else
        fi
    fi;
    assert(has_ended(word));
    finished_asking = true
}
#endif

#ifdef WATCH
/* TokenBase.watch_return; its caller knows by itself where it answers false. */
proctype watcher(byte me)
{
    byte old;

    state_of(word) != CREATED;
    atomic { !section -> section = true }
    if
    :: is_over(word) -> told_over++
    :: else ->
        watching = watching | me;
        announce_waiter(WATCHED);
#ifndef BREAK_WATCHER_TRUSTS
        if
        :: is_over(old) -> atomic { assert(watching & me); watching = watching & (3 - me); told_over++ }
        :: else
        fi
#endif
    fi;
    section = false
}
#endif

/* ---- what must hold ---------------------------------------------------------------------------------------------- */

#define outcome_there \
    (state_of(word) == COMPLETED -> value == COMPLETED : verdict == state_of(word))

#ifdef READ
/* Whoever sees the end sees the outcome [W3], and goes on seeing it. */
active proctype reader()
{
    atomic { has_ended(word) -> assert(outcome_there) }
}
#endif

init {
    atomic {
        run loop_waiter(0);
#if LOOP_WAITERS > 1
        run loop_waiter(1)
#endif
#ifdef WATCH
        ;
        run watcher(1)
#if WATCH > 1
        ;
        run watcher(2)
#endif
#endif
    }
    atomic {
        timeout ->
        assert(!lock && !section);
        assert(ends == 1 && has_ended(word));
        assert(outcome_there);
        assert(told[0] == 1 && told[LOOP_WAITERS - 1] == 1);
#ifdef HELP
        assert(finished_asking);
#endif
        assert(released <= 1 && !blocker);
#ifdef WATCH
        assert(told_over == WATCH && watching == 0);
#endif
        assert(!call_here && calls <= 1);
        assert(reference == 0 && !linked && !in_ring);
        assert(!on_stack && !(word & RUNNING));
        assert(places == 0);
        assert(abandoned_now == 0);
        assert(abandoned_total == was_abandoned)
    }
}
