/* Ended tokens on their way back to an event loop: tg_inbox.h, with Link.push and Link.drain around it.
 *
 * Two producers (workers that end tokens somebody awaits) and the loop. README.md maps each process to the code and
 * says what is left out. Each macro that starts with BREAK_ leaves one thing out that the protocol needs.
 *
 * A macro that weakens a memory order keeps the store where only its own thread sees it, until `memory` lets it out.
 */
#define PRODUCERS 2
#ifndef EACH
#define EACH 2 /* tokens of each producer: the first has 0 and 1, the second 2 and 3 */
#endif
#define TOKENS (PRODUCERS * EACH)
#define NONE 255

byte head = NONE;          /* the stack: the newest token */
byte next[TOKENS] = NONE;
bool armed;                /* a wake-up is on its way */

bool bell;                 /* the descriptor the loop watches is readable */
bool turn;                 /* a drain the loop has asked itself for (call_soon) */

bool clear_held;           /* BREAK_CLEAR_HELD: the consumer's `armed = 0`, not visible yet */

/* What is watched; no part of the protocol. */
byte delivered;
bool seen[TOKENS];
byte newest[PRODUCERS];    /* of each producer, the last token delivered + 1 */

/* tg_inbox_push, then Link.wake */
proctype producer(byte first)
{
    byte token, top;
    bool was;

    token = first;
    do
    :: token < first + EACH ->
#ifdef BREAK_ARMED_READ_FIRST
        was = armed;
#endif
        top = head;
        do
        :: next[token] = top;
            atomic {
                if
#ifdef BREAK_PUSH_STORES
                :: true ->
#else
                :: head == top ->
#endif
                    head = token;
                    break
                :: head != top -> top = head
                fi
            }
        od;
#ifndef BREAK_ARMED_READ_FIRST
        was = armed;
#endif
        if
        :: was -> skip
        :: else ->
            atomic { was = armed; armed = true }
            if
            :: was -> skip
#ifdef BREAK_WAKE_DROPPED
            :: else -> skip
#else
            :: else -> bell = true /* a worker rings before its next token, so perhaps much later */
#endif
            fi
        fi;
        token++
    :: else -> break
    od
}

/* tg_inbox_take: the list comes newest first and is turned around. */
inline take()
{
#ifdef BREAK_CLEAR_HELD
    clear_held = true;
#endif
#ifndef BREAK_CLEAR_LATE
#ifndef BREAK_CLEAR_HELD
    armed = false;
#endif
#endif
#ifdef BREAK_TAKE_LOADS
    token = head;
    head = NONE;
#else
    atomic { token = head; head = NONE }
#endif
#ifdef BREAK_CLEAR_LATE
    armed = false;
#endif
    n_taken = 0;
    do
    :: token != NONE ->
        taken[n_taken] = token;
        n_taken++;
        token = next[token]
    :: else -> break
    od;
    do
    :: n_taken > 0 ->
        n_taken--;
        list!taken[n_taken];
        next[taken[n_taken]] = NONE;
        taken[n_taken] = 0
    :: else -> break
    od
}

/* Some of them; where a slice of time is over before all are out, the loop asks itself for another turn. */
inline deliver()
{
    do
    :: len(list) > 0 ->
        atomic {
            list?token;
            assert(!seen[token]);
            seen[token] = true;
            assert(token + 1 > newest[token / EACH]); /* in the order they ended */
            newest[token / EACH] = token + 1;
            delivered++;
            token = NONE
        }
    :: true -> break
    od;
#ifndef BREAK_SLICE_FORGOTTEN
    if
    :: len(list) > 0 ->
        /* tg_inbox_arm */
        atomic {
            was = armed;
            armed = true;
            clear_held = false /* a thread's own stores to one place stay in order */
        }
        if
        :: !was -> turn = true
        :: was -> skip /* somebody else has, and wakes the loop */
        fi
    :: else
    fi
#endif
}

/* Link.drain, as the listener on the bell or by call_soon. */
active proctype loop()
{
    chan list = [TOKENS] of { byte };
    byte taken[TOKENS];
    byte n_taken;
    byte token = NONE;
    bool was;

end_nothing_to_do:
    do
    :: bell ->
#ifndef BREAK_BELL_CLEARED_LATE
        bell = false; /* _Listener: tg_bell_clear */
#endif
        take();
#ifdef BREAK_BELL_CLEARED_LATE
        bell = false;
#endif
        deliver()
    :: turn ->
        turn = false;
        take();
        deliver()
    od
}

#ifdef BREAK_CLEAR_HELD
active proctype memory()
{
end_nothing_held:
    do
    :: atomic { clear_held -> armed = false; clear_held = false }
    od
}
#endif

init {
    atomic {
        run producer(0);
        run producer(EACH)
    }
    atomic {
        timeout ->
        assert(delivered == TOKENS); /* nobody sleeps in the inbox with no wake-up on its way */
        assert(head == NONE)
    }
}
