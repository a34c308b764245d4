"""Everything at once, at random, for as long as asked: the soak test.

    python tests/stress/soak.py --seconds 60 --seed 1

Round after round some coordinators are given to a crowd of actors - threads that submit, block,
cancel, stop and start, event loops that await and leave, maps that are left half way - and when the
crowd has gone every token must have ended exactly once, every function must have run as its token
says, the counters must add up, and nothing may be left: no thread, no token, no log entry. Prints
one line a round; exits with status 1, the seed and all stacks if something is wrong or hangs.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import faulthandler
import gc
import io
import logging
import random
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import tokengate
from tokengate import Coordinator, Token, TokenGateError, current_token, task_token_guard, use

if TYPE_CHECKING:
    from tests.stress.books import TIMEOUT, Books, Call, wait_until
else:
    from books import TIMEOUT, Books, Call, wait_until

HANGING = 3 * TIMEOUT  # seconds after which a round is given up and all stacks are printed

Body = Callable[[], object]
Story = Callable[["Round", random.Random], Coroutine[Any, Any, None]]
Actor = Callable[["Round", random.Random], None]


class Quiet(io.TextIOBase):
    """Takes the place of stderr, where stop() reports what it had to abandon: keeps the end of it."""

    def __init__(self) -> None:
        self.last: collections.deque[str] = collections.deque(maxlen=200)

    def write(self, text: str) -> int:
        self.last.append(text)
        return len(text)


class Problems(logging.Handler):
    """What went wrong anywhere: in a thread, a destructor, a callback."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            if text.startswith("unhandled exception during asyncio.run() shutdown") and isinstance(
                record.exc_info[1], EXPECTED
            ):
                return  # its token failed before the loop had cancelled it
            text += "\n" + "".join(traceback.format_exception(record.exc_info[1]))
        self.found.append(text)

    def watch(self) -> None:
        for name in ("asyncio", "tokengate"):
            logging.getLogger(name).addHandler(self)
        threading.excepthook = lambda args: self.note(f"thread {args.thread}", args.exc_value)
        sys.unraisablehook = lambda args: self.note(str(args.object), args.exc_value)

    def note(self, where: str, error: BaseException | None) -> None:
        told = "".join(traceback.format_exception(error)) if error is not None else ""
        self.found.append(f"in {where}:\n{told}")


class Round:
    """One round: its coordinators, the tokens that anybody may end, and the sign to go home."""

    def __init__(self, dice: random.Random, number: int) -> None:
        self.over = threading.Event()
        self.name = f"soak{number}"
        self.books = [
            Books(Coordinator(thread_workers=dice.randrange(1, 9), name=f"{self.name}{letter}"))
            for letter in "abc"[: dice.randrange(1, 4)]
        ]
        if dice.random() < 0.2:
            self.books.append(Books(tokengate.get_coordinator(), "soak.default"))
        self.heap: collections.deque[Token[Any]] = collections.deque(maxlen=500)
        self.watched: list[weakref.ref[Any]] = []
        self.administered = dice.random() < 0.5  # whether anybody stops and starts coordinators

    def pick(self, mine: random.Random) -> Books:
        return mine.choice(self.books)

    def call(self, mine: random.Random, books: Books | None = None, depth: int = 0) -> Token[Any]:
        """A token of any kind, which anybody may end."""
        books = books or self.pick(mine)
        token = books.call(self.body(mine, books, depth))
        self.heap.append(token)
        if mine.random() < 0.02:
            self.watched.append(weakref.ref(token))
        return token

    def body(self, mine: random.Random, books: Books, depth: int) -> Body:
        if depth < 3 and mine.random() < 0.1:
            return lambda: self.nested(random.Random(mine.random()), books, depth + 1)
        return mine.choice(BODIES if mine.random() < 0.997 else COSTLY)

    def nested(self, mine: random.Random, books: Books, depth: int) -> object:
        """A function that makes tokens itself, and waits for them."""
        tokens = [self.call(mine, books, depth) for _ in range(mine.randrange(1, 4))]
        how = mine.randrange(4)
        if how == 0:
            return tokengate.gather(*tokens, return_exceptions=True).result(TIMEOUT)
        if how == 1:
            return list(tokengate.as_completed(tokens))
        if how == 2:
            for token in tokens:
                with contextlib.suppress(Exception):
                    token.result(TIMEOUT)
        return tokens


# -- what functions do ------------------------------------------------------------------------------


def fail() -> None:
    raise LookupError("on purpose")


def leave() -> None:
    raise SystemExit(3)


def recurse() -> None:
    recurse()


def spin() -> object:
    return [i * i for i in range(300)]


def rest() -> object:
    time.sleep(0.0003)
    return object()


def end_itself() -> object:
    token = current_token()
    assert token is not None
    token.cancel()
    return object()


def collect() -> object:
    return [gc.collect(0)]


BODIES: tuple[Body, ...] = (
    *(object,) * 8,
    *(spin,) * 4,
    *(rest,) * 2,
    *(fail,) * 2,
    leave,
    end_itself,
)
COSTLY: tuple[Body, ...] = (recurse, collect)


# -- actors: threads --------------------------------------------------------------------------------


def submitter(round_: Round, mine: random.Random) -> None:
    """Makes tokens, waits for some of them for a while, ends some."""
    while not round_.over.is_set():
        tokens = [round_.call(mine) for _ in range(mine.randrange(1, 100))]
        for token in mine.sample(tokens, mine.randrange(len(tokens) + 1)):
            what = mine.randrange(6)
            try:
                if what < 2:
                    token.result(mine.choice([0, 1e-6, 1e-3, TIMEOUT]))
                elif what == 2:
                    token.exception(mine.choice([0, 1e-6, 1e-3, TIMEOUT]))
                elif what == 3:
                    token.cancel()
                elif what == 4:
                    token.kill("soak")
                else:
                    repr(token), token.state, token.wait_time, token.run_time, token.abandoned
            except (TimeoutError, TokenGateError, LookupError, RecursionError, CancelledError):
                pass


def canceller(round_: Round, mine: random.Random) -> None:
    """Ends other people's tokens, the newest most of all."""
    while not round_.over.is_set():
        for _ in range(mine.randrange(1, 30)):
            with contextlib.suppress(IndexError):
                token = round_.heap[-1 - int(mine.expovariate(0.1))]
                token.cancel("soak") if mine.random() < 0.7 else token.kill("soak")
        time.sleep(mine.random() * 0.003)


def watcher(round_: Round, mine: random.Random) -> None:
    """Looks at the figures; they may lag behind, never contradict themselves."""
    while not round_.over.is_set():
        totals = round_.pick(mine).coordinator.stats().totals
        ended = totals.completed + totals.failed + totals.cancelled + totals.expired + totals.killed
        assert ended <= totals.submitted, totals
        assert min(totals.waiting, totals.admitted, totals.executing, totals.abandoned_now) >= 0
        time.sleep(mine.random() * 0.002)


def administrator(round_: Round, mine: random.Random) -> None:
    """Resizes, and in some rounds stops and starts."""
    while not round_.over.is_set():
        coordinator = round_.pick(mine).coordinator
        if mine.random() < 0.5 or not round_.administered:
            coordinator.resize("thread", mine.randrange(1, 9))
        else:
            timeout, cancel_waiting = mine.choice([0, 0.001, 0.05]), mine.random() < 0.5
            if mine.random() < 0.5:
                coordinator.stop(timeout, cancel_waiting)
            else:
                asyncio.run(coordinator.aclose(timeout, cancel_waiting))
            coordinator.start()
        time.sleep(mine.random() * 0.02)


def maker(round_: Round, mine: random.Random) -> None:
    """Makes coordinators and drops them, used, unused, stopped or as they are."""
    while not round_.over.is_set():
        coordinator = Coordinator(thread_workers=mine.randrange(1, 4), name=f"{round_.name}m")
        round_.watched.append(weakref.ref(coordinator))
        tokens = [coordinator.submit(spin) for _ in range(mine.randrange(20))]
        if mine.random() < 0.3:
            coordinator.stop(TIMEOUT, mine.random() < 0.5)
            assert all(token.done() for token in tokens)
        elif mine.random() < 0.5:
            for token in tokens:
                token.cancel()


def first_caller(round_: Round, mine: random.Random) -> None:
    """Guards functions anew, and has several threads call one first."""
    names = 0
    while not round_.over.is_set() and names < 50:
        names += 1
        guarded = task_token_guard(f"soak.first{mine.randrange(20)}")(spin)

        def call(guarded: Callable[[], Token[object]] = guarded) -> None:
            with use(round_.books[0].coordinator):
                for token in [guarded() for _ in range(3)]:
                    with contextlib.suppress(TokenGateError):
                        token.result(TIMEOUT)

        threads = [threading.Thread(target=call, name=f"{round_.name}-first") for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)


def mapper(round_: Round, mine: random.Random) -> None:
    """Iterates maps off any loop, to the end or not."""
    while not round_.over.is_set():
        books = round_.pick(mine)
        results = iter(
            books.guard.map(
                bodies(round_, mine, books, mine.randrange(400)),
                in_flight=mine.choice([1, 5, 50, None]),
                ordered=mine.random() < 0.5,
                return_exceptions=mine.random() < 0.7,
            )
        )
        leave_after = mine.randrange(500)
        with contextlib.suppress(TokenGateError, LookupError, RecursionError, CancelledError):
            for count, _ in enumerate(results):
                if count == leave_after:
                    break
        if mine.random() < 0.5:
            results.close()  # type: ignore[attr-defined]


def bodies(round_: Round, mine: random.Random, books: Books, most: int) -> Iterator[Call]:
    def some() -> Iterator[Body]:
        for _ in range(most):
            yield round_.body(mine, books, 3)

    return books.calls(some())


# -- actors: event loops ----------------------------------------------------------------------------


async def awaits(round_: Round, mine: random.Random) -> None:
    for _ in range(mine.randrange(1, 20)):
        await round_.call(mine)


async def times_out(round_: Round, mine: random.Random) -> None:
    if mine.random() < 0.5:
        await asyncio.wait_for(round_.call(mine), mine.random() * 0.002)
    else:
        async with asyncio.timeout(mine.random() * 0.002):
            await round_.call(mine)


async def shields(round_: Round, mine: random.Random) -> None:
    token = round_.pick(mine).call(object)  # asyncio logs the failure of what was shielded
    task = asyncio.ensure_future(asyncio.wait_for(asyncio.shield(token), mine.random() * 0.001))
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    await asyncio.wait([task])


async def gathers(round_: Round, mine: random.Random) -> None:
    tokens = [round_.call(mine) for _ in range(mine.randrange(1, 200))]
    both = mine.random() < 0.7
    if mine.random() < 0.5:
        await asyncio.gather(*tokens, return_exceptions=both)
    else:
        await tokengate.gather(*tokens, return_exceptions=both)


async def takes_as_completed(round_: Round, mine: random.Random) -> None:
    tokens = [round_.call(mine) for _ in range(mine.randrange(1, 100))]
    leave_after = mine.randrange(150)
    if mine.random() < 0.5:
        ended = 0
        async for token in tokengate.as_completed(tokens):
            assert token.done()
            ended += 1
            if ended == leave_after:
                return
        assert ended == len(tokens)
    else:
        for each in asyncio.as_completed(tokens):
            with contextlib.suppress(TokenGateError, LookupError, RecursionError):
                await each


async def maps(round_: Round, mine: random.Random) -> None:
    books = round_.pick(mine)
    mapping = books.guard.map(
        bodies(round_, mine, books, mine.randrange(400)),
        in_flight=mine.choice([1, 5, 50, None]),
        ordered=mine.random() < 0.5,
        return_exceptions=mine.random() < 0.7,
    )
    if mine.random() < 0.4:
        await mapping
        return
    leave_after = mine.randrange(500)
    async with mapping as results:
        count = 0
        async for _ in results:
            count += 1
            if count == leave_after:
                break


class Mark:
    """A callback that counts its calls."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, token: Token[object]) -> None:
        self.calls += 1


async def calls_back(round_: Round, mine: random.Random) -> None:
    """Adds and removes callbacks from here and from another thread."""
    tokens = [round_.call(mine) for _ in range(20)]
    stay: list[Mark] = []
    went: list[tuple[Mark, int]] = []

    def add() -> None:
        for token in tokens:
            stays, goes = Mark(), Mark()
            token.add_done_callback(goes)
            token.add_done_callback(stays)
            went.append((goes, token.remove_done_callback(goes)))
            stay.append(stays)

    await asyncio.gather(asyncio.to_thread(add), asyncio.to_thread(add))
    add()
    await asyncio.wait(tokens)
    deadline = time.monotonic() + TIMEOUT
    while any(mark.calls == 0 for mark in stay) or any(m.calls + gone == 0 for m, gone in went):
        assert time.monotonic() < deadline, "a callback was lost"
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.001)
    assert all(mark.calls == 1 for mark in stay), "a callback was called twice"
    assert all(mark.calls + gone == 1 for mark, gone in went), "called although removed"


async def asks_in_a_thread(round_: Round, mine: random.Random) -> None:
    await asyncio.to_thread(round_.call(mine).exception, TIMEOUT)


async def drains(round_: Round, mine: random.Random) -> None:
    await asyncio.wait_for(round_.pick(mine).coordinator.drain(), mine.random() * 0.005)


STORIES: tuple[Story, ...] = (
    awaits,
    times_out,
    shields,
    gathers,
    takes_as_completed,
    maps,
    calls_back,
    asks_in_a_thread,
    drains,
)
EXPECTED = (asyncio.CancelledError, TimeoutError, TokenGateError, LookupError, RecursionError)


async def live(round_: Round, mine: random.Random, leaves_early: bool) -> None:
    """The life of one loop: stories side by side, some of them cancelled, some left unfinished."""
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []
    for _ in range(mine.randrange(1, 12)):
        task = asyncio.ensure_future(mine.choice(STORIES)(round_, random.Random(mine.random())))
        task.add_done_callback(check_story)
        tasks.append(task)
        if mine.random() < 0.3:
            loop.call_later(mine.random() * 0.01, task.cancel)
    if leaves_early:
        await asyncio.sleep(mine.random() * 0.01)
    else:
        await asyncio.wait(tasks)


def check_story(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        error = task.exception()
        if error is not None and not isinstance(error, EXPECTED):
            PROBLEMS.note(task.get_name(), error)


def looper(round_: Round, mine: random.Random) -> None:
    """Runs one event loop after the other."""
    while not round_.over.is_set():
        factory: Callable[[], asyncio.AbstractEventLoop] = mine.choice(LOOPS)
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(live(round_, mine, mine.random() < 0.3))


def piecewise_looper(round_: Round, mine: random.Random) -> None:
    """Runs a loop in pieces, and closes it with callbacks and tasks of live tokens on it."""
    while not round_.over.is_set():
        loop = mine.choice(LOOPS)()

        async def piece(mine: random.Random = mine) -> None:
            for _ in range(mine.randrange(1, 30)):
                round_.call(mine).add_done_callback(Token.done)
            await asyncio.sleep(0)

        for _ in range(mine.randrange(1, 5)):
            loop.run_until_complete(piece())
        loop.close()


def _loops() -> list[Callable[[], asyncio.AbstractEventLoop]]:
    found: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
    with contextlib.suppress(ImportError):
        import uvloop

        found.append(uvloop.new_event_loop)
    return found


LOOPS = _loops()
PROBLEMS = Problems()
ACTORS: tuple[Actor, ...] = (
    submitter,
    submitter,
    looper,
    looper,
    piecewise_looper,
    canceller,
    watcher,
    administrator,
    maker,
    first_caller,
    mapper,
)


# -- the rounds -------------------------------------------------------------------------------------


def act(actor: Actor, round_: Round, seed: float) -> None:
    try:
        actor(round_, random.Random(seed))
    except BaseException as error:
        PROBLEMS.note(actor.__name__, error)
        round_.over.set()


def play(dice: random.Random, number: int, seconds: float) -> str:
    """One round; returns what happened in it. Raises for anything that does not add up."""
    sys.setswitchinterval(dice.choice([1e-6, 1e-5, 1e-4, 5e-3]))
    round_ = Round(dice, number)
    cast = dice.choices(ACTORS, k=dice.randrange(2, 10))
    threads = [
        threading.Thread(
            target=act, args=(actor, round_, dice.random()), name=f"{round_.name}-{actor.__name__}"
        )
        for actor in cast
    ]
    for thread in threads:
        thread.start()
    round_.over.wait(seconds)
    round_.over.set()
    for thread in threads:
        thread.join(TIMEOUT)
        if thread.is_alive():
            raise AssertionError(f"{thread.name} hangs")
    told = []
    for books in round_.books:
        books.coordinator.start()
        states = books.check()
        if books.coordinator is not tokengate.get_coordinator():
            books.coordinator.stop(TIMEOUT)
        told.append(" ".join(f"{name.lower()} {count}" for name, count in sorted(states.items())))
    watched, name = round_.watched, round_.name
    del round_, threads, books
    wait_until(lambda: not _named(name), lambda: f"threads to end: {_named(name)}")
    try:
        wait_until(lambda: not _left(watched), "tokens and coordinators to go")
    except AssertionError:
        for each in _left(watched):
            PROBLEMS.found.append(f"left: {each!r}")
        raise
    return f"{', '.join(actor.__name__ for actor in cast)}: {'; '.join(told)}"


def _named(prefix: str) -> list[str]:
    # A coordinator may be held by frames that a failed token's traceback leads through; and on
    # free-threaded builds by a thread that has ended, until the next one with its id runs.
    gc.collect()
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)]


def _left(watched: list[weakref.ref[Any]]) -> list[object]:
    gc.collect()
    return [each for ref in watched if (each := ref()) is not None]


def stacks() -> Iterator[str]:
    """Where every thread and every unfinished task is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
    for each in gc.get_objects():
        if isinstance(each, asyncio.Task) and not each.done():
            places = [f"{f.f_code.co_filename}:{f.f_lineno} {f.f_locals}" for f in each.get_stack()]
            yield f"task {each!r}\n    {places}"[:1_000]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, help="repeat the choices of an earlier run")
    parser.add_argument("--round", type=float, default=0.5, help="seconds of one round")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    quiet = Quiet()
    sys.stderr = quiet
    faulthandler.enable(sys.__stderr__)
    PROBLEMS.watch()
    print(f"soak: seed {seed}, Python {sys.version.split()[0]}", flush=True)
    dice = random.Random(seed)
    end = time.monotonic() + options.seconds
    number = 0
    while time.monotonic() < end:
        faulthandler.dump_traceback_later(HANGING, exit=True, file=sys.__stderr__)
        number += 1
        begun = time.monotonic()
        try:
            told = play(dice, number, options.round)
            print(f"{number}: {time.monotonic() - begun:.1f} s, {told}", flush=True)
        except BaseException as error:
            PROBLEMS.note(f"round {number}", error)
        if PROBLEMS.found:
            print(f"soak: FAILED in round {number}, seed {seed}")
            print(*PROBLEMS.found[:20], sep="\n\n")
            print("the end of stderr:", *quiet.last, sep="", flush=True)
            print(*stacks(), sep="\n", flush=True)
            return 1
    faulthandler.cancel_dump_traceback_later()
    print(f"soak: {number} rounds, all accounted for, seed {seed}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
