"""The loop of a remote worker: takes frames from a pipe, runs tokens, posts replies.

Self-contained on purpose: it imports nothing of this package, so that it can run where the core can
not be loaded. Its parent speaks through `tokengate.lanes.wire`.

Down the pipe come frames: `FRAME` (bytes of a pickle, number of buffers, microseconds after which
the parent wants to hear of replies while there is more to do), the size and kind of each buffer,
the pickle, the buffers. Replies go through the board (`tg_board.h`), and up the pipe goes
`RING`, one byte, when the parent should look there; what does not fit goes up as `REPLY`.

A worker in its parent's process is lent large buffers, and lends its own: what is sent is where
they lie, and the other side copies them from there. Lent is given back by `TAKEN`, one byte up the
pipe for each frame with such buffers, and by one byte down a socket of its own for each reply.
"""

from __future__ import annotations

import contextvars
import importlib
import os
import pickle
import socket
import struct
import sys
from collections.abc import Callable
from time import monotonic, monotonic_ns
from typing import Any

FRAME = struct.Struct("<III")
BUFFER = struct.Struct("<QQB")  # size, address (0: it follows), 1: may be written to
REPLY = struct.Struct("<cQqqIII")  # mark, number, started, run, kind, bytes of pickle, buffers
READY, BROKEN, RING, LARGE, TAKEN = b"!", b"?", b".", b"=", b"-"
KILL, ALIVE = b"k", b"!"  # to a worker's watcher, where it has one, and back
HALT, HALTED = b"h", b"."  # the same
RESULT, ERROR, NOTHING = 0, 1, 2
OUT_OF_BAND = 16_384  # bytes; smaller ones are copied into the pickle
LENT = 262_144  # bytes; within one process larger ones are read where they lie
SOON_NS = 250_000  # a frame that comes so soon after the last reply is one of many in a row,
LINGER_NS = 150_000  # and the next is looked for so long before this worker sleeps
IN_VAIN = 16  # such frames that are not followed by a look, after one that was in vain
SIMPLE = frozenset((bool, int, float, str, type(None)))


class Gone(Exception):
    """The other side has closed the pipe."""


def blocking_socket(fd: int) -> socket.socket:
    """The socket of a descriptor. It waits, whatever the program's default timeout is."""
    sock = socket.socket(fileno=fd)
    sock.settimeout(None)
    return sock


class Pipe:
    """Reads exact amounts with few system calls."""

    def __init__(self, sock: socket.socket, board: Any) -> None:
        self.sock = sock
        self.receive: Callable[..., Any] | None = getattr(board, "receive", None)
        self.copied: Callable[..., Any] | None = getattr(board, "copied", None)
        self.rest: bytes = b""

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, in a fresh object. Blocks; Gone at the end of the stream."""
        rest = self.rest
        if len(rest) >= size:
            self.rest = rest[size:]
            return rest[:size]
        if size > 65_536:
            self.rest = b""
            if self.receive is not None:
                whole: bytes = self._whole(size, rest, False)
                return whole
            return rest + self._rest(size - len(rest))
        while len(rest) < size:
            more = self.sock.recv(131_072)
            if not more:
                raise Gone
            rest = more if not rest else rest + more
        self.rest = rest[size:]
        return rest[:size]

    def read_buffer(self, size: int, address: int, mutable: int) -> bytes | bytearray:
        """One that a `BUFFER` has announced."""
        if address:
            assert self.copied is not None
            whole: bytes | bytearray = self.copied(address, size, mutable)
            return whole
        return self.read_into(size) if mutable else self.read(size)

    def has_more(self) -> bool:
        """Whether something has come that was not read yet. Does not block."""
        if not self.rest:
            try:
                self.rest = self.sock.recv(131_072, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
        return bool(self.rest)

    def _rest(self, size: int) -> bytes:
        more = self.sock.recv(size, socket.MSG_WAITALL)
        while len(more) < size:
            part = self.sock.recv(size - len(more), socket.MSG_WAITALL)
            if not part:
                raise Gone
            more += part
        return more

    def _whole(self, size: int, head: bytes, mutable: bool) -> Any:
        assert self.receive is not None
        whole = self.receive(self.sock.fileno(), size, head, mutable)
        if len(whole) < size:
            raise Gone
        return whole

    def read_into(self, size: int) -> bytearray:
        """The same, in memory that may be written to."""
        head = self.rest[:size]
        self.rest = self.rest[size:]
        if size > 65_536 and self.receive is not None:
            whole: bytearray = self._whole(size, head, True)
            return whole
        data = bytearray(size)
        data[: len(head)] = head
        view = memoryview(data)[len(head) :]
        while view:
            got = self.sock.recv_into(view, len(view), socket.MSG_WAITALL)
            if not got:
                raise Gone
            view = view[got:]
        return data


def pack(value: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """A pickle, and the large buffers that travel beside it."""
    buffers: list[pickle.PickleBuffer] = []
    kind = type(value)
    if kind in SIMPLE:
        return pickle.dumps(value, 5), buffers
    if kind in (bytes, bytearray) and len(value) >= OUT_OF_BAND:
        value = pickle.PickleBuffer(value)

    def keep(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < OUT_OF_BAND:
            return True
        buffers.append(buffer)
        return False

    return pickle.dumps(value, 5, buffer_callback=keep), buffers


def announce(views: list[memoryview], address: Callable[[Any], int] | None) -> tuple[bytes, bool]:
    """What is told of buffers ahead of them, and whether they are lent.

    address: the board's, None: the other side cannot read them where they lie.
    """
    where = [0] * len(views)
    lent = False
    if address is not None and any(view.nbytes >= LENT for view in views):
        where = [address(view) for view in views]
        lent = True
    told = [
        BUFFER.pack(view.nbytes, place, not view.readonly)
        for view, place in zip(views, where, strict=True)
    ]
    return b"".join(told), lent


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


give_way: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


def describe(error: BaseException) -> str:
    """Name and text of an exception, whatever its own methods do."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    try:
        text = str(error)
    except BaseException:
        text = ""
    return f"{name}: {text}" if text else name


def pack_error(error: BaseException) -> bytes:
    """(exception, text of its traceback), or (None, text, what it was) where it cannot travel."""
    try:
        import traceback  # takes longer to import than all the rest

        text = "".join(traceback.format_exception(error))
    except BaseException:
        text = describe(error)
    try:
        data = pickle.dumps((error, text), 5)
        pickle.loads(data)  # some come out of a pickle as something else, or not at all
    except BaseException as why:
        return pickle.dumps((None, text, f"{describe(error)} ({describe(why)})"), 5)
    return data


def find(module: str, name: str, wrapped: bool) -> Callable[..., Any]:
    """The function of that name; wrapped: under the guard that has taken its place."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if wrapped:
        found = found.__wrapped__
    fn: Callable[..., Any] = getattr(found, "__func__", found)
    return fn


class Call:
    """What is known of the calls of one function."""

    def __init__(self, definition: bytes) -> None:
        self.fn: Callable[..., Any] | None = None
        self._how: Any
        self.operation: str
        self.tags: dict[str, Any]
        self.operation, self.tags, self._how = pickle.loads(definition)

    def load(self) -> Callable[..., Any]:
        """Finds the function, for each token anew until it is found. Raises what that raises."""
        how = self._how
        try:
            fn: Callable[..., Any] = find(*how) if type(how) is tuple else pickle.loads(how)
        except BaseException as error:
            what = ".".join(how[:2]) if type(how) is tuple else "the function"
            error.add_note(f"a worker could not load {what} of operation {self.operation!r}")
            raise
        self.fn = fn
        return fn


class CurrentToken:
    """What `current_token()` gives in a worker; the token itself lives in the parent."""

    __slots__ = ("_deadline", "_where", "id", "operation_type", "tags")

    def __init__(self, call: Call, token_id: int, deadline: int, where: str) -> None:
        self.id: int = token_id
        self.operation_type: str = call.operation
        self.tags: dict[str, Any] = call.tags
        self._deadline = deadline
        self._where = where

    def __repr__(self) -> str:
        return f"<Token {self.id} {self.operation_type} in {self._where}>"

    @property
    def deadline(self) -> float | None:
        """When it expires, in seconds of `time.monotonic`, or None."""
        return self._deadline * 1e-9 if self._deadline else None

    def remaining(self) -> float | None:
        """Seconds until then, 0.0 where it has passed, or None without a deadline."""
        return None if not self._deadline else max(0.0, self._deadline * 1e-9 - monotonic())

    def done(self) -> bool:
        """False: the worker ends with its token."""
        return False


class Server:
    """One worker's state: what it runs right now, and what it knows."""

    def __init__(
        self,
        sock: socket.socket,
        memory: Any,
        board: Any,
        deadline_var: contextvars.ContextVar[int] | None,
        variables: dict[str, contextvars.ContextVar[Any]],
        cpus: int,
        settled: socket.socket | None = None,
    ) -> None:
        self.sock = sock
        self.settled = settled  # where it hears that what it lent has been read; None: it cannot
        self.memory = memory
        self.board = board
        self.deadline_var = deadline_var
        self.variables = variables
        self.calls: dict[int, Call] = {}
        self.current: tuple[Call, int, int] | None = None  # call, id, deadline
        self.forked = False  # this is a child that a function forked, which has returned here
        self.told: int = 0  # when the parent was last told to look
        self.pause: int = 0  # ns after which it is told again though there is more to do
        self.lingers: bool = min(cpus, usable_cpus()) > 1  # else it is in the parent's way
        self.untold: bool = False  # replies lie on the board that the parent was not told of
        self.eager: bool = False  # it lingers after the next reply
        self.shy: int = 0  # for so many frames it does not
        self.ending = False  # it begins nothing more: set by another thread of the worker

    def serve(self) -> None:
        """Runs tokens until the pipe is closed, or it is to end."""
        pipe = Pipe(self.sock, self.board)
        base = contextvars.copy_context()
        try:
            while True:
                size, count, pause = FRAME.unpack(pipe.read(FRAME.size))
                self.pause = pause * 1000
                self.eager = self.lingers and monotonic_ns() - self.told < SOON_NS
                if self.eager and self.shy:
                    self.shy -= 1
                    self.eager = False
                if self.untold and (count or size > 65_536):
                    self.ring()  # it may take long until all of this has come
                kinds = [BUFFER.unpack(pipe.read(BUFFER.size)) for _ in range(count)]
                first, news, refs, payloads, ids, deadlines = pickle.loads(pipe.read(size))
                if kinds and self.ending:
                    return
                buffers = iter([pipe.read_buffer(*kind) for kind in kinds])
                if any(address for _, address, _ in kinds):
                    self.sock.sendall(TAKEN)
                for number, definition in news or ():
                    self.calls[number] = Call(definition)
                if type(refs) is int:
                    refs = [refs] * len(payloads)
                for i, payload in enumerate(payloads):
                    deadline = 0 if deadlines is None else deadlines[i]
                    own = None
                    if type(payload) is tuple:
                        payload, n = payload
                        own = [next(buffers) for _ in range(n)]
                    if self.ending:
                        return
                    if self.board.begin(self.memory, first + i):
                        call = self.calls[refs[i]]
                        self.run(first + i, call, payload, own, ids[i], deadline, base.copy())
                if not pipe.rest and (len(payloads) == 1 or not pipe.has_more()):
                    self.ring()
                    if self.eager:
                        self.linger(pipe)
        except (Gone, ConnectionError):
            return

    def linger(self, pipe: Pipe) -> None:
        """Looks for the next frame for a moment: being woken takes as long as all the rest."""
        until = self.told + LINGER_NS
        while not pipe.has_more():
            if monotonic_ns() > until:
                self.shy = IN_VAIN
                return
            give_way()

    def ring(self) -> None:
        """Tells the parent to look at the board."""
        self.told = monotonic_ns()
        self.untold = False
        self.sock.sendall(RING)

    def run(
        self,
        number: int,
        call: Call,
        payload: bytes | None,
        buffers: list[Any] | None,
        token_id: int,
        deadline: int,
        context: contextvars.Context,
    ) -> None:
        """One token, from its pickle to that of its result. What it does wrong ends only itself."""
        started = monotonic_ns()
        kind = RESULT
        args: tuple[Any, ...] = ()
        kwargs: dict[str, Any] | None = None
        data: bytes | None = None
        large: list[pickle.PickleBuffer] = []
        self.current = (call, token_id, deadline)
        finished = 0
        try:
            fn = call.fn or call.load()
            if payload is not None:
                found = pickle.loads(payload, buffers=buffers)
                if type(found) is tuple:
                    args = found
                else:
                    args, kwargs, values = found
                    for name, value in (values or {}).items():
                        if name in self.variables:
                            context.run(self.variables[name].set, value)
            if deadline and self.deadline_var is not None:
                context.run(self.deadline_var.set, deadline)
            started = monotonic_ns()
            value = context.run(fn, *args, **kwargs) if kwargs else context.run(fn, *args)
            finished = monotonic_ns()
        except BaseException as error:
            finished = finished or monotonic_ns()
            kind = ERROR
            if error.__traceback__ is not None:
                error.__traceback__ = error.__traceback__.tb_next  # this frame says nothing
            data = pack_error(error)
        else:
            if value is None:
                kind = NOTHING
            else:
                try:
                    data, large = pack(value)
                except BaseException as error:
                    kind = ERROR
                    data = pack_error(
                        TypeError(
                            f"operation {call.operation!r} returned an object of type "
                            f"{type(value).__qualname__}, which cannot be pickled and so cannot "
                            f"leave its worker: {describe(error)}"
                        )
                    )
            value = None
        if self.forked:
            sys.stdout.flush()
            os._exit(0)  # the pipe is the other process's
        self.current = None
        args, kwargs = (), None
        run = finished - started
        if large or not self.board.post(self.memory, number, started, run, kind, data):
            self.send(number, started, run, kind, data or b"", large)
        elif finished - self.told > self.pause:
            self.ring()
        else:
            self.untold = True

    def send(
        self,
        number: int,
        started: int,
        run: int,
        kind: int,
        data: bytes,
        large: list[pickle.PickleBuffer],
    ) -> None:
        """A reply that the board has no room for."""
        views = [buffer.raw() for buffer in large]
        head = REPLY.pack(LARGE, number, started, run, kind, len(data), len(views))
        settled = self.settled
        sizes, lent = announce(views, None if settled is None else self.board.address)
        if settled is not None and lent:
            if not self.board.lend(self.sock.fileno(), head + sizes + data, settled.fileno()):
                raise Gone
            return
        self.sock.sendall(head + sizes + data)
        for view in views:
            self.sock.sendall(view)
