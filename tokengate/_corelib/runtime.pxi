# What the whole module shares, and the exceptions it speaks.

import asyncio
import concurrent.futures
import contextvars
from collections import deque as _deque
import logging
import os
import sys
import threading
import weakref
import _thread
from asyncio import CancelledError as _LoopCancelled
from asyncio import InvalidStateError as _InvalidState
from asyncio import _get_running_loop as _running_loop
from asyncio import current_task as _current_task

from tokengate._interpreter import refuse_greenlets as _refuse_greenlets
from tokengate.errors import (CoordinatorStopped, FunctionExited, GateFull, TokenCancelled, TokenDeadlock, TokenExpired,
                              TokenKilled)

if sys.version_info < (3, 12):
    # in Python there, and asked for every token made on a loop. Delete with 3.11.
    _current_task = asyncio.tasks._current_tasks.get

_BlockedCancelled = concurrent.futures.CancelledError
_log = logging.getLogger("tokengate")
_DEBUG = logging.DEBUG
_allocate_lock = threading.Lock

# Raised by a function, these would stop or confuse the awaiter: its loop, its task, or its `async for` over a map.
_MUST_NOT_ACT = (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration, _LoopCancelled,
                 TokenCancelled)


if not tg_fork_watch():
    raise ImportError("tokengate: the system refused to watch for forks (pthread_atfork: out of memory)")


@cython.final
cdef class Runtime:
    """What the Python layer gives every guard: the token class, the `use` variable, the default coordinator."""

    cdef readonly type token_class
    cdef readonly object current  # ContextVar: the coordinator chosen by use(), or unset
    cdef readonly Core default    # lives as long as the process, so guards may cache it

    def __init__(self, type token_class, current, Core default):
        if not issubclass(token_class, TokenBase):
            raise TypeError(f"token_class must be a subclass of TokenBase, got {token_class!r}")
        self.token_class = token_class
        self.current = current
        self.default = default
        default.immortal = True

    cdef Core core(self):
        cdef PyObject *chosen = NULL
        cdef Core core
        PyContextVar_Get(self.current, NULL, &chosen)
        if chosen is NULL:
            return self.default
        core = <Core><object>chosen
        Py_DECREF(core)  # PyContextVar_Get gave us a reference
        return core


def edges():
    """The lifecycle as data: (from, to, edge) rows of state numbers and the name of the edge."""
    cdef size_t count = 0, i
    cdef const tg_edge *rows = tg_edges(&count)
    return [(rows[i].from_, rows[i].to, rows[i].by.decode()) for i in range(count)]


def generation():
    """How many forks this process is away from the one that loaded the core, plus one."""
    return tg_generation()


def gil_enabled():
    """True if one lock lets one thread at a time run Python code in this process."""
    check = getattr(sys, "_is_gil_enabled", None)
    return True if check is None else check()


cdef object _thread_value(str key):
    # A thread's own dictionary: no other thread writes it, so no lock and no reference count shared between threads.
    cdef PyObject *mine = PyThreadState_GetDict()
    cdef PyObject *value
    if mine is NULL:
        return None
    value = PyDict_GetItemWithError(<object>mine, key)
    return None if value is NULL else <object>value


cdef void _set_thread_value(str key, object value) except *:
    cdef PyObject *mine = PyThreadState_GetDict()
    if mine is NULL:
        raise MemoryError("no dictionary for this thread")
    (<dict>mine)[key] = value


# From Python 3.13 on a thread can be waited for to its very end; see tokengate/lanes/threads.py for who does.
_start_joinable_thread = getattr(_thread, "start_joinable_thread", None)
_new_handle = getattr(_thread, "_ThreadHandle", lambda: None)


cdef void _start_thread(run, handle) except *:
    _refuse_greenlets()
    if _start_joinable_thread is None:
        _thread.start_new_thread(run, ())
    else:
        _start_joinable_thread(run, handle=handle, daemon=True)


def build_info():
    """What this module was built with: `cython` and `compiler`, both with their version, and `build`, the kind."""
    cdef int version = CYTHON_HEX_VERSION
    return {
        "cython": f"{version >> 24 & 0xff}.{version >> 16 & 0xff}.{version >> 8 & 0xff}",
        "compiler": TG_COMPILER.decode(),
        "build": TG_BUILD.decode(),
    }
