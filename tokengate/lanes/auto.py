"""`lane="auto"`: whether an operation gains from worker processes, judged by what was measured.

`foresee` and `is_worse` are the law: numbers in, a ruling and its reason out. `review` applies it
to an operation, on the thread of a caller, ten times a second at most; `advise` says the same of
operations whose lane was chosen by hand.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from tokengate import _core
from tokengate.lanes.availability import lane_report
from tokengate.lanes.catalogue import inside_worker

__all__ = [
    "Foresight",
    "Measured",
    "Service",
    "advise",
    "foresee",
    "is_worse",
    "measure",
    "obstacle",
    "placed",
    "review",
]

FEW = 20  # runs measured, and looks at them, before anything is concluded
MARGIN = 1.25  # so many times as much must be expected of the move
THREAD = 2e-6  # s of one CPU that a token costs besides its run, on threads
PROCESS = 12e-6  # the same in a worker process, both sides together,
PARENT = 7e-6  # and of it here, holding the GIL
PER_BYTE = 0.5e-9  # s to pass on a byte of what was pickled
MOST_THREADS = 64
TASTES = 3  # calls that are pickled before the move: results cannot be known without
DUTY = 0.01  # of the time may go into that
WINDOW = 0.3  # s over which service is measured, at least,
ENOUGH = 30  # and tokens
WARM = 32  # tokens that end elsewhere before that counts: workers were starting
WORSE = 2  # windows in a row that send an operation back
TRIAL = 6  # windows after which it stays
PAUSE, LONGEST_PAUSE = 30.0, 3600.0  # s before it is tried again; doubles each time

LANE = "process"  # the one lane it moves to: interpreters refuse some extension modules


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of an operation's runs on threads. Durations in seconds, means of one run."""

    gil: bool
    cpus: int
    samples: int  # runs whose CPU time was measured
    looks: int  # how often a worker was found in one
    run: float = 0.0  # by the clock
    held: float = 0.0  # of it holding the GIL
    cpu: float = 0.0  # of CPU
    asleep: float = 0.0  # neither computing nor waiting for the GIL or a CPU
    crowd: float = 0.0  # tokens that live at a time
    payload: int | None = None  # bytes of arguments and result, pickled; None: not known
    pickling: float = 0.0  # s of CPU that pickling them took


@dataclass(frozen=True, slots=True)
class Foresight:
    """What the law expects: how many times as many tokens a second, in words why."""

    gain: float
    why: str


def foresee(m: Measured) -> Foresight:
    """What worker processes would bring to an operation that runs on threads."""
    if not m.gil:
        return Foresight(0.0, "there is no GIL: threads run Python code in parallel")
    if m.cpus < 2:
        return Foresight(0.0, "only one CPU may be used")
    if m.samples < FEW or m.looks < FEW:
        return Foresight(0.0, "too few runs have been measured")
    need = m.cpu + m.asleep  # a run alone on a CPU
    sent = m.pickling * 2 + (m.payload or 0) * PER_BYTE  # both sides
    threads = min(
        min(m.crowd, MOST_THREADS) / max(need, 1e-9),
        1 / (m.held + THREAD),
        m.cpus / (m.cpu + THREAD),
    )
    processes = min(
        min(m.crowd, m.cpus) / (need + PROCESS + sent),
        m.cpus / (m.cpu + PROCESS + sent),
        1 / (PARENT + m.pickling),
    )
    gain = processes / threads
    share = f"a run holds the GIL for {_time(m.held)} of {_time(m.run)}"
    if gain >= MARGIN:
        return Foresight(gain, f"{share}: worker processes do about {gain:.1f} times as much")
    if m.crowd < 1.5:
        why = "its calls come one at a time"
    elif m.asleep > m.cpu:
        why = f"a run mostly waits ({_time(m.asleep)} of {_time(need)}), which threads do best"
    elif m.cpu > 2 * m.held:
        why = f"{share}, and computes {_time(m.cpu)}: threads run that in parallel"
    elif sent + PROCESS > 0.3 * m.held:
        why = f"{share}, and sending one costs about {_time(sent + PROCESS)}"
    else:
        why = f"{share}: nothing to gain"
    return Foresight(gain, why)


@dataclass(frozen=True, slots=True)
class Service:
    """What an operation's callers got over a while."""

    rate: float  # tokens that ended, a second
    stay: float  # s from creation to end, the mean


def is_worse(before: Service, after: Service) -> bool:
    """Fewer tokens ended although those there were stayed longer.

    Either alone may be the callers' doing: fewer calls, or more at a time.
    """
    return after.rate < 0.8 * before.rate and after.stay > 1.25 * before.stay


def measure(core: _core.Core, name: str) -> Measured:
    """What a coordinator's threads know of an operation. Any thread; does not block."""
    runs, looks, held, crowd = core._measured(name)
    plain = Measured(_core.gil_enabled(), core._cpus, len(runs), looks)
    if not runs or not looks:
        return plain
    run = sum(wall for wall, _ in runs) / len(runs) * 1e-9
    cpu = min(run, sum(cpu for _, cpu in runs) / len(runs) * 1e-9)
    # Who waits for the GIL looks asleep, too; but not all do all the time.
    gaps = sorted(max(0, wall - cpu) for wall, cpu in runs)
    asleep = min(run - cpu, gaps[len(gaps) // 4] * 1e-9)
    return replace(
        plain, run=run, held=run * held / looks, cpu=cpu, asleep=asleep, crowd=max(crowd, 1.0)
    )


# -- what may travel ---------------------------------------------------------------------------


def obstacle(fn: Any) -> str | None:
    """Why the calls of `fn` must stay in this process; None: nothing is known against it."""
    if isinstance(fn, MethodType):
        if not isinstance(fn.__self__, (type, ModuleType)):
            return "it is bound to an object, which may be shared"
        fn = fn.__func__
    if isinstance(fn, partial):
        return "it is a partial, which holds values"
    if not isinstance(fn, FunctionType):
        owner = getattr(fn, "__self__", None)
        if hasattr(fn, "__qualname__") and (owner is None or isinstance(owner, (type, ModuleType))):
            return None  # a function in C
        return "it is an object with state of its own"
    if fn.__closure__:
        names = ", ".join(fn.__code__.co_freevars)
        return f"it closes over {names}"
    if not _is_found(fn):
        return "it is not at the top of a module, where another process could find it"
    written = _globals_written(fn.__code__)
    if written:
        return f"it changes the global {written[0]}"
    return None


def _is_found(fn: FunctionType) -> bool:
    found: Any = sys.modules.get(fn.__module__)
    for part in fn.__qualname__.split("."):
        found = getattr(found, part, None)
    found = getattr(found, "__func__", found)
    return found is fn or getattr(found, "__wrapped__", None) is fn


def _globals_written(code: CodeType) -> list[str]:
    known = _written.get(code)
    if known is None:
        if len(_written) > 1000:
            _written.clear()  # functions made on the fly
        known = _written[code] = [
            str(each.argval)
            for each in dis.get_instructions(code)
            if each.opname in ("STORE_GLOBAL", "DELETE_GLOBAL")
        ]
    return known


_written: dict[CodeType, list[str]] = {}


def _unavailable() -> str | None:
    if inside_worker():
        return "this is a worker process already"
    for report in lane_report():
        if report.lane == LANE and not report.available:
            return f"the {LANE} lane is not available: {report.why}"
    return None


# -- an operation with lane="auto" -------------------------------------------------------------


class Notes:
    """What is remembered of one operation from one review to the next."""

    def __init__(self) -> None:
        self.fixed: str | None = None  # why it stays on threads for good
        self.closed: str | None = _unavailable()
        self.asked = False  # for a taste
        self.tastes = 0
        self.payload = 0  # mean of the tastes
        self.pickling: float = 0.0
        self.next_taste: float = 0.0
        self.not_before: float = 0.0
        self.pause: float = PAUSE
        self.why = ""  # it was moved
        self.mark: tuple[float, int, float] | None = None  # when, tokens ended, their stay in sum
        self.before: Service | None = None  # of the last window on threads
        self.moved_at = 0  # tokens that had ended elsewhere
        self.worse = 0
        self.windows = 0


def review(
    core: _core.Core, seat: _core.Seat, fn: Callable[..., Any], args: Any, kwargs: Any
) -> None:
    """Look whether an operation with `lane="auto"` should be elsewhere, at this call of it."""
    notes = seat.notes
    if notes is None:
        notes = seat.notes = Notes()
    if seat.lane == "thread":
        _review_here(core, seat, notes, fn, args, kwargs)
    else:
        _review_there(core, seat, notes)


def _review_here(
    core: _core.Core, seat: _core.Seat, notes: Notes, fn: Any, args: Any, kwargs: Any
) -> None:
    fixed = notes.fixed or notes.closed or obstacle(fn)
    if fixed is not None:
        seat.reason = fixed
        return
    m = measure(core, seat.name)
    window = _service(core, seat, notes)
    if window is not None:
        notes.before = window
    if notes.tastes:
        m = replace(m, payload=notes.payload, pickling=notes.pickling)
    found = foresee(m)
    now = monotonic()
    if now < notes.not_before:
        return  # it has come back; the reason says so
    seat.reason = found.why
    if found.gain < MARGIN:
        return
    if seat.strict:
        seat.reason = (
            f"{found.why}; but it has a limit, a key or max_waiting, which hold for each lane apart"
        )
        return
    if notes.tastes < TASTES:
        _taste(seat, notes, now, args, kwargs)
        return
    if notes.before is None:
        return
    notes.moved_at = _ended(core, seat.name, LANE)[0]
    notes.mark = None
    notes.worse = notes.windows = 0
    notes.why = found.why
    seat.go(LANE)


def _taste(seat: _core.Seat, notes: Notes, now: float, args: Any, kwargs: Any) -> None:
    """Learn what calls weigh, and whether results can travel at all."""
    if seat.unfit is not None:
        notes.fixed = seat.reason = f"its results cannot be pickled: {seat.unfit}"
        return
    if seat.curious:
        return
    if notes.asked and seat.size >= 0:
        notes.asked = False
        notes.tastes += 1
        notes.payload += (seat.size - notes.payload) // notes.tastes
        notes.pickling += (seat.pickling - notes.pickling) / notes.tastes
        notes.next_taste = now + seat.pickling / DUTY - WINDOW
        if notes.tastes == TASTES:
            return
    if now < notes.next_taste:
        return
    notes.asked = True
    try:
        seat.ask(args, kwargs)
    except Exception as error:
        notes.fixed = seat.reason = f"its arguments cannot be pickled: {error}"


def _review_there(core: _core.Core, seat: _core.Seat, notes: Notes) -> None:
    if seat.refused is not None:
        notes.fixed = f"came back: arguments of a call could not be pickled: {seat.refused}"
        _come_back(seat, notes, notes.fixed)
        return
    ended, _ = _ended(core, seat.name, LANE)
    if seat.strict:
        if core._lane_core(LANE)._is_quiet(seat.name):
            _come_back(seat, notes, "came back: it has a limit, a key or max_waiting now")
        return
    if notes.windows >= TRIAL or ended - notes.moved_at < WARM:
        return
    before, after = notes.before, _service(core, seat, notes)
    if before is None or after is None:
        return
    notes.windows += 1
    notes.worse = notes.worse + 1 if is_worse(before, after) else 0
    seat.reason = (
        f"{notes.why}; {after.rate:.0f} tokens a second there, {before.rate:.0f} on threads before"
    )
    if notes.worse < WORSE:
        return
    notes.not_before = monotonic() + notes.pause
    notes.pause = min(2 * notes.pause, LONGEST_PAUSE)
    _come_back(
        seat,
        notes,
        f"came back: {after.rate:.0f} tokens a second there, {before.rate:.0f} on threads",
    )


def _come_back(seat: _core.Seat, notes: Notes, why: str) -> None:
    notes.mark = notes.before = None
    notes.tastes = 0
    seat.go("thread")
    seat.reason = why


def _ended(core: _core.Core, name: str, lane: str | None = None) -> tuple[int, float]:
    """Tokens that have run, and the seconds they stayed in all; lane: only those of that one."""
    count, stay = 0, 0.0
    for each, other in [("thread", core), *core._lanes.items()]:
        if lane in (None, each) and other._knows(name):
            figures = other._look_operation(name)
            count += figures["run"]["total_count"]
            stay += figures["run"]["total_sum"] + figures["wait"]["total_sum"]
    return count, stay


def _service(core: _core.Core, seat: _core.Seat, notes: Notes) -> Service | None:
    """Of the time since the mark, if that is a window; the next one begins then."""
    now = monotonic()
    count, stay = _ended(core, seat.name)
    if notes.mark is None:
        notes.mark = (now, count, stay)
        return None
    at, had, stayed = notes.mark
    done = count - had
    if now - at < WINDOW or done < ENOUGH:
        return None
    notes.mark = (now, count, stay)
    return Service(done / (now - at), (stay - stayed) / done)


# -- everybody else ----------------------------------------------------------------------------


def advise(core: _core.Core, name: str, fn: Any) -> str | None:
    """What another lane would bring to an operation on threads; None: nothing that is known.

    fn: its function, None: not known.
    """
    found = foresee(measure(core, name))
    if found.gain < MARGIN or _unavailable() is not None:
        return None
    if fn is not None and (why := obstacle(fn)) is not None:
        return f"{found.why}, but {why}"
    return f"{found.why} (lane={LANE!r}), if its arguments and results can be pickled"


def placed(
    core: _core.Core, name: str, shares: dict[str, int], guard: Any
) -> tuple[str, str, str | None]:
    """For `stats()`: the lane of an operation's calls, why, and what is said for another one.

    shares: how many went to each lane. guard: the guarded function that defined it, or None.
    """
    seat = core._seat_of(name) if core._knows(name) else None
    if seat is not None:
        return seat.lane, seat.reason, None
    lane = max(shares, key=lambda each: shares[each])
    if lane != "thread":
        return lane, f"lane={lane!r} was asked for", None
    fn = None if guard is None else guard.__wrapped__
    return lane, "the default", advise(core, name, fn)


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"
