"""A worker inside an interpreter of its own, from start to end; the loop is `lanes.child`.

Runs where the core cannot be loaded: see `lanes.standin` for what `tokengate` is there. Two threads
of that interpreter: the one that serves, and the watcher, which raises `TokenCancelled` in it when
the run there is to be ended early. The second costs nothing while it waits, needs nobody outside to
attach to this interpreter, and keeps on where a function swallows the exception.
"""

from __future__ import annotations

import _thread
import contextlib
import mmap
import os
import socket
from importlib import machinery
from typing import Any

import tokengate
from tokengate import _board
from tokengate.errors import TokenCancelled
from tokengate.lanes import child, travel
from tokengate.lanes.child import ALIVE, HALT, HALTED, KILL

__all__ = ["main"]

AGAIN = 0.05  # s until a function that goes on is told once more


def main(pipe: int, control: int, settled: int, board: int, name: str, cpus: int) -> None:
    """Serve until the pipe is closed, or the run that is under way has been ended early.

    The descriptors stay the caller's.
    """
    _name_what_refuses()
    memory = mmap.mmap(board, _board.size)
    sock = child.blocking_socket(os.dup(pipe))
    loans = child.blocking_socket(os.dup(settled))
    watcher = _Watcher(child.blocking_socket(os.dup(control)))
    standin: Any = tokengate
    variables = travel.variables
    server = child.Server(sock, memory, _board, standin._deadline_var, variables, cpus, loans)
    standin._server, standin._where = server, name
    watcher.start(server)
    sock.sendall(child.READY)
    while True:
        # Once `over` is set at most one exception more is on its way.
        try:
            if not server.ending:
                server.serve()
            watcher.over = True
            watcher.join()
            sock.close()
            loans.close()
            memory.close()
            return
        except TokenCancelled:
            server.ending = True


class _Watcher:
    """Waits for the order to end what the serving thread runs."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.over = False
        self._serving = _thread.get_ident()
        self._done = _thread.allocate_lock()
        self._done.acquire()

    def start(self, server: child.Server) -> None:
        # Not through `threading`: the end of the program does not wait for it.
        _thread.start_new_thread(self._run, (server,))

    def join(self) -> None:
        """Ends it. After `over`; again does nothing."""
        with contextlib.suppress(OSError):  # the other end has closed it
            self.control.shutdown(socket.SHUT_RDWR)
        with self._done:
            self.control.close()

    def _run(self, server: child.Server) -> None:
        try:
            order = self.control.recv(1)
            if order != KILL:
                return
            server.ending = True
            self.control.sendall(ALIVE)
            self.control.settimeout(AGAIN)
            while not self.over:
                _board.interrupt(self._serving, TokenCancelled)
                with contextlib.suppress(TimeoutError):
                    order = self.control.recv(1)
                    if not order:
                        return
                    if order == HALT and not self.over:
                        self._halt()
        except OSError:
            pass  # the program is ending
        finally:
            self._done.release()

    def _halt(self) -> None:
        """Takes both threads out of this interpreter for good: it is about to be taken down."""
        _Halt.descriptor = self.control.fileno()
        _board.interrupt(self._serving, _Halt)
        _board.halt(-1, b"")


class _Halt(BaseException):
    """For a thread that swallows what is raised in it: it gets no further than to make this."""

    descriptor: int

    def __new__(cls, *_: object) -> _Halt:
        _board.halt(cls.descriptor, HALTED)


def _name_what_refuses() -> None:
    """An extension module that refuses sub-interpreters does not always say which one it is."""
    loader: Any = machinery.ExtensionFileLoader

    def named(inner: Any) -> Any:
        def load(self: Any, what: Any) -> Any:
            try:
                return inner(self, what)
            except ImportError as error:
                raise ImportError(
                    f"the extension module {self.name!r} cannot be loaded in a worker of the "
                    f"interpreter lane ({error}): it does not support sub-interpreters, or is "
                    "broken. Use lane='process' for functions that need it",
                    name=self.name,
                    path=self.path,
                ) from error

        return load

    loader.create_module = named(loader.create_module)
    loader.exec_module = named(loader.exec_module)
