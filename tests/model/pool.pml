/* Park and unpark, and the pool that hands tokens to workers: tg_parker.h and tg_pool.h.
 *
 * Rules [P1]-[P5] are those of tg_pool.h. What is under the pool's lock is still split wherever a thread without the
 * lock (a pop, a token's edge, a park, an unpark) could come in between. README.md maps each part to the C code and
 * says what is left out.
 *
 * Shape: TOKENS, WORKERS (max_workers), RECORDS (processes: workers and replacements), LIMIT.
 * Also: BLOCKING (functions may block until nothing else moves), CANCEL (token 0 may be ended at any moment),
 * NESTED (the function of token 0 waits for token 1), RESIZE=n (limit and max_workers become n and, later, what they
 * were), START_FAILS (threads that cannot be started), SPURIOUS (futex waits that return for no reason), GUESTS=n (so
 * often the keeper lets a worker in past the limit).
 *
 * Each macro that starts with BREAK_ leaves one thing out that the protocol needs.
 */
#ifndef TOKENS
#define TOKENS 3
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef RECORDS
#define RECORDS WORKERS
#endif
#ifndef LIMIT
#define LIMIT 2
#endif
#ifndef START_FAILS
#define START_FAILS 0
#endif
#ifndef SPURIOUS
#define SPURIOUS 0
#endif

#ifndef GUESTS
#define GUESTS 0
#endif

#define RING 2
#define NONE 255

/* token states, as far as the pool tells them apart */
#define CREATED 0
#define WAITING 1
#define ADMITTED 2
#define EXECUTING 3
#define COMPLETED 4
#define CANCELLED 5
#define REFUSED 6
#define ENDED(t) (state[t] >= COMPLETED)

/* parker states */
#define EMPTY 0
#define NOTIFIED 1
#define PARKED 2

byte state[TOKENS];
bool linked[TOKENS];       /* in its operation's queue; under the lock */
byte waiting;              /* how many are linked */

byte head, tail;           /* the ring's tickets; each token is pushed at most once, so they stay small */
byte slot[RING] = NONE;
byte stamp[RING];

bool lock;
byte idle[RECORDS];        /* the idle stack: its first n_idle entries */
byte n_idle, workers;
#ifdef RESIZE
byte limit = LIMIT;
byte max_workers = WORKERS;
#else
#define limit LIMIT
#define max_workers WORKERS
#endif
short abandoned;
bool waking, closing;
bool accepting = true;
bool summoned[RECORDS];
byte guests;               /* workers let in past the limit */
bool guest[RECORDS];
bool invited;              /* the next to arrive is one */

byte parker[RECORDS];
bool asleep[RECORDS];      /* inside FUTEX_WAIT */
byte spurious = SPURIOUS;
byte starting;             /* threads asked for that have not entered yet */
byte start_fails = START_FAILS;
bool start_failed;

/* What is watched, and steers the run; no part of the protocol. */
byte on_its_way;           /* workers chosen that have not arrived [P3] */
byte claimed[TOKENS];
byte held[TOKENS];         /* the queue's or the ring's reference [P5] */
byte running;              /* functions on a worker's stack whose token has not ended */
bool released;             /* blocked functions may return */
bool quiet;                /* nothing waits or runs: time to close, where that has not happened */

#define replaced (abandoned < 0 -> 0 : abandoned)
#define active (workers - n_idle)
#define places (active - replaced - guests)
#define work (tail > head || waiting > 0)
#define has_room (stamp[tail % RING] == tail)
#ifdef BREAK_NO_LIMIT
#define may_take true
#else
#define may_take (places <= limit)
#endif

/* ---- the ring -------------------------------------------------------------------------------------------------- */

/* tg_ring_push. Under the lock [P2], so that taking the ticket and publishing the stamp are one step for all others. */
inline push(t)
{
    assert(has_room);
    slot[tail % RING] = t;
    stamp[tail % RING] = tail + 1;
    tail++
}

/* tg_ring_pop. In two steps: between them the slot is neither readable nor free. */
inline pop(t)
{
    atomic {
        if
        :: stamp[head % RING] == head + 1 ->
            ticket = head;
            t = slot[ticket % RING];
            head++
        :: else ->
            t = NONE
        fi
    }
    if
    :: t != NONE ->
        atomic {
            stamp[ticket % RING] = ticket + RING;
            slot[ticket % RING] = NONE;
            ticket = 0
        }
    :: else
    fi
}

/* ---- under the lock -------------------------------------------------------------------------------------------- */

/* Which operation is next is fair share's choice, so here any linked token. */
inline pick(t)
{
    if
    :: linked[0] -> t = 0
    :: linked[1] -> t = 1
#if TOKENS > 2
    :: linked[2] -> t = 2
#endif
#if TOKENS > 3
    :: linked[3] -> t = 3
#endif
    fi
}

inline unlink(t)
{
    linked[t] = false;
    waiting--
}

/* tg_pool_admit, inside an atomic. */
inline admit(t)
{
    t = NONE;
    do
    :: t == NONE && waiting > 0 ->
        pick(t);
        unlink(t);
        if
        :: state[t] == WAITING -> state[t] = ADMITTED
        :: else -> t = NONE /* it has ended: left to who ended it [P5] */
        fi
    :: else -> break
    od
}

/* tg_pool_refill. How many may lie in the ring is tg_pool_depth's choice, so here any number, none too. `other` is free
 * again afterwards. */
inline refill()
{
    do
    :: atomic {
            waiting > 0 && has_room ->
            admit(other);
            if
            :: other != NONE -> push(other)
            :: else
            fi;
            other = 0
        }
    :: true -> break
    od
}

/* tg_pool_take */
inline take(t)
{
    refill();
    pop(t);
#ifndef BREAK_TAKE_RING_ONLY
    atomic {
        if
        :: t == NONE -> admit(t)
        :: else
        fi
    }
#endif
}

/* tg_pool_choose, inside an atomic: who is to be woken, or whether to start a thread. */
inline choose()
{
    wake = NONE;
    start = false;
    if
#ifdef BREAK_WAKE_MANY
    :: work && (invited || places < limit) ->
#else
#ifdef BREAK_CHOOSE_RING_ONLY
    :: !waking && tail > head && (invited || places < limit) ->
#else
    :: !waking && work && (invited || places < limit) ->
#endif
#endif
        if
        :: n_idle > 0 ->
            n_idle--;
            wake = idle[n_idle];
            idle[n_idle] = 0;
            summoned[wake] = true
        :: n_idle == 0 && workers - replaced < max_workers ->
            start = true;
            workers++
        :: else
        fi;
        if
        :: wake != NONE || start ->
            waking = true;
            on_its_way++;
            assert(on_its_way == 1) /* [P3] */
        :: else
        fi
    :: else
    fi
}

/* tg_pool_arrive, inside an atomic */
inline arrive()
{
    if
    :: summoned[w] ->
        summoned[w] = false;
        waking = false;
        on_its_way--
    :: else
    fi
}

/* ---- park and unpark ------------------------------------------------------------------------------------------- */

/* tg_unpark: the exchange, then the system call. */
inline unpark(who)
{
#ifdef BREAK_NO_PERMIT
    atomic {
        if
        :: parker[who] == PARKED -> parker[who] = NOTIFIED; found = PARKED
        :: else -> found = EMPTY
        fi
    }
#else
    atomic { found = parker[who]; parker[who] = NOTIFIED }
#endif
    atomic {
        if
        :: found == PARKED -> asleep[who] = false /* FUTEX_WAKE */
        :: else
        fi;
        found = 0
    }
}

/* tg_park, on Linux. */
inline park()
{
#ifdef BREAK_PARK_STORES
    parker[w] = PARKED;
    found = EMPTY;
#else
    atomic {
        found = parker[w];
        if
        :: found == EMPTY -> parker[w] = PARKED
        :: else
        fi
    }
#endif
    if
    :: found != EMPTY ->
        atomic { parker[w] = EMPTY; found = 0 } /* takes the permit */
    :: else ->
        do
        :: atomic { parker[w] == NOTIFIED -> parker[w] = EMPTY; break }
        :: else ->
            atomic {
                /* FUTEX_WAIT compares and goes to sleep in one step. */
                if
#ifdef BREAK_FUTEX_BLIND
                :: asleep[w] = true
#else
                :: parker[w] == PARKED -> asleep[w] = true
                :: parker[w] != PARKED
#endif
                :: spurious > 0 -> spurious--
                fi
            }
            !asleep[w]
        od
    fi
}

/* tg_pool_start_failed and, with nobody left, Core._kill_waiting (tg_pool_detach) */
inline cannot_start()
{
    atomic {
        !lock ->
        lock = true;
        workers--;
        waking = false;
        on_its_way--;
        invited = false;
        left = workers;
#ifndef BREAK_START_FAILED_SILENT
        if
        :: n_idle > 0 -> choose()
        :: else
        fi;
#endif
        assert(!start);
        lock = false
    }
    if
    :: wake != NONE ->
        unpark(wake);
        wake = NONE
    :: else
    fi;
    do
    :: left == 0 ->
        atomic { !lock -> lock = true; admit(other) }
        if
        :: other == NONE -> pop(other)
        :: else
        fi;
        lock = false;
        if
        :: other == NONE -> left = 1
        :: else ->
            atomic { held[other]--; assert(held[other] == 0) }
            atomic {
                if
                :: state[other] == ADMITTED -> state[other] = CANCELLED
                :: else
                fi
            }
        fi;
        other = 0
    :: else -> break
    od;
    left = 0
}

/* Core.carry_out: what was chosen under the lock is done without it. */
inline carry_out()
{
    if
    :: wake != NONE ->
        unpark(wake);
        wake = NONE
    :: start ->
        start = false;
        if
        :: starting++
        :: atomic { start_fails > 0 -> start_fails--; start_failed = true }
            cannot_start()
        fi
    :: else
    fi
}

/* ---- a submitter: tg_pool_submit, then carry_out ---------------------------------------------------------------- */

inline hand_over(first, last)
{
    atomic {
        !lock ->
        lock = true;
        t = first;
        do
        :: t <= last ->
            if
            :: accepting ->
                state[t] = WAITING;
                linked[t] = true;
                waiting++;
                held[t] = 1
            :: else -> state[t] = REFUSED
            fi;
            t++
        :: else -> break
        od;
        t = 0
    }
    if
    :: state[first] != REFUSED ->
        refill();
        atomic { choose(); lock = false }
        carry_out()
    :: else -> lock = false
    fi
}

/* Token 0 alone. */
proctype first_submitter()
{
    byte t, other, found, ticket, left;
    byte wake = NONE;
    bool start;
    hand_over(0, 0)
}

/* The others at one go, as .map and a loop over calls do. */
proctype second_submitter()
{
    byte t, other, found, ticket, left;
    byte wake = NONE;
    bool start;
    hand_over(1, TOKENS - 1)
}

/* ---- a worker: Worker.run and Worker.work ------------------------------------------------------------------------ */

/* tg_pool_abandon */
inline abandon()
{
    atomic { !lock -> lock = true; abandoned++ }
    refill();
#ifndef BREAK_ABANDON_SILENT
    atomic { choose(); lock = false }
    carry_out()
#else
    lock = false
#endif
}

/* The function. It may return at once, block until nothing else moves, or wait for another token. */
inline call()
{
    if
    :: skip
#ifdef BLOCKING
    :: true -> released
#endif
#ifdef NESTED
    :: token == 0 ->
        /* Worker.step_aside: tg_pool_aside */
        abandon();
        ENDED(1);
        atomic { !lock -> abandoned-- } /* Worker.step_back: tg_pool_back */
#endif
    fi
}

/* tg_pool_entertain. Whose tokens a guest may take is fair share's business, so here it may find one or not. */
inline entertain()
{
    if
    :: pop(token);
        atomic {
            if
            :: token == NONE -> admit(token)
            :: else
            fi;
            if
            :: token != NONE -> guest[w] = true; guests++
            :: else
            fi
        }
    :: true
    fi
}

/* tg_pool_turn, the slow half of tg_pool_next and tg_pool_skip. */
inline turn()
{
    atomic {
        !lock ->
        lock = true;
#ifndef BREAK_LATE_UNCOUNTED
        if
        :: late -> abandoned--
        :: else
        fi;
#endif
        late = false;
        stays = guest[w];
#ifndef BREAK_GUEST_UNCOUNTED
        if
        :: guest[w] -> guest[w] = false; guests--
        :: else
        fi
#endif
    }
    if
    :: may_take ->
        stays = false;
        take(token);
        atomic {
            choose();
#ifndef BREAK_TAKE_RING_ONLY
            assert(token != NONE || (wake == NONE && !start)); /* without a token there is no work */
#endif
            lock = false
        }
    :: !may_take && stays ->
        stays = false;
        entertain();
        atomic { choose(); lock = false }
    :: else ->
        lock = false
    fi
}

proctype worker(byte w)
{
    byte token = NONE;
    byte other, found, ticket, left;
    byte wake = NONE;
    bool start, late, stays;

end_not_started:
    atomic { starting > 0 && !lock -> starting--; summoned[w] = true } /* tg_pool_enter */

wait: /* tg_pool_wait */
    atomic { !lock -> lock = true; stays = summoned[w] && invited }
    if
    :: stays -> /* tg_pool_welcome */
        invited = false;
        stays = false;
        if
        :: !may_take -> entertain()
        :: else
        fi;
        if
        :: token != NONE -> lock = false; goto claim
        :: else
        fi
    :: else
    fi;
    if
    :: may_take ->
        take(token);
        if
        :: token != NONE -> lock = false; goto claim
        :: else
        fi
    :: else
    fi;
#ifdef BREAK_IDLE_LATER
    lock = false;
    atomic { !lock -> lock = true }
#endif
    atomic {
#ifndef BREAK_NEVER_ARRIVES
        arrive();
#endif
        if
#ifndef BREAK_PARK_WHEN_CLOSING
        :: closing || workers - replaced > max_workers ->
            workers--;
            lock = false;
            goto end_not_started
#endif
        :: else ->
            idle[n_idle] = w;
            n_idle++;
            lock = false
        fi
    }
    park();
    goto wait;

claim: /* tg_pool_claimed */
    atomic { !lock -> lock = true; arrive() }
    refill();
#ifndef BREAK_NO_CHAIN
    atomic { choose(); lock = false }
#else
    lock = false;
#endif

admitted:
    atomic { held[token]--; assert(held[token] == 0) } /* the ring's reference [P5] */
    carry_out();
    if
    :: atomic {
            state[token] == ADMITTED ->
            state[token] = EXECUTING;
            claimed[token]++;
            assert(claimed[token] == 1);
            running++;
#if !defined(NESTED) && !defined(RESIZE)
            assert(running <= LIMIT + guests)
#endif
        }
    :: else ->
        token = NONE;
        turn(); /* tg_pool_skip */
        goto next
    fi;
    call();
    atomic {
        if
        :: state[token] == EXECUTING -> state[token] = COMPLETED; running--
        :: else -> late = true /* it had been ended from outside */
        fi;
        token = NONE
    }
    /* tg_pool_next: without the lock while the account is small. */
    if
    :: !late && !guest[w] -> pop(token)
    :: skip
    fi;
    if
    :: token == NONE -> turn()
    :: else
    fi;

next:
    if
    :: token != NONE -> goto admitted
    :: else
    fi;
    carry_out();
    goto wait
}

/* ---- whoever ends a token early: TokenBase.end ------------------------------------------------------------------- */

#ifdef CANCEL
proctype ender()
{
    byte was, other, found, ticket, left;
    byte wake = NONE;
    bool start;

end_nothing_to_end:
    atomic {
        state[0] != CREATED ->
        was = state[0];
        if
        :: was < COMPLETED -> state[0] = CANCELLED
        :: else
        fi;
        if
        :: was == EXECUTING -> running--
        :: else
        fi
    }
    if
    :: was == WAITING ->
        atomic { /* tg_pool_unlink */
            !lock ->
            if
            :: linked[0] -> unlink(0)
            :: else
            fi
        }
        atomic { held[0]--; assert(held[0] == 0) }
    :: was == EXECUTING -> abandon()
    :: else
    fi
}
#endif

/* ---- the keeper: tg_pool_invite ------------------------------------------------------------------------------------ */

#if GUESTS > 0
proctype keeper()
{
    byte other, found, ticket, left;
    byte wake = NONE;
    byte times = GUESTS;
    bool start;

end_nobody_to_invite:
    do
    :: atomic {
            times > 0 && work && !lock ->
            times--;
            if
            :: !waking ->
                invited = true;
                choose();
                if
                :: !waking -> invited = false /* there is nobody to come */
                :: else
                fi
            :: else
            fi
        }
        carry_out()
    :: times == 0 -> break
    od
}
#endif

/* ---- closing: tg_pool_close -------------------------------------------------------------------------------------- */

/* tg_pool_rouse */
inline rouse(most)
{
    do
    :: most > 0 ->
        most--;
        atomic {
            !lock ->
            who = NONE;
            if
            :: n_idle > 0 -> n_idle--; who = idle[n_idle]; idle[n_idle] = 0
            :: else -> most = 0; break
            fi
        }
        unpark(who)
    :: else -> break
    od
}

proctype closer()
{
    byte found;
    byte who = NONE;
    short most = RECORDS + 1; /* more than there can be */

    if
    :: skip /* at any moment */
    :: true -> quiet
    fi;
    atomic { !lock -> accepting = false; closing = true }
    rouse(most);
    assert(n_idle == 0)
}

#ifdef RESIZE
inline change(to)
{
    atomic {
        !lock ->
        lock = true;
        limit = to;
        max_workers = to;
        most = workers - replaced - max_workers
    }
    refill();
#ifdef BREAK_RESIZE_SILENT
    lock = false;
#else
    atomic { choose(); lock = false }
#endif
    rouse(most);
    carry_out()
}

/* tg_pool_resize: fewer workers and a lower limit, or more of both, and back. */
proctype resizer()
{
    byte other, found, ticket, left;
    byte wake = NONE, who = NONE;
    bool start;
    short most;

    do
    :: limit == LIMIT ->
        change(RESIZE);
        if
        :: skip
        :: true -> released
        fi
    :: limit == RESIZE ->
        change(LIMIT);
        break
    od
}
#endif

/* ---- what must hold whenever nothing can move -------------------------------------------------------------------- */

#define free_place (places < limit)
#define someone_could (n_idle > 0 || (!start_failed && workers - replaced < max_workers))

init {
    byte i;

    atomic {
        i = 0;
        do
        :: i < RING -> stamp[i] = i; i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < RECORDS -> run worker(i); i++
        :: else -> break
        od;
        i = 0;
        run first_submitter();
        run second_submitter();
#ifdef CANCEL
        run ender();
#endif
#ifdef RESIZE
        run resizer();
#endif
#if GUESTS > 0
        run keeper();
#endif
        run closer()
    }
    atomic {
        timeout ->
        assert(!lock);
        assert(on_its_way == 0 && !waking);
        assert(!(work && free_place && someone_could)); /* [P4]: no lost wake-up */
        released = true
    }
    atomic {
        timeout ->
        assert(!work);
        assert(n_idle == workers && abandoned == 0 && running == 0);
        assert(guests == 0 && !invited);
        i = 0;
        do
        :: i < TOKENS ->
            assert(ENDED(i));
            assert(held[i] == 0);
            assert(claimed[i] == 1 || state[i] != COMPLETED);
            i++
        :: else -> break
        od;
        quiet = true
    }
    atomic {
        timeout ->
        assert(workers == 0 && n_idle == 0) /* everybody has left */
    }
}
