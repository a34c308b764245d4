"""The coordinator: owns the lanes, the gate and the statistics of the tokens it runs."""

from __future__ import annotations

import asyncio
import difflib
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from time import monotonic
from types import TracebackType
from typing import (
    IO,
    TYPE_CHECKING,
    Any,
    ParamSpec,
    Self,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from tokengate import _core, machine
from tokengate.errors import CoordinatorStopped, LaneUnavailable, TokenKilled
from tokengate.lanes import auto
from tokengate.lanes.base import LaneThread
from tokengate.lanes.catalogue import LANES, inside_worker, open_lane
from tokengate.lanes.threads import LEAVING, ThreadLane, join_leaving
from tokengate.machine.pinning import Pin
from tokengate.naming import NO_TAGS, operation_name, reject_asynchronous
from tokengate.policy import Policies, checked_policy
from tokengate.reports import describe, dump_tokens, executing_tokens
from tokengate.settings import (
    ProfileSource,
    check_reason,
    checked_seconds,
    count_or_none,
    lag_target_s,
    pin_of,
    profile_and_place,
    thread_count,
    worker_count,
)
from tokengate.stats import Durations, LaneStats, LoopLag, OperationStats, Stats, Totals, merged

if TYPE_CHECKING:
    from tokengate.guard import GuardedFunction
    from tokengate.lanes.remote import RemoteLane
    from tokengate.profile import LaneProfile
    from tokengate.token import Token

__all__ = ["Coordinator", "Pin"]

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger("tokengate")

_coordinators: weakref.WeakSet[Coordinator] = weakref.WeakSet()


class Coordinator(_core.Core):
    """Runs tokens on worker threads that it starts as they are needed.

    thread_workers: how many tokens may execute at once, 1 to 4096; None: up to 64 threads (or
    ``TOKENGATE_THREAD_WORKERS``), of which an operation without a limit leaves some to the others.
    process_workers, interpreter_workers: the most workers of these two lanes; None: the CPUs this
    process may use. loop_lag_target: seconds; how many threads are active at a time is steered so
    that event loops wait no longer than about this for the interpreter, and no more burn CPU than
    there are CPUs; None: always as many as there are. pin: ``"core"`` binds each worker to one core
    (LaneUnavailable where the system cannot); ``"none"`` does not; ``"auto"`` does not either,
    since no gain was measured. profile: the file of a sweep, or True for the one of this machine
    and Python in the default folder: says the workers, the pinning and how many calls of a `.map`
    are under way, where nothing else does (docs/sweep.md; ValueError where it was measured
    elsewhere, or is damaged). stop_timeout: the seconds `stop` gives what still runs. name: start
    of the threads' names.

    Starts by itself on first use; usable as ``with`` and ``async with``, which stop it. All
    methods may be called from any thread; none blocks except `stop` and leaving ``with``.
    """

    def __init__(
        self,
        *,
        thread_workers: int | None = None,
        process_workers: int | None = None,
        interpreter_workers: int | None = None,
        pin: Pin = "auto",
        loop_lag_target: float | None = 0.010,
        stop_timeout: float = 10.0,
        name: str = "tokengate",
        profile: ProfileSource | None = None,
    ) -> None:
        maximum = self._settle(
            thread_workers,
            process_workers,
            interpreter_workers,
            pin,
            loop_lag_target,
            stop_timeout,
            name,
            profile,
        )
        self._open_pool(maximum)
        _coordinators.add(self)

    def _settle(
        self,
        thread_workers: int | None,
        process_workers: int | None,
        interpreter_workers: int | None,
        pin: Pin,
        loop_lag_target: float | None,
        stop_timeout: float,
        name: str,
        profile: ProfileSource | None,
    ) -> int:
        found = None if profile is None else profile_and_place(profile)
        lanes = found[0].lanes if found else {}
        if thread_workers is None and "thread" in lanes and not machine.asked_thread_workers():
            thread_workers = lanes["thread"].workers
        maximum = self._count_threads(thread_workers)
        further = {
            "process": count_or_none("process_workers", process_workers),
            "interpreter": count_or_none("interpreter_workers", interpreter_workers),
        }
        target = lag_target_s(loop_lag_target)
        pinned = machine.is_pinned(pin_of("thread", pin, lanes), "thread")
        seconds = checked_seconds("stop_timeout", stop_timeout)
        if not isinstance(name, str) or not name:
            raise ValueError(f"name={name!r}: expected a non-empty string")
        cpus = self._count_cpus()  # what is wrong with TOKENGATE_CPUS is said here and now
        if pin == "core" and sys.platform != "linux":
            raise LaneUnavailable(f"pin='core': threads cannot be pinned on {sys.platform}")
        # nothing is changed before all of it has been found good
        self.stop_timeout: float = seconds
        self.name = name
        self._further: dict[str, int | None] = further  # lane -> workers asked for
        self._profile = found
        self._profiled: Mapping[str, LaneProfile] = lanes  # lane -> what a sweep found for it
        self._paused: set[str | None] = set()  # names, and None for all
        self._opening = threading.Lock()
        self._lanes.clear()
        self._pin: Pin = pin
        self._lane = ThreadLane(name, pinned)
        lane = self._lane
        self._attach_lane(lane.workers, lane.started, lane.exited, _stop_all)
        self._set_steering(target, cpus, thread_workers is None)
        return maximum

    def _configure(
        self,
        *,
        thread_workers: int | None = None,
        process_workers: int | None = None,
        interpreter_workers: int | None = None,
        pin: Pin = "auto",
        loop_lag_target: float | None = 0.010,
        stop_timeout: float = 10.0,
        name: str = "tokengate",
        profile: ProfileSource | None = None,
    ) -> None:
        """The constructor's work again, for the default coordinator before its first use."""
        if self.in_use:
            raise RuntimeError(
                "the default coordinator is in use: call configure_default() before the first "
                "guarded call, or get_coordinator().stop() it first"
            )
        maximum = self._settle(
            thread_workers,
            process_workers,
            interpreter_workers,
            pin,
            loop_lag_target,
            stop_timeout,
            name,
            profile,
        )
        self._restart_pool(maximum)

    def __repr__(self) -> str:
        return f"<Coordinator {self.name!r}{' stopped' if self.stopped else ''}>"

    # -- the core's hooks ----------------------------------------------------------------------

    def _forked(self) -> None:
        self._opening = threading.Lock()
        self._paused.clear()
        self._lane.forget()

    def _count_threads(self, asked: int | None) -> int:
        return thread_count(asked)

    def _count_cpus(self) -> int:
        """CPUs to make workers for; the keeper looks from now on whether that has changed."""
        files: list[bytes] | None = None
        # twice at least: this process may be moved to another control group in between
        while files != (found := machine.watched_files()):
            files = found
            self._stand_on(files)
        return machine.topology().count

    def _cpus_changed(self) -> None:
        try:
            self._set_cpus(self._count_cpus())
        except ValueError as error:  # TOKENGATE_CPUS names what has been taken away
            _log.warning("%r goes on with as many CPUs as before: %s", self, error)

    def _open_lane(self, name: str) -> _core.Core:
        if inside_worker():
            return self  # a worker's workers would be too many
        with self._opening:
            if (known := self._lanes.get(name)) is not None:
                return known
            suits = self._profiled.get(name)
            workers = self._further.get(name) or (suits.workers if suits else machine.cpu_count())
            pinned = machine.is_pinned(pin_of(name, self._pin, self._profiled), name)
            lane = open_lane(self, name, self.name, workers, pinned)
            for each in self._operation_names():
                lane._introduce(each, self._tags_of(each), self._policy(each))
            for paused in self._paused:
                lane._pause(paused, True)
            if self.stopped:
                lane._close_pool()
            self._lanes[name] = lane
            return lane

    def _review(self, seat: _core.Seat, fn: Any, args: Any, kwargs: Any) -> None:
        auto.review(self, seat, fn, args, kwargs)

    def _window(self, lane: str) -> int | None:
        """How many calls of a map are under way in a lane where nobody says; None: as usual."""
        suits = self._profiled.get(lane)
        return suits.in_flight if suits else None

    def _remote(self) -> list[RemoteLane]:
        """The further lanes that have been used."""
        return cast("list[RemoteLane]", list(self._lanes.values()))

    def _cores(self) -> list[_core.Core]:
        return [self, *self._remote()]

    def _workers(self) -> list[LaneThread]:
        """Of all lanes."""
        workers = list(self._lane.workers)
        for lane in self._remote():
            workers += lane.threads.workers
        return workers

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> Self:
        """Accept tokens (again, after `stop`). Calling it first is not needed. Does not block."""
        for core in self._cores():
            core._reopen_pool()
        return self

    def stop(self, timeout: float | None = None, cancel_waiting: bool = False) -> None:
        """Stop: take no new tokens, let those that wait and execute finish, end the workers.

        timeout: seconds for all of it, None: `stop_timeout`. cancel_waiting: waiting tokens end
        at once, KILLED with `CoordinatorStopped`. What still waits after the timeout ends so too;
        what still executes is abandoned, its token KILLED likewise; both are reported on stderr,
        with the Python stack of each stuck worker. Blocks. RuntimeError on an event loop's own
        thread (use ``await aclose()``) and on one of the coordinator's workers.
        """
        seconds = self.stop_timeout if timeout is None else checked_seconds("timeout", timeout)
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(
                "stop() would block the event loop that runs on this thread: "
                "use `await coordinator.aclose()`"
            )
        self._check_fork()
        self._refuse_own_worker("stop")
        deadline = monotonic() + seconds
        self._begin_stop(cancel_waiting)
        for core in self._cores():
            quiet = threading.Event()
            watch = core._watch(None, quiet.set)
            try:
                quiet.wait(max(0.0, deadline - monotonic()))
            finally:
                core._unwatch(watch)
        waiting = self._close()
        ended = [lane.join(max(0.0, deadline - monotonic())) for lane in self._threads()]
        if self._report(waiting, seconds, all(ended)):
            for remote in self._remote():
                remote.threads.join(LEAVING)  # what ran there has been stopped

    async def aclose(self, timeout: float | None = None, cancel_waiting: bool = False) -> None:
        """`stop` for use on an event loop: the same, but awaits where `stop` blocks."""
        seconds = self.stop_timeout if timeout is None else checked_seconds("timeout", timeout)
        self._check_fork()
        self._refuse_own_worker("aclose")
        deadline = monotonic() + seconds
        self._begin_stop(cancel_waiting)
        for core in self._cores():
            await self._quiet(core, None, max(0.0, deadline - monotonic()))
        waiting = self._close()
        ended = [await _empty(lane, max(0.0, deadline - monotonic())) for lane in self._threads()]
        if self._report(waiting, seconds, all(ended)):
            for remote in self._remote():
                await _empty(remote.threads, LEAVING)  # what ran there has been stopped

    def _threads(self) -> list[ThreadLane]:
        return [self._lane, *(lane.threads for lane in self._remote())]

    def _begin_stop(self, cancel_waiting: bool) -> None:
        with self._opening:
            cores = self._cores()
            for core in cores:
                core._refuse_new()
        if cancel_waiting:
            for core in cores:
                core._kill_waiting(CoordinatorStopped, f"{self!r}: stopped with cancel_waiting")

    def _close(self) -> int:
        """Ends what still waits; returns how many that were. Workers leave when they are free."""
        waiting = 0
        for core in self._cores():
            waiting += core._kill_waiting(
                CoordinatorStopped, f"{self!r}: stopped before the token could run"
            )
            core._close_pool()
        return waiting

    def _report(self, waiting: int, seconds: float, ended: bool) -> bool:
        """Kills and reports what is left; ended: nothing executes. True: there was something."""
        lines: list[str] = []
        if waiting:
            lines.append(f"{waiting} waiting tokens were killed")
        if not ended:
            stuck = executing_tokens(self._workers())
            told = describe(stuck)  # as they are, not as killed
            for token, _ in stuck:
                token._kill_with(
                    CoordinatorStopped(f"{self!r}: stopped while the function was running")
                )
            if stuck:
                lines.append(f"{len(stuck)} functions still run, abandoned:")
                lines += told
        if lines:
            head = f"tokengate: {self.name}: after {seconds:g} s of stopping, "
            # not logged: at interpreter exit nobody may be listening any more
            print(head + "\n".join(lines), file=sys.stderr, flush=True)  # noqa: T201
        return bool(lines)

    def _refuse_own_worker(self, what: str) -> None:
        worker = _core.current_worker()
        if worker is not None and worker in self._lane.workers:
            raise RuntimeError(
                f"{what}() was called by a function this coordinator runs, and would wait for that "
                "function to return"
            )

    def __enter__(self) -> Self:
        """Start; leaving stops, and after an exception ends what waits at once."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(cancel_waiting=kind is not None)

    async def __aenter__(self) -> Self:
        """Start; leaving stops, and after an exception ends what waits at once."""
        return self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose(cancel_waiting=kind is not None)

    # -- work ----------------------------------------------------------------------------------

    @overload
    def submit(
        self, fn: GuardedFunction[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Token[R]: ...
    @overload
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Token[R]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Token[Any]:
        """Call `fn(*args, **kwargs)` as a token of this coordinator.

        A guarded function keeps its operation and tags; of any other callable the operation is
        ``"module.qualname"``. TypeError for something that is not callable, or is asynchronous.
        """
        return _submit(self, fn, args, kwargs)

    async def drain(self, op: str | GuardedFunction[..., Any] | None = None) -> None:
        """Wait until every token of the operation (None: of all) has ended.

        Does not stop others from being submitted meanwhile; what is paused is waited for, too.
        ValueError, with similar names, for an operation nobody has defined or run.
        """
        name = None if op is None else self._known(op)
        for core in self._cores():
            if name is None or name in core._operation_names():
                await self._quiet(core, name, None)

    async def _quiet(self, core: _core.Core, name: str | None, timeout: float | None) -> bool:
        signal = _Signal()
        watch = core._watch(name, signal.set)
        try:
            return await signal.wait(timeout)
        finally:
            core._unwatch(watch)

    def _known(self, op: str | GuardedFunction[..., Any]) -> str:
        if not isinstance(op, (str, _core.GuardBase)):
            raise TypeError(f"{op!r}: expected the name of an operation, or a guarded function")
        from tokengate.guard import defined, defined_names  # it needs this module first

        name = op if isinstance(op, str) else op.operation
        names = self._operation_names()
        if name not in names:
            for lane in self._remote():
                if name in lane._operation_names():  # it has run elsewhere only
                    self._introduce(name, lane._tags_of(name), lane._policy(name))
                    names = self._operation_names()
                    break
        if name not in names and (guard := defined(op)) is not None:
            self._introduce(name, *guard._declared())  # decorated, but it has not run yet
            names = self._operation_names()
        if name not in names and _core.OTHER in names:
            return _core.OTHER  # one name too many: it shares that one's queue and figures
        if name not in names:
            names = sorted({*names, *defined_names()})
            near = difflib.get_close_matches(name, names, 3)
            if near:
                hint = f"did you mean {' or '.join(map(repr, near))}?"
            else:
                more = f" and {len(names) - 10} more" if len(names) > 10 else ""
                hint = f"known: {', '.join(map(repr, names[:10])) or 'none'}{more}"
            raise ValueError(f"no operation {name!r} is known to {self!r}; {hint}")
        return name

    def _in_all(self, name: str | None) -> list[_core.Core]:
        """The cores of all lanes, each with the operation (None: whatever it has)."""
        for lane in self._remote():
            if name is not None and name not in lane._operation_names():
                lane._introduce(name, self._tags_of(name), self._policy(name))
        return self._cores()

    # -- the gate ------------------------------------------------------------------------------

    def pause(self, op: str | GuardedFunction[..., Any] | None = None) -> None:
        """Start no token of the operation (None: of any) until `resume`. What executes goes on.

        Calls go on being accepted, and wait. ValueError, with similar names, for an operation this
        coordinator does not know.
        """
        name = self._named(op)
        with self._opening:
            self._paused.add(name)
            for core in self._in_all(name):
                core._pause(name, True)

    def resume(self, op: str | GuardedFunction[..., Any] | None = None) -> None:
        """Undo `pause`, and lift quarantines.

        An operation paused by name stays so until it is resumed by name.
        """
        name = self._named(op)
        with self._opening:
            self._paused.discard(name)
            for lane in self._remote():
                lane.lift_quarantine(name if name in lane._operation_names() else None)
            for core in self._in_all(name):
                core._pause(name, False)

    def discard(self, op: str | GuardedFunction[..., Any] | None = None) -> int:
        """End every token of the operation (None: of all) that has not started; returns how many.

        They end KILLED with `TokenKilled`. The opposite, waiting until all have run, is `drain`.
        """
        name = self._named(op)
        return sum(
            core._kill_waiting(TokenKilled, "discarded before it could run", name)
            for core in self._in_all(name)
        )

    def kill(self, token_id: int, reason: str = "killed") -> bool:
        """End the token of that number with `TokenKilled(reason)`, wherever it is.

        A function that executes runs on, abandoned. False: no such token, or it has ended. Takes
        time in proportion to what waits.
        """
        if not isinstance(token_id, int) or isinstance(token_id, bool):
            raise TypeError(f"token_id={token_id!r}: expected the number of a token, `token.id`")
        check_reason(reason)
        for core in self._cores() if 0 < token_id < 2**63 else ():
            token = core._find(token_id)
            if token is not None and token.kill(reason):
                return True
        # if it has started meanwhile it is among these
        return any(
            token.id == token_id and token.kill(reason)
            for token, _ in executing_tokens(self._workers())
        )

    def kill_operation(self, op: str | GuardedFunction[..., Any], reason: str = "killed") -> int:
        """End every token of the operation, waiting or executing, with `TokenKilled(reason)`.

        Returns how many. Functions that execute run on, abandoned. Tokens created meanwhile are
        not affected: `pause` first to have none.
        """
        check_reason(reason)
        name = self._known(op)
        ended = sum(core._kill_waiting(TokenKilled, reason, name) for core in self._in_all(name))
        for token, _ in executing_tokens(self._workers()):
            if self._is_of(token, name):
                ended += token.kill(reason)
        return ended

    def configure(self, op: str | GuardedFunction[..., Any], **policy: Unpack[Policies]) -> None:
        """Change the policy of an operation: what is named changes, the rest stays.

        Takes `task_token_guard`'s arguments from `limit` to `key_limit`. Holds at once for what
        waits, except `timeout`, `run_timeout` and `key`, which hold for calls made from now on.
        Functions that execute beyond a lowered limit go on. TypeError or ValueError for what a
        policy cannot be, ValueError for an operation nobody knows.
        """
        name = self._known(op)
        if name == _core.OTHER != getattr(op, "operation", op):
            raise ValueError(
                f"operation {getattr(op, 'operation', op)!r} is beyond the first thousand, which "
                "share one queue and one policy: use fewer names"
            )
        with self._opening:
            for core in self._in_all(name):
                core._set_policy(name, checked_policy(core._policy(name), **policy))

    def _named(self, op: str | GuardedFunction[..., Any] | None) -> str | None:
        return None if op is None else self._known(op)

    def _is_of(self, token: Token[Any], name: str) -> bool:
        own = token.operation_type
        return own == name or (name == _core.OTHER and own not in self._operation_names())

    def dump(self, file: IO[str] | None = None) -> None:
        """Write what executes and what is abandoned to a text file, by default stderr.

        For each such token: its age, its operation, the task that called it, and the Python stack
        of its worker. Any thread; does not stop the workers.
        """
        dump_tokens(self, self._workers(), sys.stderr if file is None else file)

    def resize(self, lane: str, n: int) -> None:
        """Let at most `n` workers of a lane execute at once; surplus ones end when they are free.

        Where a `loop_lag_target` steers how many are active, `n` is the most it may choose. lane:
        ``"thread"``, ``"process"`` or ``"interpreter"``. ValueError for any other lane or an
        impossible number.
        """
        if lane not in LANES:
            raise ValueError(
                f"lane={lane!r}: expected {' or '.join(map(repr, LANES))}, the lanes there are"
            )
        if lane == "thread":
            self._resize_pool(thread_count(n))
            return
        self._further[lane] = workers = worker_count("n", n)
        if lane in self._lanes:
            self._lanes[lane]._resize_pool(workers)

    # -- looking -------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """A snapshot of operations, lanes and loop lag.

        Any thread; does not block; some tens of microseconds for each operation.
        """
        from tokengate.guard import defined  # it needs this module first

        operations: dict[str, OperationStats] = {}
        shares: dict[str, dict[str, int]] = {}
        lanes = {}
        for core, lane_name in [(self, "thread"), *((lane, lane.name) for lane in self._remote())]:
            mine = {}
            for name in core._operation_names():
                figures = core._look_operation(name)
                figures["wait"] = Durations(**figures["wait"])
                figures["run"] = Durations(**figures["run"])
                mine[name] = OperationStats(**figures)
            lanes[lane_name] = _lane_stats(core, mine)
            for name, own in mine.items():
                operations[name] = merged(operations[name], own) if name in operations else own
                shares.setdefault(name, {})[lane_name] = own.submitted
        for name, each in operations.items():
            lane, reason, advice = auto.placed(self, name, shares[name], defined(name))
            operations[name] = replace(each, lane=lane, lane_reason=reason, lane_advice=advice)
        links = _core.links()
        lags = [LoopLag(*link.lag_view()) for link in links]
        totals = {
            each.name: sum(getattr(figures, each.name) for figures in operations.values())
            for each in fields(Totals)
        }
        return Stats(
            operations=operations,
            lanes=lanes,
            loop_lag=max(lags, key=lambda lag: lag.p99, default=LoopLag()),
            loop_busy=max((link.busy() for link in links), default=0.0),
            totals=Totals(**totals),
            profile=str(self._profile[1]) if self._profile else None,
        )


class _Signal:
    """One-shot: set from any thread, awaited on the loop it was made on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def set(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _resolve(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, timeout: float | None) -> bool:
        done, _ = await asyncio.wait([self._future], timeout=timeout)
        return bool(done)


def _submit(
    coordinator: Coordinator, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Token[Any]:
    from tokengate.current import runtime  # it needs this module first

    if isinstance(fn, _core.GuardBase):
        return cast("GuardedFunction[..., Any]", fn)._on(coordinator)(*args, **kwargs)
    if not callable(fn):
        raise TypeError(f"submit() needs a callable, got {fn!r}")
    reject_asynchronous(fn)
    return _core.submit(runtime, coordinator, operation_name(fn), NO_TAGS, fn, args, kwargs)


def _lane_stats(core: _core.Core, operations: dict[str, OperationStats]) -> LaneStats:
    workers, idle, maximum, limit, _, _, wakes, cpu, cuts, reason = core._look()
    depth = sum(each.waiting + each.admitted for each in operations.values())
    return LaneStats(workers, workers - idle, maximum, limit, depth, cpu, wakes, cuts, reason)


async def _empty(lane: ThreadLane, timeout: float) -> bool:
    """Wait up to `timeout` seconds until no thread of a lane is left; False if some are."""
    empty = _Signal()
    lane.on_empty(empty.set)
    try:
        return await empty.wait(timeout)
    finally:
        lane.off_empty(empty.set)


def _stop_all() -> None:
    """At interpreter exit, before Python joins its threads: the stop protocol for each."""
    for coordinator in list(_coordinators):
        if coordinator.in_use:
            coordinator.stop()
    join_leaving(LEAVING)  # also of those that were stopped before, or dropped


# Runs before threading joins non-daemon threads and before daemon threads lose the interpreter;
# atexit would be later.
threading._register_atexit(_stop_all)  # type: ignore[attr-defined]
