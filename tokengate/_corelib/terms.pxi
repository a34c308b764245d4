# Terms: what calls ask for beyond running: deadlines, a priority of their own, a key.

_deadline_var = contextvars.ContextVar("tokengate.deadline")  # monotonic ns; see deadline() in deadlines.py


@cython.final
cdef class Terms:
    """What calls of one operation ask for by its policy, or those of one `.options` view on top of that.

    timeout, run_timeout: ns, 0: none, -1: as the operation has it. key: a callable, None: no key; `says_key` false: as the
    operation has it. priority likewise.
    """

    cdef int64_t timeout, run_timeout
    cdef object key
    cdef bint says_key
    cdef int32_t priority
    cdef bint says_priority

    def __cinit__(self, int64_t timeout, int64_t run_timeout, key, bint says_key, int32_t priority, bint says_priority):
        self.timeout = timeout
        self.run_timeout = run_timeout
        self.key = key
        self.says_key = says_key
        self.priority = priority
        self.says_priority = says_priority


@cython.final
cdef class Policy:
    """What an operation may do; made, and its values checked, by tokengate.policy. Immutable."""

    cdef readonly object limit, max_waiting, timeout, run_timeout, key  # None: none
    cdef readonly str overflow
    cdef readonly object priority, key_limit

    def __cinit__(self, *, limit=None, max_waiting=None, str overflow="reject", priority=0, timeout=None, run_timeout=None,
                  key=None, key_limit=1):
        self.limit = limit
        self.max_waiting = max_waiting
        self.overflow = overflow
        self.priority = priority
        self.timeout = timeout
        self.run_timeout = run_timeout
        self.key = key
        self.key_limit = key_limit

    def as_dict(self):
        """The arguments it was made with."""
        return {name: getattr(self, name) for name in ("limit", "max_waiting", "overflow", "priority", "timeout",
                                                       "run_timeout", "key", "key_limit")}

    cdef Terms terms(self):
        """What it asks of each token, or None for nothing."""
        if self.timeout is None and self.run_timeout is None and self.key is None:
            return None
        return Terms(0 if self.timeout is None else int(self.timeout * 1e9),
                     0 if self.run_timeout is None else int(self.run_timeout * 1e9), self.key, True, 0, False)


_no_policy = Policy()


@cython.final
cdef class Key:
    """One value of an operation's key, while tokens with it wait or run."""

    cdef tg_key k
    cdef object value
    cdef Py_ssize_t users  # as the keys of the operation are


cdef extern from *:
    """
    /* Called under a native lock by a thread that is attached to the interpreter, for an owner that is alive. */
    static void tg_hold(void *owner) { Py_INCREF((PyObject *)owner); }
    """
    void tg_hold(void *owner) noexcept nogil
