"""What the parent says to a remote worker and hears from it; the other end is `lanes.child`.

Calls are pickled where they are made, so that what cannot travel is told there.
"""

from __future__ import annotations

import contextlib
import importlib
import pickle
import pickletools
import socket
import sys
from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

from tokengate import _board
from tokengate.lanes.child import BUFFER, FRAME, OUT_OF_BAND, REPLY, SIMPLE, Pipe, announce
from tokengate.lanes.loans import Loans
from tokengate.naming import operation_name

__all__ = ["Reply", "define", "encode", "pack_call", "read_reply", "refuse_main", "unbound"]

MAIN = "__main__"

Payload = bytes | tuple[bytes, list[memoryview]] | None
Reply = tuple[int, int, int, int, bytes, list[Any] | None]

# Optional: functions that have no name of their own can travel, too.
cloudpickle: Any = None
with contextlib.suppress(ImportError):
    cloudpickle = importlib.import_module("cloudpickle")


def encode(frame: tuple[Any, ...], loans: Loans | None) -> list[Any]:
    """The bytes of a frame that `Carrier._gather` made: pieces to be sent one after another.

    loans: with a worker that can read large buffers where they lie, else None.
    """
    first, news, refs, payloads, ids, deadlines, size, pause = frame
    views: list[memoryview] = []
    if size >= OUT_OF_BAND:
        for i, payload in enumerate(payloads):
            if type(payload) is tuple:
                payloads[i] = (payload[0], len(payload[1]))
                views += payload[1]
    if refs.count(refs[0]) == len(refs):
        refs = refs[0]
    told: list[tuple[int, bytes]] | None = None
    if news:
        told = [(ref.number, ref.definition) for ref in news]
    body = pickle.dumps((first, told, refs, payloads, ids, deadlines), 5)
    sizes, lends = announce(views, None if loans is None else _board.address)
    head = FRAME.pack(len(body), len(views), pause) + sizes + body
    if not lends or loans is None:
        return [head, *views]
    loans.lend(views)
    return [head]


def read_reply(sock: socket.socket, start: bytes, loans: Loans | None) -> tuple[Reply, bytes]:
    """A reply that did not fit the board, and what was read beyond it.

    start: what of it has been read. loans: with that worker. Blocks until all is there;
    `child.Gone` where it ends before.
    """
    pipe = Pipe(sock, _board)
    pipe.rest = start
    _, number, started, run, kind, size, count = REPLY.unpack(pipe.read(REPLY.size))
    kinds = [BUFFER.unpack(pipe.read(BUFFER.size)) for _ in range(count)]
    data = pipe.read(size)
    buffers = [pipe.read_buffer(*each) for each in kinds]
    if loans is not None and any(address for _, address, _ in kinds):
        loans.settle()
    return (number, started, run, kind, data, buffers or None), pipe.rest


def define(fn: Any, operation: str, tags: Mapping[str, Any], main: bool = True) -> bytes:
    """What a worker must know of the calls of `fn`. TypeError where it cannot be found there.

    main: whether the worker has what is defined in the main module.
    """
    how: Any = _by_name(fn)
    if not main and (getattr(fn, "__module__", None) == MAIN or (how and how[0] == MAIN)):
        raise TypeError(_not_main(operation_name(fn), "the function"))
    if how is None:
        how = _by_value(fn)
        if not main:
            refuse_main(operation_name(fn), how)
    try:
        return pickle.dumps((operation, dict(tags), how), 5)
    except Exception as error:
        raise TypeError(
            f"operation {operation!r}: its tags {dict(tags)!r} cannot be pickled, which they must "
            f"be for a lane outside this interpreter: {error}"
        ) from error


def _by_name(fn: Any) -> tuple[str, str, bool] | None:
    if not isinstance(fn, FunctionType):
        return None
    module, name = fn.__module__, fn.__qualname__
    found: Any = sys.modules.get(module)
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        return None
    for wrapped in (False, True):
        if wrapped:
            found = getattr(found, "__wrapped__", None)
        if getattr(found, "__func__", found) is fn:  # of a class method, the function below it
            return module, name, wrapped
    return None


def _by_value(fn: Any) -> bytes:
    plain = isinstance(fn, FunctionType)
    if cloudpickle is not None:
        try:
            return bytes(cloudpickle.dumps(fn, protocol=5))
        except Exception as error:
            why: Exception = error
    else:
        try:
            if not plain:
                return pickle.dumps(fn, 5)
            why = TypeError("a lambda, or a function inside a function, has no name there")
        except Exception as error:
            why = error
    hint = "" if cloudpickle is not None else "; or install cloudpickle, which carries it as it is"
    raise TypeError(
        f"{operation_name(fn)} cannot be found by a worker outside this interpreter ({why}): "
        f"define it at the top of a module{hint}"
    ) from why


def refuse_main(name: str, payload: Payload) -> None:
    """TypeError, naming it, if a pickle refers to something of the main module."""
    data = payload[0] if isinstance(payload, tuple) else payload
    if data is None or MAIN.encode() not in data:
        return
    texts: list[str] = []
    for code, value, _ in pickletools.genops(data):
        if code.name in ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"):
            texts.append(str(value))
        elif code.name == "STACK_GLOBAL" and texts[-2:-1] == [MAIN]:
            raise TypeError(_not_main(name, f"{texts[-1]} among its arguments"))


def _not_main(name: str, what: str) -> str:
    return (
        f"{name}: {what} is defined in __main__, the program's main module, which workers of the "
        "interpreter lane do not have: move it to a module that can be imported, or use "
        "lane='process'"
    )


def unbound(fn: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """A bound method's function, and its object as the first argument."""
    while isinstance(fn, MethodType):
        fn, args = fn.__func__, (fn.__self__, *args)
    return fn, args


def pack_call(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
    values: dict[str, Any] | None,
) -> tuple[Payload, int]:
    """The arguments as they travel, and their bytes. TypeError, naming it, for one that cannot."""
    views: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND:
            return True
        views.append(raw)
        return False

    try:
        found: Any = args
        if any(type(each) not in SIMPLE for each in args):
            found = tuple([_wrapped(each) for each in args])
        if kwargs or values:
            wrapped = {key: _wrapped(each) for key, each in (kwargs or {}).items()}
            found = [found, wrapped, values]
        data = pickle.dumps(found, 5, buffer_callback=keep)
    except Exception as error:
        raise TypeError(_blame(name, args, kwargs or {}, values or {}, error)) from error
    if not views:
        return data, len(data)
    return (data, views), len(data) + sum(view.nbytes for view in views)


def _wrapped(value: Any) -> Any:
    kind = type(value)
    if kind in (bytes, bytearray) and len(value) >= OUT_OF_BAND:
        return pickle.PickleBuffer(value)
    return pickle.PickleBuffer(value) if kind is memoryview else value


def _blame(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    values: dict[str, Any],
    error: Exception,
) -> str:
    named = [
        *((f"argument {place}", value) for place, value in enumerate(args, 1)),
        *((f"argument {key!r}", value) for key, value in kwargs.items()),
        *((f"context variable {key!r}", value) for key, value in values.items()),
    ]
    for what, value in named:
        try:
            pickle.dumps(_wrapped(value), 5, buffer_callback=lambda _: True)
        except Exception as own:
            return (
                f"{name}: {what}, an object of type {type(value).__qualname__}, cannot be pickled "
                f"and so cannot leave this interpreter: {own}"
            )
    return f"{name}: its arguments cannot be pickled together: {error}"
