"""The preloaded parent of worker processes: one small process with one thread, which forks them.

Forking the program itself is unsafe once it has threads, and starting a fresh interpreter for each
worker takes 50 times as long. This one imports the package and the program's main module once, and
then forks a worker for each message on its control socket. It ends when that socket is closed or
the program ends, however, and its workers end with it.

Messages from the program: first a pickle (preparation data of multiprocessing, whether to load the
main module here); then `FORK` with three descriptors each: the worker's pipe, its board, and where
to write its number and, one day, its exit status; and, pickled, what has changed since of
`surroundings`, and the worker's place. From here: `UP` or `THREADS`, once.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import sys
import traceback
from multiprocessing import process, spawn
from typing import Any

from tokengate.lanes.child import blocking_socket

FORK = b"F"
LONGEST_FORK = 1 << 17
UP, THREADS = b"U", b"T"
PID = struct.Struct("<q")
STATUS = struct.Struct("<i")
LONGEST_PREPARATION = 1 << 18

MAIN_KEYS = ("init_main_from_name", "init_main_from_path")


def main(fd: int) -> None:
    """The body of the process."""
    with blocking_socket(fd) as control:
        _serve(control)


def _serve(control: socket.socket) -> None:
    data, main_here = pickle.loads(control.recv(LONGEST_PREPARATION))
    parent = os.getppid()
    held = data if main_here else {k: v for k, v in data.items() if k not in MAIN_KEYS}
    broken = prepare(held)
    from tokengate import _core  # noqa: F401 - what workers need, loaded once for all
    from tokengate.lanes import worker  # noqa: F401

    with contextlib.suppress(ImportError):
        importlib.import_module("threadpoolctl")  # each worker asks for it

    if broken == "" and _threads() > 1:
        control.send(THREADS)
        return
    control.send(UP)
    gc.collect()
    gc.freeze()
    _Zygote(control, parent, broken, None if main_here else data).run()


def surroundings() -> dict[str, Any]:
    """What a worker shares with the program at its start, beside the main module."""
    try:
        folder = os.getcwd()
    except OSError:
        folder = ""  # it has been removed
    return {
        "path": list(sys.path),
        "argv": list(sys.argv),
        "folder": folder,
        "env": dict(os.environ),
    }


def adopt(changed: dict[str, Any]) -> None:
    """In a worker: `surroundings` as they have become."""
    if "path" in changed:
        sys.path[:] = changed["path"]
        importlib.invalidate_caches()
    if "argv" in changed:
        sys.argv[:] = changed["argv"]
    if changed.get("folder"):
        with contextlib.suppress(OSError):
            os.chdir(changed["folder"])
    if "env" in changed:
        for gone in os.environ.keys() - changed["env"].keys():
            del os.environ[gone]
        os.environ.update(changed["env"])


def prepare(data: dict[str, Any]) -> str:
    """What multiprocessing does in a new process: paths, main module. Returns what went wrong."""
    current: Any = process.current_process()
    current._inheriting = (
        True  # a main module without its guard is told so, instead of starting over
    )
    try:
        spawn.prepare(data)
    except BaseException:
        return traceback.format_exc()
    finally:
        del current._inheriting
    return ""


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        import threading

        return threading.active_count()


class _Zygote:
    def __init__(
        self, control: socket.socket, parent: int, broken: str, late: dict[str, Any] | None
    ) -> None:
        self.control = control
        self.parent = parent
        self.broken = broken
        self.late = late  # what workers prepare by themselves
        self.statuses: dict[int, int] = {}  # process -> where its exit status goes

    def run(self) -> None:
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the program's business
        poller = select.poll()
        poller.register(self.control, select.POLLIN)
        poller.register(woken, select.POLLIN)
        watch = -1
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                watch = os.pidfd_open(self.parent)
                poller.register(watch, select.POLLIN)
        while os.getppid() == self.parent:
            ready = [fd for fd, _ in poller.poll(None if watch >= 0 else 500)]
            if watch in ready:
                return
            if woken in ready:
                os.read(woken, 4096)
                self.reap()
            if self.control.fileno() in ready:
                message, fds, _, _ = socket.recv_fds(self.control, LONGEST_FORK, 3)
                if message[:1] != FORK or len(fds) != 3:
                    return  # closed
                self.fork(message[1:], fds, (woken, wake, watch))

    def fork(self, changed: bytes, fds: list[int], own: tuple[int, ...]) -> None:
        pipe, board, status = fds
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                self.control.close()
                for fd in (*own, *self.statuses.values(), status):
                    if fd >= 0:
                        os.close(fd)
                news, place = pickle.loads(changed)
                adopt(news)
                from tokengate.lanes import worker

                code = worker.main(pipe, board, self.broken, self.late, os.getppid(), place)
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(BaseException):
                    sys.stdout.flush()
                with contextlib.suppress(BaseException):
                    sys.stderr.flush()
                os._exit(code)
        os.close(pipe)
        os.close(board)
        self.statuses[pid] = status
        with contextlib.suppress(OSError):
            os.write(status, PID.pack(pid))

    def reap(self) -> None:
        while self.statuses:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            fd = self.statuses.pop(pid, -1)
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.write(fd, STATUS.pack(os.waitstatus_to_exitcode(status)))
                os.close(fd)
