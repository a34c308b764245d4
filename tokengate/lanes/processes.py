"""The process lane: worker processes, and what ends one early stops its function for real."""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from multiprocessing import spawn, util
from typing import Any

from tokengate import _board
from tokengate.lanes.child import READY
from tokengate.lanes.remote import Running, StartFailed
from tokengate.lanes.worker import LENGTH, Place
from tokengate.lanes.zygote import (
    FORK,
    LONGEST_FORK,
    LONGEST_PREPARATION,
    PID,
    STATUS,
    UP,
    surroundings,
)
from tokengate.machine.cgroups import memory_kills

__all__ = ["ProcessLauncher"]

START = 60.0  # s a worker may take until it is ready, the import of the main module included
END = 1.0  # s a worker that is told to end may take before it is killed
UNDER_WAY = 1 << 20  # bytes, at most

FORKS = sys.platform.startswith(("linux", "freebsd"))  # elsewhere forking is unsafe or impossible


class ProcessLauncher:
    """Starts worker processes: forked by a preloaded parent where that is safe, else afresh."""

    runs_main = True

    def launch(self, cpu: int | None, workers: int, cpus: int) -> Running:
        """A process that is ready for its first token. Blocks; StartFailed if there can be none."""
        place = (cpu, workers, cpus)
        mine, theirs = worker_pipe()
        board_fd = board_file()
        try:
            memory = mmap.mmap(board_fd, _board.size)
            if FORKS:
                process: _Process = _zygote.fork(theirs.fileno(), board_fd, place)
            else:
                process = _Spawned(mine, theirs.fileno(), board_fd, place)
        except OSError as error:
            mine.close()
            raise StartFailed(f"{type(error).__name__}: {error}") from error
        except StartFailed:
            mine.close()
            raise
        finally:
            theirs.close()
            os.close(board_fd)
        running = _Worker(mine, memory, process)
        try:
            running.await_ready()
        except BaseException:
            running.kill()
            running.reap()
            running.close()
            raise
        return running


def worker_pipe() -> tuple[socket.socket, socket.socket]:
    """A carrier's and its worker's end of what they talk through."""
    ends = socket.socketpair()
    for end in ends:
        end.settimeout(None)  # whatever the program's default is
        # What is large then takes fewer changes of threads. The system may allow less, or none.
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNDER_WAY)
    return ends


def board_file() -> int:
    """A descriptor of memory for a board, which the caller closes."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("tokengate-board", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, _board.size)
    return fd


def _preparation() -> dict[str, Any]:
    try:
        data = spawn.get_preparation_data("tokengate-worker")
        data["authkey"] = bytes(data["authkey"])  # it refuses to be pickled; this pipe is private
        return data
    except RuntimeError as error:  # the main module, being imported by a worker, wants workers
        raise StartFailed(str(error).strip()) from error


def _command(call: str) -> list[str]:
    # sys.path first, or the package may not be found
    flags: list[str] = util._args_from_interpreter_flags()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    code = f"import sys; sys.path[:] = {sys.path!r}; {call}"
    return [spawn.get_executable(), *flags, "-c", code]


class _Process:
    """One process: its number, a descriptor that is readable once it has ended, its exit status."""

    pid: int
    sentinel: int

    def exit_code(self, timeout: float) -> int | None:
        """As `subprocess` tells it; None: not known within so many seconds."""
        raise NotImplementedError

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        raise NotImplementedError


class _Forked(_Process):
    """By the zygote, which also learns how it ended."""

    def __init__(self, status: int) -> None:
        self.sentinel = status
        self._code: int | None = None
        self._over = False
        data = os.read(status, PID.size)
        if len(data) < PID.size:
            os.close(status)
            raise StartFailed("the parent of the workers ended")
        (self.pid,) = PID.unpack(data)
        # A number may soon be another process's; a descriptor stays this one's.
        self._handle = -1
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._handle = os.pidfd_open(self.pid)

    def exit_code(self, timeout: float) -> int | None:
        if not self._over:
            poller = select.poll()
            poller.register(self.sentinel, select.POLLIN)
            if not poller.poll(timeout * 1000):
                return None
            data = os.read(self.sentinel, STATUS.size)
            self._over = True
            if len(data) == STATUS.size:
                (self._code,) = STATUS.unpack(data)
        return self._code

    def kill(self) -> None:
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        elif not self._over:
            super().kill()

    def close(self) -> None:
        os.close(self.sentinel)
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


class _Spawned(_Process):
    """Started afresh, where the system has no safe fork."""

    def __init__(self, pipe: socket.socket, child_pipe: int, board_fd: int, place: Place) -> None:
        fds = (child_pipe, board_fd)
        call = f"from tokengate.lanes.worker import spawned; spawned({child_pipe}, {board_fd})"
        data = pickle.dumps((_preparation(), os.getpid(), place))
        self._popen = subprocess.Popen(
            _command(call), pass_fds=fds, stdin=subprocess.DEVNULL, close_fds=True
        )
        pipe.sendall(LENGTH.pack(len(data)) + data)
        self.pid = self._popen.pid
        self.sentinel = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else -1

    def exit_code(self, timeout: float) -> int | None:
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        self._popen.kill()

    def close(self) -> None:
        if self.sentinel >= 0:
            os.close(self.sentinel)


class _Worker:
    """One worker process, as its carrier sees it."""

    def __init__(self, pipe: socket.socket, memory: mmap.mmap, process: _Process) -> None:
        self.pipe = pipe
        self.memory = memory
        self.process = process
        self.pid = process.pid
        self.sentinel = process.sentinel
        self.name = f"process {process.pid}"
        self.loans = None
        self._killed = False
        self._ended = ""
        self._kills = memory_kills()

    def await_ready(self) -> None:
        """Until it says so. StartFailed if it ends instead, or takes too long."""
        self.pipe.settimeout(START)
        try:
            said = self.pipe.recv(1)
            if said == READY:
                return
            text = ""
            if said:
                (size,) = LENGTH.unpack(self.pipe.recv(LENGTH.size, socket.MSG_WAITALL))
                text = self.pipe.recv(size, socket.MSG_WAITALL).decode(errors="replace")
        except TimeoutError:
            raise StartFailed(f"it was not ready after {START:g} s") from None
        except OSError as error:
            raise StartFailed(f"{type(error).__name__}: {error}") from error
        finally:
            self.pipe.settimeout(None)
        if text:
            raise StartFailed(f"its main module could not be imported:\n{text}")
        raise StartFailed(f"it {self.reap()} before it was ready")

    def kill(self) -> None:
        self._killed = True
        self.process.kill()

    def ended(self, timeout: float | None) -> bool:
        return True  # or will be killed

    def reap(self) -> str:
        if self._ended:
            return self._ended
        code = self.process.exit_code(END)
        ours = self._killed
        if code is None:
            self.kill()
            code = self.process.exit_code(END)
        self._ended = self._told(code, ours)
        return self._ended

    def _told(self, code: int | None, ours: bool) -> str:
        if code is None:
            return f"(process {self.pid}) ended, nobody knows how"
        if code >= 0:
            return f"(process {self.pid}) ended with exit status {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        told = f"(process {self.pid}) was ended by {name}"
        if -code == signal.SIGKILL and not ours:
            kills = memory_kills()
            if self._kills is not None and kills is not None and kills > self._kills:
                return f"{told}: out of memory, says the kernel"
            return f"{told}: probably out of memory, unless somebody killed it"
        return told

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.shutdown(socket.SHUT_RDWR)
        self.pipe.close()
        self.reap()
        self.process.close()


class _Zygote:
    """The preloaded parent of this process's workers, started with the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._started_in: dict[str, Any] = {}

    def fork(self, pipe: int, board: int, place: Place) -> _Process:
        """A worker process that inherits the two descriptors."""
        for again in (True, False):
            with self._lock:
                if self._control is None and not self._start(main_here=True):
                    self._start(main_here=False)
                assert self._control is not None
                status, theirs = os.pipe()
                try:
                    self._request([pipe, board, theirs], place)
                except (OSError, StartFailed):
                    os.close(status)
                    self._drop()  # it has ended
                    if not again:
                        raise
                    continue
                finally:
                    os.close(theirs)
            return _Forked(status)
        raise AssertionError("unreachable")

    def _request(self, fds: list[int], place: Place) -> None:
        assert self._control is not None
        now = surroundings()
        changed = {name: value for name, value in now.items() if value != self._started_in[name]}
        message = FORK + pickle.dumps((changed, place))
        if len(message) > LONGEST_FORK:
            raise StartFailed(
                "sys.path, sys.argv and os.environ have grown too large to be handed over"
            )
        socket.send_fds(self._control, [message], fds)

    def _start(self, main_here: bool) -> bool:
        """False: with the main module loaded it has threads, and must not be forked."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._started_in = surroundings()
            data = pickle.dumps((_preparation(), main_here))
            if len(data) > LONGEST_PREPARATION:
                raise StartFailed(
                    f"sys.path and sys.argv take {len(data)} bytes, which is too much"
                )
            call = f"from tokengate.lanes.zygote import main; main({theirs.fileno()})"
            self._popen = subprocess.Popen(
                _command(call), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        except BaseException:
            mine.close()
            raise
        finally:
            theirs.close()
        mine.settimeout(START)
        try:
            mine.send(data)
            said = mine.recv(1)
        except OSError:
            said = b""
        mine.settimeout(None)
        if said == UP:
            self._control = mine
            return True
        mine.close()
        code = self._popen.wait()
        self._popen = None
        if not said:
            raise StartFailed(f"the parent of the workers ended with status {code}")
        return False

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(END)
            self._popen = None

    def close(self) -> None:
        """At interpreter exit: it ends as its control socket is closed."""
        with self._lock:
            self._drop()

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self._lock = threading.Lock()
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._popen is not None:
            self._popen.returncode = 0  # not ours to wait for
            self._popen = None


_zygote = _Zygote()
atexit.register(_zygote.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_zygote.forget)
