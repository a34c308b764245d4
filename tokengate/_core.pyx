# The compiled core of TokenGate: tokens, admission, handoff, workers.
#
# One entry file; the parts follow in the order in which they build on each other. Algorithms that need no Python are in
# tokengate/_native; what is here owns references, exceptions and contexts.
#
# State belongs to instances: each Core has its own pool, and what guards share is the Runtime that the Python layer makes.
# The exceptions belong to the process: the links of its event loops with their lock (inbound.pxi), the lock under which a
# forked child renews a core (core.pxi), the lock under which workers look for deadlocks (deadlock.pxi), and the count of forks (tg_fork.h).

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_DECREF
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uint8_t
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc

include "_corelib/native.pxi"

cdef class Runtime
cdef class _Snapshot
cdef class _Wardrobe
cdef class Link
cdef class _Listener
cdef class _Rare
cdef class TokenBase
cdef class Key
cdef class Terms
cdef class Policy
cdef class Operation
cdef class Seat
cdef class Core
cdef class Debtor
cdef class Worker
cdef class Timekeeper
cdef class Keeper
cdef class InlineBlock
cdef class Ref
cdef class Packed
cdef class RemoteCore
cdef class Carrier
cdef class GuardBase
cdef class Collector
cdef class Roster
cdef class FutureBase
cdef class ExecutorBase

include "_corelib/runtime.pxi"
include "_corelib/references.pxi"
include "_corelib/contexts.pxi"
include "_corelib/inbound.pxi"
include "_corelib/token.pxi"
include "_corelib/terms.pxi"
include "_corelib/operation.pxi"
include "_corelib/core.pxi"
include "_corelib/entry.pxi"
include "_corelib/timers.pxi"
include "_corelib/worker.pxi"
include "_corelib/deadlock.pxi"
include "_corelib/inline.pxi"
include "_corelib/keeper.pxi"
include "_corelib/carrier.pxi"
include "_corelib/seat.pxi"
include "_corelib/guard.pxi"
include "_corelib/bulk.pxi"
include "_corelib/roster.pxi"
include "_corelib/future.pxi"
include "_corelib/executor.pxi"
