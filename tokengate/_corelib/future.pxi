# Tokens that are futures of concurrent.futures, and the compiled half of the executor that makes them.
#
# No future beside the token: what concurrent.futures reads of one (`_state`, `_condition`, `_waiters`) is worked out from
# the token for those who ask. Only who asks makes the token tell: a herald then stands among its blockers.

from functools import partial as _partial

_no_tags = _frozen({})
_cf_log = logging.getLogger("concurrent.futures")  # where the standard library reports callbacks that raise
_CF_STATES = ("PENDING", "PENDING", "PENDING", "RUNNING", "FINISHED", "FINISHED", "CANCELLED_AND_NOTIFIED", "FINISHED",
              "FINISHED")
_CF_INVALID = concurrent.futures.InvalidStateError


@cython.final
cdef class _Herald:
    """Stands among the blockers of a future and is let go when its token ends."""

    cdef FutureBase future

    def __cinit__(self, FutureBase future):
        self.future = future

    def release(self):
        """Called once, by whoever ended the token."""
        self.future.tell()


cdef class FutureBase(TokenBase):
    """A token that conducts itself like a `concurrent.futures.Future`; made by an executor."""

    cdef object condition        # for those who wait by concurrent.futures' own means; made on first use
    cdef list waiters            # theirs, under `condition`
    cdef list done_callbacks     # until they have been called; under the critical section
    cdef bint listening          # a herald has been sent; under the critical section
    cdef bint told               # callbacks that come now are called at once; under the critical section

    # -- what the token does differently for futures ----------------------------------------------------------------

    cdef object translated(self, object error):
        # As the standard library delivers it: whatever the function raised. To an event loop it would go through
        # asyncio.wrap_future, which translates these.
        if self.link is None:
            return error
        if type(error) is _BlockedCancelled:
            return _LoopCancelled(*error.args).with_traceback(error.__traceback__)
        if isinstance(error, StopIteration):
            wrapped = RuntimeError("StopIteration interacts badly with generators and cannot be raised into a Future")
            wrapped.__cause__ = wrapped.__context__ = error
            return wrapped
        return error

    cdef bint reports(self):
        return self.link is not None  # concurrent.futures says nothing, asyncio does

    cdef object cancelled_error(self):
        return _BlockedCancelled() if self.link is None else TokenBase.cancelled_error(self)

    # -- concurrent.futures.Future ----------------------------------------------------------------------------------

    def cancel(self):
        """Cancel the call if its function has not started. False: it has, or has ended otherwise. Any thread."""
        return self.end(TG_CANCELLED, None, True) or self.cancelled()

    def running(self):
        """True while the function executes for somebody."""
        return tg_state_of(self.look()) == TG_EXECUTING

    def result(self, timeout=None):
        """What the function returned; raises what it raised, or CancelledError. Blocks, on any thread, up to `timeout`
        seconds (None: for ever), then TimeoutError. A worker that blocks here runs the call itself if it has not
        started."""
        if not tg_ended(self.look()):
            self.wait(timeout)
        return self.outcome()

    def exception(self, timeout=None):
        """What the function raised, or None. Blocks, and raises CancelledError and TimeoutError, like `result`."""
        if not tg_ended(self.look()):
            self.wait(timeout)
        return TokenBase.exception(self)

    def add_done_callback(self, fn):
        """Call `fn(future)` when it has ended: on the thread that ends it, or here and now if it has."""
        cdef bint stored = False
        with cython.critical_section(self):
            if not self.told:
                stored = True
                if self.done_callbacks is None:
                    self.done_callbacks = []
                self.done_callbacks.append(fn)
        if stored:
            self.listen()
        else:
            self.call(fn)

    cdef void listen(self) except *:
        cdef bint first
        with cython.critical_section(self):
            first = not self.listening
            self.listening = True
        if first and not self.add_blocker(_Herald(self)):
            self.tell()  # it has ended, and nobody else will

    cdef void tell(self) except *:
        """The token has ended: everybody who waits in concurrent.futures' way learns it. Once."""
        cdef list callbacks
        cdef object condition
        cdef uint32_t state = tg_state_of(tg_word_load(&self.t.word))
        with cython.critical_section(self):
            callbacks = self.done_callbacks
            self.done_callbacks = None
            self.told = True
            condition = self.condition
        if condition is not None:
            with condition:
                for waiter in self.waiters:
                    if state == TG_COMPLETED:
                        waiter.add_result(self)
                    elif state == TG_CANCELLED:
                        waiter.add_cancelled(self)
                    else:
                        waiter.add_exception(self)
                condition.notify_all()
        if callbacks is not None:
            for fn in callbacks:
                self.call(fn)

    cdef void call(self, object fn) except *:
        try:
            fn(self)
        except Exception:
            _cf_log.exception("exception calling callback for %r", self)

    def set_running_or_notify_cancel(self):
        """Refuses: the coordinator runs the call. InvalidStateError."""
        raise _CF_INVALID(f"{self!r} is run by its coordinator, nobody else can")

    def set_result(self, result):
        """Refuses: the function's result is the only one. InvalidStateError."""
        raise _CF_INVALID(f"{self!r} gets its result from its function, not {result!r}")

    def set_exception(self, exception):
        """Refuses, as `set_result`. InvalidStateError."""
        raise _CF_INVALID(f"{self!r} gets its outcome from its function, not {exception!r}")

    # -- what the standard library reads of a future from outside ---------------------------------------------------

    @property
    def _state(self):
        return _CF_STATES[tg_state_of(self.look())]

    @property
    def _condition(self):
        if self.condition is None:
            made = threading.Condition()
            with cython.critical_section(self):
                if self.condition is None:
                    self.waiters = []
                    self.condition = made
            # From here on an end is announced under it: who holds it and then finds the future pending is told.
            self.listen()
        return self.condition

    @property
    def _waiters(self):
        self._condition
        return self.waiters

    @property
    def _result(self):
        return self.value if tg_state_of(self.look()) == TG_COMPLETED else None

    @property
    def _exception(self):
        cdef uint32_t state = tg_state_of(self.look())
        return None if state < TG_FAILED or state == TG_CANCELLED else TokenBase.exception(self)


cdef inline bint _is_context_run(object fn):
    # what asyncio.to_thread makes: partial(context.run, function, ...)
    return PyCFunction_Check(fn) and type(fn.__self__) is contextvars.Context and fn.__name__ == "run"


cdef class ExecutorBase:
    """The compiled half of `tokengate.Executor`: from `submit` to a future."""

    cdef Core home
    cdef type plain_class, loop_class  # of futures made off a loop, and on one
    cdef Operation single      # the operation of all its calls; None: each function's own
    cdef object name_of        # callable -> operation name
    cdef dict known            # operation name -> (name, Policy): those that are not what the function says
    cdef set live              # weak references to futures; one that runs is held by its worker
    cdef object lock           # between submit and shutdown; reentrant, for signal handlers that submit
    cdef uint32_t generation
    cdef bint closed

    def _set_up(self, Core core, type plain_class, type loop_class, name_of, dict known, str operation):
        """Once, by the constructor. operation: the name of one that the coordinator knows, for all calls; None: each
        function has its own. known: names to be replaced, with the policies of what replaces them."""
        core.check()
        self.home = core
        self.plain_class = plain_class
        self.loop_class = loop_class
        self.name_of = name_of
        self.known = known
        self.single = None if operation is None else core.operations[operation]
        self.renew()

    cdef void renew(self):
        self.generation = tg_generation()
        self.live = set()
        self.lock = threading.RLock()

    @property
    def coordinator(self):
        """The coordinator that runs the calls."""
        return self.home

    @property
    def _shutdown(self):
        return self.closed

    def submit(self, fn, /, *args, **kwargs):
        """Run `fn(*args, **kwargs)` on the coordinator; returns a `concurrent.futures.Future`.

        On a thread with a running event loop the future can be awaited there, too. RuntimeError after `shutdown`, and
        where the coordinator has been stopped. Any thread; does not block.
        """
        cdef FutureBase future
        cdef Operation operation
        cdef object context = None
        cdef tuple given
        if self.home is None:
            raise RuntimeError(f"this {type(self).__name__} was made without its constructor")
        if self.generation != tg_generation():
            self.renew()  # in a forked child: the futures are the parent's, the lock may be held by a thread of it
        if type(fn) is _partial and _is_context_run(fn.func):
            given = fn.args
            if given:
                context = fn.func.__self__
                kwargs = {**fn.keywords, **kwargs}
                args = given[1:] + args
                fn = given[0]
        operation = self.operation(fn)
        with self.lock:
            if self.closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self.home.check()
            if self.home.refusing:
                raise RuntimeError(f"cannot schedule new futures: {self.home!r} is stopped; start() it again to use it")
            future = self.home.make(self.plain_class if _running_loop() is None else self.loop_class, operation,
                                    _no_tags, False, fn, args, kwargs if kwargs else None, context)
            self.live.add(weakref.ref(future, self.live.discard))
            return self.home.launch(future, operation, None, None)

    cdef Operation operation(self, object fn):
        cdef Operation operation = self.single
        cdef str name
        cdef object policy = _no_policy
        if operation is not None:
            return operation
        if PyFunction_Check(fn):
            name = f"{fn.__module__}.{fn.__qualname__}"
        else:
            name = self.name_of(fn)
        if name in self.known:
            name, policy = self.known[name]
        operation = self.home.operations.get(name)
        return operation if operation is not None else self.home.operation(name, _no_tags, policy)

    def _close(self):
        """No call is taken any more. Returns the futures that may not have ended, or whose functions may still run."""
        if self.generation != tg_generation():
            self.renew()
        with self.lock:
            self.closed = True
            return [future for future in [each() for each in list(self.live)] if future is not None]
