# Operations, and the core of a coordinator: a pool, its operations, and the way in.

from types import MappingProxyType as _frozen

cdef enum:
    MAX_OPERATIONS = 1000  # beyond it, names share one queue and one set of figures, called "other"

OTHER = "other"
_renew_lock = threading.Lock()  # one thread of a forked child renews a core, the others wait

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock._at_fork_reinit)

# How long a token is expected to run, in ns, until its operation has been measured.
_HINTS = {"light": 200_000, "medium": 2_000_000, "heavy": 20_000_000}


@cython.final
cdef class Operation:
    """A name, its tags, and the native record with its queue and counters, in one coordinator."""

    cdef readonly str name
    cdef readonly object tags
    cdef tg_op *ptr         # belongs to the pool, which outlives every token of it
    cdef Operation shared   # not None: one name too many, which shares this one's record

    cdef inline tg_op *record(self):
        return self.ptr if self.shared is None else self.shared.ptr


cdef class Core:
    """The compiled half of `tokengate.Coordinator`."""

    cdef tg_pool *pool
    cdef uint32_t generation
    cdef uint32_t max_workers
    cdef uint32_t limit
    cdef dict operations     # name -> Operation
    cdef list workers        # the lane's book of them
    cdef object on_start, on_exit, on_fork
    cdef list watches        # (Operation or None, callable): who waits for tokens to end; under the critical section
    cdef bint refusing
    cdef int64_t nudging     # when a loop was asked to call _nudge at its next turn; 0: none is
    cdef bint immortal       # the default coordinator
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        self.operations = {}
        self.watches = []

    def _open_pool(self, uint32_t max_workers, uint32_t limit):
        """Makes the native pool; once, by the constructor."""
        self.max_workers = max_workers
        self.limit = limit
        self.generation = tg_generation()
        self.pool = tg_pool_new(max_workers, limit)
        if self.pool is NULL:
            raise MemoryError("no memory for a coordinator's queues")

    def __dealloc__(self):
        if self.pool is NULL:
            return
        if self.generation == tg_generation():
            # Dropped without stop(): its tokens have ended (each holds its core), so the workers may leave.
            tg_pool_close(self.pool)
            tg_pool_release(self.pool)
        # else: inherited by a forked child; its locks are in an unknown state and its memory stays where it is

    cdef void renew(self) except *:
        """In a forked child: starts afresh, with new queues and nobody else's tokens."""
        with _renew_lock:
            if self.generation == tg_generation():
                return
            self.pool = tg_pool_new(self.max_workers, self.limit)
            if self.pool is NULL:
                raise MemoryError("no memory for a coordinator's queues")
            if self.refusing:
                tg_pool_refuse(self.pool)
            self.watches = []
            for operation in self.operations.values():
                (<Operation>operation).ptr = self.new_op((<Operation>operation).tags)
            self._forked()
            self.generation = tg_generation()  # last: from here on other threads of the child may use it

    def _forked(self):
        """Called in a forked child after the pool was renewed, before anything is submitted to it."""

    def _check_fork(self):
        """What every method does that touches locks of its own: in a forked child, start afresh first."""
        self.check()

    cdef inline void check(self) except *:
        if self.generation != tg_generation():
            if self.pool is NULL:
                raise RuntimeError(f"this {type(self).__name__} was made without its constructor")
            self.renew()

    # -- operations -------------------------------------------------------------------------------------------------

    cdef tg_op *new_op(self, object tags) except NULL:
        cdef uint64_t hint = _HINTS.get(tags.get("weight"), _HINTS["light"])
        cdef tg_op *ptr = tg_pool_add_op(self.pool, hint)
        if ptr is NULL:
            raise MemoryError("no memory for an operation's queue")
        return ptr

    cdef Operation operation(self, str name, object tags):
        """The operation of that name, made on first use. Any thread."""
        cdef Operation operation = self.operations.get(name)
        cdef Operation other
        if operation is not None:
            return operation
        with cython.critical_section(self):
            operation = self.operations.get(name)
            if operation is not None:
                return operation
            operation = Operation()
            operation.name = name
            operation.tags = tags
            if len(self.operations) < MAX_OPERATIONS:
                operation.ptr = self.new_op(tags)
                self.operations[name] = operation
                return operation
            other = self.operations.get(OTHER)
            if other is None:
                other = Operation()
                other.name = OTHER
                other.tags = _frozen({})
                other.ptr = self.new_op(other.tags)
                self.operations[OTHER] = other
            operation.shared = other
            return operation

    # -- the way in -------------------------------------------------------------------------------------------------

    cdef TokenBase make(self, type token_class, Operation operation, object tags, bint plain, object fn, tuple args,
                        dict kwargs):
        """A token in state CREATED. plain: nothing in the tags can refer to anything else."""
        # not through __init__, which is there to refuse
        cdef TokenBase token = <TokenBase>(<PyTypeObject*>TokenBase).tp_new(token_class, (), NULL)
        tg_token_init(&token.t, operation.record(), <void*>token, tg_pool_new_id(self.pool), self.generation)
        token.core = self
        token.op = operation
        token.labels = tags
        token.enclosed = self.immortal and plain
        token.fn = fn
        token.args = args
        token.kwargs = kwargs
        token.context = _own_context()
        token.place = -1
        # Until it ends, the queue, the ring or a worker holds a reference that the garbage collector cannot see, so
        # looking at it would only tell it what is so anyway: nothing it refers to can be garbage. With a million tokens
        # waiting these looks were half of what a token cost. TokenBase.track brings it back.
        PyObject_GC_UnTrack(token)
        return token

    cdef TokenBase spawn(self, type token_class, Operation operation, object tags, bint plain, object fn, tuple args,
                         dict kwargs):
        """A token on its way. Any thread; `check` comes first."""
        cdef TokenBase token
        cdef tg_token *t
        cdef tg_summons summons
        token = self.make(token_class, operation, tags, plain, fn, args, kwargs)
        loop = _running_loop()
        if loop is not None:
            token.link = _link_to(loop)
        t = &token.t
        t.created = tg_now()
        Py_INCREF(token)  # the queue's reference
        if tg_pool_submit(self.pool, t.op, &t, 1, t.created, &summons):
            self.carry_out(summons)
        else:
            Py_DECREF(token)
            self.refuse(token)
        return token

    cdef void refuse(self, TokenBase token) except *:
        """A token the pool did not take ends at once, and is counted."""
        tg_count(&token.t.op.submitted)
        tg_count(&token.t.op.rejected)
        token.end(TG_KILLED, CoordinatorStopped(
            f"{self!r} is stopped and takes no new tokens; start() it again to use it"))

    cdef inline void carry_out(self, tg_summons summons) except *:
        """Does what the pool asked for after it let go of its lock: wake one worker, or start one."""
        if summons.wake is not NULL:
            tg_unpark(&summons.wake.parker)
        elif summons.start:
            self.start_worker()

    cdef void replace_later(self) except *:
        """A run was abandoned: another worker may take its place. On a loop's thread not before the loop's next turn: who
        cancels a thousand tokens in a row would otherwise start, one after the other, what is about to be cancelled."""
        cdef int64_t now
        cdef bint asked
        loop = _running_loop()
        if loop is None:
            self.carry_out(tg_pool_abandon(self.pool, tg_now()))
            return
        tg_pool_abandon_quietly(self.pool)
        now = tg_now()
        with cython.critical_section(self):  # partner: itself, on other loops' threads
            asked = now - self.nudging <= STALE_NS  # longer ago: that loop may have been closed since
            if not asked:
                self.nudging = now
        if not asked:
            loop.call_soon(self._nudge, context=contextvars.Context())

    def _nudge(self):
        with cython.critical_section(self):
            self.nudging = 0
        if self.generation == tg_generation():
            self.carry_out(tg_pool_nudge(self.pool, tg_now()))

    def _attach_lane(self, list workers, on_start, on_exit, on_fork):
        """Where workers enter their names, and what they call; see Worker."""
        self.workers = workers
        self.on_start = on_start
        self.on_exit = on_exit
        self.on_fork = on_fork

    cdef void start_worker(self) except *:
        # No Python code runs between the pool's choice and the thread's existence, so that no signal handler can raise in
        # between and leave the pool waiting for a worker that never comes. And unlike threading.Thread.start() this does
        # not wait for the thread to run, which on a loop's thread would hand the GIL to the workers.
        cdef Worker worker = None
        try:
            worker = Worker(self, self.on_start, self.on_exit, self.on_fork)
            self.workers.append(worker)
            _start_new_thread(worker.run, ())
        except BaseException as error:
            _remove_identical(self.workers, worker)
            self._start_failed(str(error))

    def _start_failed(self, str why):
        """No thread could be started. Without any worker, what waits can never run, and ends here saying so."""
        if tg_pool_start_failed(self.pool) == 0:
            self._kill_waiting(TokenKilled, f"no worker could be started: {why}")

    # -- administration ---------------------------------------------------------------------------------------------

    def _kill_waiting(self, type error, str reason):
        """Ends every waiting token with an `error(reason)` of its own; returns how many."""
        cdef tg_token *t
        cdef TokenBase token
        cdef Py_ssize_t count = 0
        self.check()
        while True:
            t = tg_pool_detach(self.pool, NULL)
            if t is NULL:
                return count
            token = <TokenBase>t.owner
            Py_DECREF(token)  # the queue's reference [P5]; `token` holds one
            # a ring entry may have been started meanwhile by a worker that waits for it: that one runs
            count += token.end(TG_KILLED, error(reason), True)

    def _refuse_new(self):
        self.check()
        self.refusing = True
        tg_pool_refuse(self.pool)

    def _close_pool(self):
        self.check()
        self.refusing = True
        tg_pool_close(self.pool)

    def _reopen_pool(self):
        self.check()
        self.refusing = False
        tg_pool_open(self.pool)

    def _resize_pool(self, uint32_t max_workers, uint32_t limit):
        cdef tg_summons summons
        self.check()
        self.max_workers = max_workers
        self.limit = limit
        tg_pool_resize(self.pool, max_workers, limit, &summons)
        self.carry_out(summons)

    # -- waiting for tokens to end ----------------------------------------------------------------------------------

    cdef bint quiet(self, Operation operation) except -1:
        if operation is not None:
            return tg_op_live(operation.record()) == 0
        for each in list(self.operations.values()):
            if tg_op_live((<Operation>each).ptr) != 0:
                return False
        return True

    def _watch(self, name, notify):
        """Calls `notify()` once no token of the operation (None: of any) is left unended, perhaps at once.
        From whichever thread ends the last one. Returns a handle for `_unwatch`."""
        cdef Operation operation = None
        self.check()
        if name is not None:
            operation = self.operations[name]
        watch = (operation, notify)
        tg_pool_watch(self.pool, True)
        with cython.critical_section(self):
            self.watches.append(watch)
        self.check_watches()
        return watch

    def _unwatch(self, watch):
        """False if it had been called already."""
        with cython.critical_section(self):
            for i, each in enumerate(self.watches):
                if each is watch:
                    del self.watches[i]
                    break
            else:
                return False
        tg_pool_watch(self.pool, False)
        return True

    cdef void check_watches(self) except *:
        for watch in list(self.watches):
            if self.quiet(<Operation>watch[0]) and self._unwatch(watch):
                watch[1]()

    # -- looking ----------------------------------------------------------------------------------------------------

    @property
    def stopped(self):
        """True from the beginning of stop() or aclose() until start()."""
        return self.refusing

    @property
    def in_use(self):
        """True if tokens have been submitted to it in this process and it has not been stopped since."""
        if self.generation != tg_generation() or self.refusing:
            return False
        return tg_pool_new_ids(self.pool) != 0

    def _operation_names(self):
        return list(self.operations)

    def _look(self):
        """(workers, idle, max_workers, limit, queued, admitted, wakes, cpu_seconds) of the pool."""
        cdef tg_pool_view v
        self.check()
        tg_pool_look(self.pool, &v)
        return (v.workers, v.idle, v.max_workers, v.limit, v.queued, v.admitted, v.wakes, v.cpu_seconds)

    def _look_operation(self, str name):
        """Counters and durations of one operation, as a dict of plain numbers (durations in s)."""
        cdef Operation operation
        cdef tg_op *op
        cdef tg_op_view v
        cdef int64_t now = tg_now(), abandoned
        cdef uint64_t admitted, started, returned, dropped
        self.check()
        operation = self.operations[name]
        op = operation.ptr
        tg_pool_look_op(self.pool, op, &v)
        # later events first, so that no difference can come out negative
        abandoned = tg_op_abandoned_now(op)
        returned = tg_counted(&op.returned)
        dropped = tg_counted(&op.dropped)
        started = tg_counted(&op.started)
        admitted = tg_counted(&op.admitted)
        return {
            "waiting": v.waiting,
            "admitted": max(0, <int64_t>admitted - <int64_t>started - <int64_t>dropped),
            "executing": max(0, <int64_t>started - <int64_t>returned - abandoned),
            "submitted": tg_counted(&op.submitted),
            "completed": tg_counted(&op.ended[TG_COMPLETED]),
            "failed": tg_counted(&op.ended[TG_FAILED]),
            "cancelled": tg_counted(&op.ended[TG_CANCELLED]),
            "expired": tg_counted(&op.ended[TG_EXPIRED]),
            "killed": tg_counted(&op.ended[TG_KILLED]),
            "rejected": tg_counted(&op.rejected),
            "abandoned_now": abandoned,
            "abandoned_total": tg_counted(&op.abandoned_total),
            "oldest_wait": (now - v.oldest) * 1e-9 if v.oldest else 0.0,
            "wait": _durations(&op.times.wait, now),
            "run": _durations(&op.times.run, now),
        }


cdef bint _plain(object tags) except -1:
    for value in tags.values():
        if PyObject_IS_GC(value):
            return False
    return True


cdef object _own_context():
    """A copy of the current context for a token's own use. Untracked: nothing can refer to it but its token and the
    thread that runs in it. `_disown` before it is dropped or handed out."""
    context = PyContext_CopyCurrent()
    PyObject_GC_UnTrack(context)
    return context


cdef inline void _disown(object context):
    # CPython's deallocator of contexts takes it for granted that they are tracked.
    if context is not None and not PyObject_GC_IsTracked(context):
        PyObject_GC_Track(context)


cdef dict _durations(tg_hist *hist, int64_t now):
    cdef tg_hist_view v
    cdef uint32_t i
    tg_hist_snapshot(hist, <uint64_t>now, &v)
    return {
        "count": v.count,
        "mean": v.mean * 1e-9,
        "max": v.max * 1e-9,
        "p50": v.p50 * 1e-9,
        "p99": v.p99 * 1e-9,
        "total_count": v.total_count,
        "total_sum": v.total_sum * 1e-9,
        "buckets": [(tg_hist_bound_ns(i) * 1e-9 if i < TG_HIST_BOUNDS else float("inf"), v.le[i])
                    for i in range(TG_HIST_BOUNDS + 1)],
    }
