"""The interpreter lane: workers are interpreters of this process, each with a GIL of its own.

What is ended early is interrupted there, not killed: Python code at its next instruction, C code
not before it returns. So a worker may have to be left behind.
"""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import socket
import sys
import threading
import warnings
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

from tokengate import _board, machine
from tokengate.lanes.child import ALIVE, HALT, HALTED, KILL, READY
from tokengate.lanes.loans import Loans
from tokengate.lanes.processes import board_file, worker_pipe
from tokengate.lanes.remote import Running, StartFailed

__all__ = ["InterpreterLauncher"]

START = 60.0  # s a worker may take until it is ready
PATIENCE = 5  # s that the end of the program may take where an interpreter does not let it end
END = 1.0  # s that a worker may take to end; what takes longer is left behind

FOLDER = Path(__file__).parent

# Executed in the new interpreter. `tokengate` is the stand-in there, with the real folder to find
# its modules in.
CODE = """\
import sys
sys.path[:] = {path!r}
sys.argv = {argv!r}
from importlib import util
spec = util.spec_from_file_location(
    "tokengate", {standin!r}, submodule_search_locations=[{folder!r}]
)
module = util.module_from_spec(spec)
sys.modules["tokengate"] = module
spec.loader.exec_module(module)
from tokengate.lanes.interior import main
main{args!r}
"""

_living: set[_Worker] = set()


class InterpreterLauncher:
    """Starts interpreters, each with a thread of its own that runs it."""

    runs_main = False

    def launch(self, cpu: int | None, workers: int, cpus: int) -> Running:
        """An interpreter that is ready for its first token. Blocks; StartFailed if it fails."""
        try:
            worker = _Worker(cpu, cpus)
        except OSError as error:
            raise StartFailed(f"{type(error).__name__}: {error}") from error
        try:
            worker.await_ready()
        except BaseException:
            worker.kill()
            worker.close()
            raise
        return worker


class _Worker:
    """One interpreter, as its carrier sees it, and the thread that runs it."""

    def __init__(self, cpu: int | None, cpus: int) -> None:
        self.name = "an interpreter"
        self.pipe, self._their_pipe = worker_pipe()
        self._control, self._their_control = socket.socketpair()
        self.loans = Loans()
        # readable once one of its ends is shut down: by `kill`, or by the worker's thread
        self._sentinel, self._told = socket.socketpair()
        self.sentinel = self._sentinel.fileno()
        self._board = board_file()
        self.memory = mmap.mmap(self._board, _board.size)
        self._cpus = cpus
        self._killed = False
        self._why = ""
        self._over = threading.Event()  # nothing of the interpreter is run any more
        self._closed = threading.Event()  # it does not exist any more
        self._control.setblocking(False)
        # Daemons: the end of the program must not wait for what cannot be stopped.
        thread = threading.Thread(target=self._run, args=(cpu,), daemon=True)
        _living.add(self)
        try:
            thread.start()
        except BaseException:
            _living.discard(self)
            self._release()
            raise

    def _run(self, cpu: int | None) -> None:
        """The body of its thread."""
        interpreter: Any = None
        try:
            if cpu is not None:
                _pin(cpu)
            interpreter = import_module("concurrent.interpreters").create()
            self.name = f"interpreter {interpreter.id}"
            threading.current_thread().name = f"tokengate {self.name}"
            interpreter.exec(self._code())
        except BaseException as error:
            self._why = str(error) or repr(error)
        for each in (self._their_pipe, self._their_control, self._told):
            # not only closed: a forked child may hold it open
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.loans.over()
        self._over.set()
        try:
            if interpreter is not None:
                interpreter.close()  # waits for threads that functions have started
        except BaseException as error:
            self._why = str(error) or repr(error)
        self._release()
        _living.discard(self)
        self._closed.set()

    def _code(self) -> str:
        args = (
            self._their_pipe.fileno(),
            self._their_control.fileno(),
            self.loans.theirs.fileno(),
            self._board,
            self.name,
            self._cpus,
        )
        return CODE.format(
            path=sys.path,
            argv=sys.argv,
            standin=str(FOLDER / "standin.py"),
            folder=str(FOLDER.parent),
            args=args,
        )

    def _release(self) -> None:
        for each in (self._their_pipe, self._their_control, self._told):
            each.close()
        self.loans.theirs.close()
        os.close(self._board)

    def await_ready(self) -> None:
        """Until it says so. StartFailed if it ends instead, or takes too long."""
        self.pipe.settimeout(START)
        try:
            if self.pipe.recv(1) == READY:
                return
        except TimeoutError:
            raise StartFailed(f"it was not ready after {START:g} s") from None
        except OSError as error:
            raise StartFailed(f"{type(error).__name__}: {error}") from error
        finally:
            self.pipe.settimeout(None)
        self._over.wait(END)
        raise StartFailed(f"{self.name} ended before it was ready: {self._why}")

    def kill(self) -> None:
        if self._killed:
            return
        self._killed = True
        for tell in (
            lambda: self._control.send(KILL),
            lambda: self.pipe.shutdown(socket.SHUT_WR),  # where it waits for work it ends itself
            lambda: self._told.shutdown(socket.SHUT_RDWR),
        ):
            with contextlib.suppress(OSError):
                tell()

    def ended(self, timeout: float | None) -> bool:
        return self._over.wait(timeout)

    @property
    def holds_on(self) -> bool:
        """After `kill`: not even another thread of the interpreter could run in it so far."""
        try:
            return self._control.recv(1) != ALIVE
        except BlockingIOError:
            return True
        except OSError:
            return False

    def halt(self) -> None:
        """After `kill`: its threads run nothing more, though a function swallows what ends it."""
        with contextlib.suppress(OSError):
            self._control.send(HALT)

    def halted(self, timeout: float) -> bool:
        """After `halt`: whether that is so by now. Not so: its function sleeps in C code."""
        with contextlib.suppress(OSError):
            self._control.settimeout(timeout)
            while told := self._control.recv(1):
                if told == HALTED:
                    return True
        return False

    def reap(self) -> str:
        self._over.wait()
        why = f": {self._why}" if self._why else ""
        return f"({self.name}) {'was stopped' if self._killed else 'ended'}{why}"

    def close(self) -> None:
        self.loans.let_go()
        with contextlib.suppress(OSError):
            self.pipe.shutdown(socket.SHUT_RDWR)
        self._closed.wait(END)
        for each in (self.pipe, self._control, self._sentinel, self.loans):
            each.close()


def _pin(cpu: int) -> None:
    try:
        machine.pin_current_thread(cpu)
    except machine.PinningError as error:
        # it works all the same, as a thread would
        print(f"tokengate: an interpreter runs unpinned: {error}", file=sys.stderr)  # noqa: T201


def _leave() -> None:
    """At the end of the program: what still runs is interrupted, what goes on is left behind."""
    left = list(_living)
    for each in left:
        each.kill()
    deadline = monotonic() + END
    for each in left:
        if each.ended(max(0.0, deadline - monotonic())):
            each._closed.wait()  # for threads that functions have started: Python waits for all
    if not _living:
        return
    # Told on standard error by whoever stops; as an error it would spoil the exit status.
    warnings.filterwarnings("ignore", "remaining subinterpreters", RuntimeWarning)
    left = list(_living)
    names = [each.name for each in left if each.holds_on]
    # Python takes every interpreter down at its end, and what runs in one then crashes the process.
    for each in left:
        each.halt()
    deadline = monotonic() + END
    for each in left:
        each.halted(max(0.01, deadline - monotonic()))
    if names:
        # Python waits for the GIL of each interpreter before it ends, and these do not let it go.
        text = (
            f"tokengate: C code in {', '.join(names)} does not return: the process ends without\n"
        )
        _board.end_within(PATIENCE, text.encode())


atexit.register(_leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_living.clear)  # they are the parent's to end
