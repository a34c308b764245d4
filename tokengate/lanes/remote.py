"""What all lanes share whose tokens run outside this interpreter: a carrier thread for each worker.

The carrier claims tokens, sends them, waits for replies and for the worker's end, and starts the
next worker. What a worker is - a process, an interpreter - is the business of its `Launcher`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import select
import socket
import struct
import threading
import weakref
from collections.abc import Mapping
from itertools import count
from typing import Any, Protocol

from tokengate import _core, machine
from tokengate.errors import OperationQuarantined, TokenGateError, TokenKilled, WorkerDied
from tokengate.lanes import travel
from tokengate.lanes.child import ERROR, LARGE, RING, TAKEN, Gone
from tokengate.lanes.loans import Loans
from tokengate.lanes.threads import ThreadLane
from tokengate.lanes.wire import define, encode, pack_call, read_reply, refuse_main, unbound
from tokengate.naming import operation_name

__all__ = ["Launcher", "RemoteLane", "RemoteWorker", "Running", "StartFailed"]

log: logging.Logger = logging.getLogger("tokengate")

LOOK = 5  # ms between looks at a worker that has been sent more than it has begun
FOREVER = -1  # ms
TRIES = 3  # starts in a row that may fail before what waits is told
RETRY = 1.0  # s until the next try after that
GRACE = 0.25  # s that a worker which is to end may go on before another carrier takes its place
LAST_WORD = struct.pack("ll", 1, 0)  # s, us that the rest of a worker's last reply may take
MOST_AT_ONCE = 16_384  # bytes that an idle worker's pipe takes without blocking


class StartFailed(Exception):
    """No worker could be started; says why."""


class Running(Protocol):
    """One worker that runs. All methods but `kill` are called on its carrier's thread."""

    pipe: socket.socket
    memory: Any  # the board: a writable buffer, shared with the worker
    # a descriptor that turns readable when the worker has ended, or is to end; -1: there is none
    sentinel: int
    name: str  # for reports: "process 1234"

    @property
    def loans(self) -> Loans | None:
        """With a worker in this process; another can be lent nothing."""

    def kill(self) -> None:
        """Stop what runs there, at once. Any thread; does not block; again does nothing."""

    def ended(self, timeout: float | None) -> bool:
        """Wait up to `timeout` seconds until nothing runs there; True: nothing does, or can."""
        raise NotImplementedError

    def reap(self) -> str:
        """Wait until it has ended, killing it if it does not; how it ended, in words."""
        raise NotImplementedError

    def close(self) -> None:
        """Let it end by itself, soon, and release what it held."""


class Launcher(Protocol):
    """Starts workers of one lane."""

    runs_main: bool  # whether what is defined in the main module can be found by its workers

    def launch(self, cpu: int | None, workers: int, cpus: int) -> Running:
        """A worker that is ready for its first token. Blocks; StartFailed if there can be none.

        cpu: the one to bind it to; None: none. It is one of `workers`, which share `cpus`.
        """
        raise NotImplementedError


class RemoteLane(_core.RemoteCore):
    """A lane of one coordinator, with a pool, queues, limits, keys and figures of its own."""

    def __init__(
        self,
        home: _core.Core,
        name: str,
        prefix: str,
        workers: int,
        pinned: bool,
        launcher: Launcher,
    ):
        self.name = name
        self.pinned: bool = pinned
        self.home = home
        self.launcher = launcher
        self.threads: ThreadLane = ThreadLane(f"{prefix}-{name}", False)
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._attach_lane(self.threads.workers, self.threads.started, self.threads.exited, None)
        self._set_steering(0.0, workers, False)
        self._share_ids(home)
        self._open_pool(workers)
        self._set_travelling(travel.variables)

    def __repr__(self) -> str:
        return f"<{self.name} lane of {self.home!r}>"

    # -- the core's hooks ----------------------------------------------------------------------

    def _forked(self) -> None:
        self.threads.forget()

    def _new_carrier(self) -> RemoteWorker:
        return RemoteWorker(self)

    def _refer(
        self, fn: Any, args: tuple[Any, ...], operation: str, tags: Mapping[str, Any]
    ) -> tuple[_core.Ref, tuple[Any, ...]]:
        """What workers must know of the calls of a function, and the arguments to send."""
        plain, args = unbound(fn, args)
        ref = self._known_ref(plain, operation, tags)
        if ref is None:
            definition = define(plain, operation, tags, self.launcher.runs_main)
            ref = _core.Ref(plain, tags, next(self._numbers), definition)
            self._keep_ref(ref, operation)
        return ref, args

    def _payload(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None
    ) -> tuple[Any, int]:
        payload = pack_call(operation_name(fn), args, kwargs, travel.current())
        if not self.launcher.runs_main:
            refuse_main(operation_name(fn), payload[0])
        return payload

    # -- administration ------------------------------------------------------------------------

    def quarantine(self, name: str, how: str) -> None:
        """Refuse an operation whose runs kill their workers, until it is resumed."""
        error = OperationQuarantined(
            f"operation {name!r} is quarantined: its runs killed {_core.DEADLY_RUNS} workers of "
            f"the {self.name} lane in a row (the last one {how}). Find out why, then "
            f"coordinator.resume({name!r})"
        )
        log.error("%s", error)
        self._quarantine(name, error)
        self._kill_waiting(OperationQuarantined, str(error), name)

    def lift_quarantine(self, name: str | None) -> None:
        """Take the calls of an operation (None: of all) again."""
        for each in self._operation_names() if name is None else [name]:
            self._quarantine(each, None)

    def pids(self) -> list[int]:
        """Of the processes its workers are, where they are processes."""
        found = [each.pid for each in list(self.threads.workers) if isinstance(each, RemoteWorker)]
        return [pid for pid in found if pid]


class RemoteTraceback(Exception):
    """Cause of an exception that a remote worker raised: its traceback there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class RemoteWorker(_core.Carrier):
    """One carrier: a thread here, a worker elsewhere.

    Its methods are its own thread's but for `_kill`, `_send_one` and the properties.
    """

    def __init__(self, core: RemoteLane) -> None:
        self._lane = weakref.ref(core)  # a lane nobody holds can go
        self._label = core.name
        self._launcher = core.launcher
        self._pinned: bool = core.pinned
        self._threads = core.threads
        self._running: Running | None = None
        self._died = ""  # how the last one ended
        self._deaf = False  # what comes through the pipe makes no sense any more
        self._backlog: list[Any] = []  # gathered by a submitter, left to this thread to send
        self._bell = _Bell()

    def run(self) -> None:
        """The body of the carrier's thread."""
        try:
            self._enter(self._bell.target)
            self._threads.started(self)
            while not self.left:
                try:
                    self._carry()
                except Exception:
                    # Its tokens must end, whatever went wrong here.
                    self._tell_loops()
                    log.exception("a carrier of the %s lane starts over", self._label)
                    self._kill()
                    self._bury()
        finally:
            self._tell_loops()
            if self._running is not None:
                self._running.close()
                self._running = None
            self._bell.close()
            self._threads.exited(self)

    def _carry(self) -> None:
        while True:
            with self.drive:
                if self._running is None and self._takes_back() and self._leave_if_closing():
                    return
                while self._running is None:
                    self._start()
                    if self._running is None and self._should_leave():
                        return
                alive = self._send_all()
            if alive and self.left:
                return
            if alive:
                alive = self._wait(LOOK if self._patience() else FOREVER)
            if not alive:
                self._bury()

    # -- its worker ----------------------------------------------------------------------------

    def _place(self) -> tuple[int | None, int, int]:
        """What its next worker is launched with."""
        cpu = machine.core_for_worker(self.index) if self._pinned else None
        lane = self._lane()
        workers = 1 if lane is None else lane._look()[2]
        return cpu, workers, machine.cpu_count()

    def _start(self) -> None:
        why = ""
        for _ in range(TRIES):
            try:
                running = self._launcher.launch(*self._place())
            except Exception as error:
                why = str(error) if isinstance(error, StartFailed) else f"{error!r}"
                log.warning("a worker of the %s lane could not be started: %s", self._label, why)
            else:
                self._running = running
                self._deaf = False
                self._attach(running.memory)
                self._outlet = _Outlet(running)
                return
        message = f"no worker of the {self._label} lane could be started: {why}"
        self._fail_again(WorkerDied(message))
        self._tell_loops()
        lane = self._lane()
        if lane is not None:
            lane._kill_waiting(TokenKilled, message)

    def _should_leave(self) -> bool:
        """After starts that failed: whether the pool wants this worker to end; else it pauses."""
        if self._leave_if_closing():
            return True
        self._bell.wait(RETRY)
        return self._leave_if_closing()

    def _bury(self) -> None:
        """The worker is gone: its executing token fails, the others go on elsewhere."""
        running = self._running
        if running is None:
            return
        self._hear_out()
        # Nothing of it is read from here on: it must not wait with a large reply for that.
        with contextlib.suppress(OSError):
            running.pipe.shutdown(socket.SHUT_RDWR)
        if running.loans is not None:
            running.loans.let_go()
        self._take_replies()
        self._tell_loops()
        if not running.ended(GRACE):
            # Nothing can stop what it runs. Where that has been abandoned another carrier takes
            # this one's place, which stays with it until the function returns.
            self._take_replies()
            self._tell_loops()
            self._give_way()
            running.ended(None)
        self._died = running.reap()
        self._take_replies()
        self._running = None
        self._backlog = []
        try:
            fatal = self._lost()
        finally:
            self._tell_loops()
        if fatal is not None:
            fatal[0].quarantine(fatal[1], self._died)
        running.close()

    def _kill(self) -> None:
        running = self._running
        if running is not None:
            running.kill()

    def _death_of(self, token: _core.TokenBase) -> BaseException:
        return WorkerDied(f"the worker that ran {token!r} {self._died}")

    @property
    def pid(self) -> int:
        """Of the process its worker is; 0: none, or none yet."""
        return getattr(self._running, "pid", 0)

    @property
    def place(self) -> str:
        """Where its tokens run, for reports."""
        running = self._running
        return "a worker that is being started" if running is None else running.name

    # -- out -----------------------------------------------------------------------------------

    def _send_all(self) -> bool:
        running = self._running
        assert running is not None
        try:
            for pieces in self._backlog:
                self._send(pieces)
            self._backlog = []
            while True:
                frame = self._gather()
                if frame is None:
                    return True
                self._send(encode(frame, running.loans))
        except (OSError, Gone):
            return False

    def _send_one(self) -> bool:
        """By a submitter, under `drive`. False: this thread has something to do."""
        running = self._running
        frame = self._gather(1)
        if frame is None or running is None:
            return not self.left
        pieces = encode(frame, running.loans)
        if len(pieces) == 1 and len(pieces[0]) <= MOST_AT_ONCE:
            try:
                sent = self._send_now(running.pipe.fileno(), pieces[0])
            except BlockingIOError:
                sent = 0  # what has been taken back from this worker still lies in its pipe
            except OSError:
                return False  # this thread will see what is the matter
            if sent == len(pieces[0]):
                return True
            pieces = [memoryview(pieces[0])[sent:]]
        self._backlog.append(pieces)
        return False

    def _send(self, pieces: list[Any]) -> None:
        running = self._running
        assert running is not None
        for piece in pieces:
            view = memoryview(piece).cast("B")
            while view:
                try:
                    view = view[self._send_now(running.pipe.fileno(), view) :]
                except BlockingIOError:
                    # It may be blocked itself on a reply that is too large for the pipe.
                    self._take_replies()
                    self._tell_loops()
                    if self._outlet.wait() and not self._receive():
                        raise Gone from None

    # -- in ------------------------------------------------------------------------------------

    def _wait(self, timeout: int) -> bool:
        """Until something has happened, or so many ms. False: the worker is gone."""
        running = self._running
        assert running is not None
        heard, ended = self._listen(
            running.pipe.fileno(), running.sentinel, self._bell.source, timeout
        )
        if heard and not self._receive():
            return False
        if ended:
            return False
        if not self._take_replies() and not heard and self.pending:
            self._look()
        return True

    def _receive(self) -> bool:
        """What the worker says. False: it has closed the pipe."""
        running = self._running
        assert running is not None
        try:
            said = self._hear_now(running.pipe.fileno())
        except OSError:
            said = b""
        if said is None:
            return True
        self._deaf = True  # until all of it has been understood
        if not said:
            return False
        while said:
            at = said.find(LARGE)
            short = said if at < 0 else said[:at]
            if short.strip(RING if running.loans is None else RING + TAKEN):
                log.error("%s said %r, which means nothing", running.name, said[:40])
                return False
            if running.loans is not None:
                running.loans.taken(short.count(TAKEN))
            if at < 0:
                break
            self._tell_loops()
            try:
                reply, said = read_reply(running.pipe, said[at:], running.loans)
            except (Gone, OSError):
                return False
            self._reply(*reply)
        self._deaf = False
        self._take_replies()
        return True

    def _hear_out(self) -> None:
        """What a worker that is gone, or to end, has said before: what had finished is told so."""
        running = self._running
        assert running is not None
        with contextlib.suppress(OSError):  # a child of its own may hold its end open
            running.pipe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, LAST_WORD)
        while not self._deaf and self._listen(running.pipe.fileno(), -1, -1, 0)[0]:
            self._receive()

    def _load(self, payload: bytes, buffers: list[Any] | None) -> Any:
        """A value that more than plain data is needed for: code of others may run here."""
        self._tell_loops()
        return pickle.loads(payload, buffers=buffers)

    def _failed(self, value: Any) -> BaseException:
        """The exception of a failed run, from what its worker sent."""
        if isinstance(value, BaseException):
            return value
        error: BaseException | None
        error, text = value[0], value[1]
        if error is None:
            error = TokenGateError(
                f"the function raised an exception that cannot be pickled and so cannot leave its "
                f"worker: {value[2]}"
            )
        error.__cause__ = RemoteTraceback(text)
        return error

    def _unreadable(self, error: BaseException, kind: int) -> BaseException:
        what = "an exception" if kind == ERROR else "a result"
        failure = TokenGateError(
            f"{what} that came from a worker cannot be unpickled here: {error!r}"
        )
        failure.__cause__ = error
        return failure


class _Bell:
    """Wakes a carrier that waits on descriptors."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.source = self.target = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self.source, self.target = os.pipe()
            os.set_blocking(self.source, False)
            os.set_blocking(self.target, False)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.source, 8 if self.source == self.target else 4096)

    def wait(self, timeout: float) -> None:
        poller = select.poll()
        poller.register(self.source, select.POLLIN)
        poller.poll(timeout * 1000)
        self.clear()

    def close(self) -> None:
        os.close(self.source)
        if self.target != self.source:
            os.close(self.target)


class _Outlet:
    """Waits for room in a worker's pipe."""

    def __init__(self, running: Running) -> None:
        self._pipe, self._end = running.pipe.fileno(), running.sentinel
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN | select.POLLOUT)
        if self._end >= 0:
            self._poll.register(self._end, select.POLLIN)

    def wait(self) -> bool:
        """Until the pipe takes more, or it is time to look; True: it must be read first.

        Gone if the worker has ended.
        """
        events = dict(self._poll.poll(LOOK))
        if self._end in events:
            raise Gone
        return bool(events.get(self._pipe, 0) & (select.POLLIN | select.POLLHUP))
