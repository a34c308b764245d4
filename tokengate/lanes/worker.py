"""A worker process, from its start to its end; the loop in between is `tokengate.lanes.child`."""

from __future__ import annotations

import atexit
import mmap
import os
import signal
import struct
import sys
import threading
from multiprocessing import util
from time import monotonic, sleep
from typing import Any, TypeAlias

from tokengate import _board, _core, machine
from tokengate.lanes import child, travel
from tokengate.lanes.blas import limit_blas
from tokengate.lanes.catalogue import enter_worker
from tokengate.lanes.zygote import prepare

__all__ = ["Place", "main", "spawned"]

LENGTH = struct.Struct("<I")
ORPHAN = 0.5  # s between two looks of a worker that was started afresh at whether its parent lives
OVER = 0.2  # s that non-daemon threads of functions get at the end

_server: child.Server | None = None


def _current() -> child.CurrentToken | None:
    if _server is None or _server.current is None or _server.forked:
        return None
    return child.CurrentToken(*_server.current, f"process {os.getpid()}")


def _forked() -> None:
    if _server is not None:
        _server.forked = True


Place: TypeAlias = "tuple[int | None, int, int]"
"""The CPU that a worker is bound to, or None; how many workers there are; how many CPUs for all."""


def main(
    pipe_fd: int,
    board_fd: int,
    broken: str,
    late: dict[str, Any] | None,
    parent: int | None,
    place: Place,
) -> int:
    """Serve until the pipe is closed. The exit status.

    broken: why there can be no worker, to be told to the parent. late: preparation data. parent:
    the process to end with, where it is this one's parent.
    """
    global _server
    sock = child.blocking_socket(pipe_fd)
    signal.signal(signal.SIGINT, _ignore)
    if parent is not None:
        _board.die_with_parent()
        if os.getppid() != parent:
            return 1
    cpu, workers, cpus = place
    if cpu is not None:
        _pin(cpu)
    limit_blas(workers, cpus)
    if not broken and late is not None:
        broken = prepare(late)
        limit_blas(workers, cpus)  # what the main module has loaded may not heed the variables
    if broken:
        text = broken.encode(errors="replace")[-60_000:]
        sock.sendall(child.BROKEN + LENGTH.pack(len(text)) + text)
        return 1
    _quiet_stdin()
    memory = mmap.mmap(board_fd, _board.size)
    os.close(board_fd)
    _server = child.Server(sock, memory, _board, _core._deadline_var, travel.variables, cpus)
    enter_worker()
    _core.stand_in(_current)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked)
    sock.sendall(child.READY)
    _server.serve()
    _end()
    return 0


def _pin(cpu: int) -> None:
    try:
        machine.pin_current_process(cpu)
    except machine.PinningError as error:
        # it works all the same, as a thread would
        print(f"tokengate: a worker process runs unpinned: {error}", file=sys.stderr)  # noqa: T201


def _ignore(*_: object) -> None:
    """Ctrl-C is for the program. Unlike SIG_IGN this is not inherited by what functions start."""


def _quiet_stdin() -> None:
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        if null > 0:
            os.close(null)
    except OSError:
        pass


def _end() -> None:
    """As at the end of a process of multiprocessing: what was registered for the exit runs."""
    deadline = monotonic() + OVER
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, deadline - monotonic()))
    util._exit_function()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        sleep(ORPHAN)
    os._exit(1)


def spawned(pipe_fd: int, board_fd: int) -> None:
    """The body of a process that was started afresh; the pipe begins with preparation data."""
    sock = child.blocking_socket(pipe_fd)
    pipe = child.Pipe(sock, None)
    import pickle

    (size,) = LENGTH.unpack(pipe.read(LENGTH.size))
    data, parent, place = pickle.loads(pipe.read(size))
    # Not by `die_with_parent`: the system means the thread that started this process.
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    code = main(sock.detach(), board_fd, "", data, None, place)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
