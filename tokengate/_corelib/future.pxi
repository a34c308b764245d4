# Tokens that are futures of concurrent.futures.
#
# No future beside the token: what concurrent.futures reads of one (`_state`, `_condition`, `_waiters`) is worked out from
# the token for those who ask. Only who asks makes the token tell, after everybody else who waits for it.

_cf_log = logging.getLogger("concurrent.futures")  # where the standard library reports callbacks that raise
_CF_STATES = ("PENDING", "PENDING", "PENDING", "RUNNING", "FINISHED", "FINISHED", "CANCELLED_AND_NOTIFIED", "FINISHED",
              "FINISHED")
_CF_INVALID = concurrent.futures.InvalidStateError


cdef class FutureBase(TokenBase):
    """A token that conducts itself like a `concurrent.futures.Future`; made by an executor."""

    cdef set live                # of its executor: it is in there until it is over and has been told
    cdef object condition        # for those who wait by concurrent.futures' own means; made on first use
    cdef list waiters            # theirs, under `condition`
    # all of these under the critical section:
    cdef list done_callbacks     # until they have been called
    cdef list late               # locks of who waits until they have been called
    cdef bint listening          # somebody is to be told of the end
    cdef bint telling            # a thread has taken that on
    cdef bint told               # the waiters know; callbacks that come now are called at once
    cdef bint settled            # the callbacks have been called
    cdef bint looped             # asyncio takes it for a future of its own
    cdef bint patient            # who asks a pending one for its result on a loop's thread is told so, as asyncio does

    # -- what the token does differently for futures ----------------------------------------------------------------

    cdef object translated(self, object error):
        # As the standard library delivers it: whatever the function raised. To an event loop it would go through
        # asyncio.wrap_future, which translates these.
        if not self.looped:
            return error
        if type(error) is _BlockedCancelled:
            return _LoopCancelled(*error.args).with_traceback(error.__traceback__)
        if type(error) is _CF_INVALID:
            return _InvalidState(*error.args).with_traceback(error.__traceback__)
        if isinstance(error, StopIteration):
            wrapped = RuntimeError("StopIteration interacts badly with generators and cannot be raised into a Future")
            wrapped.__cause__ = wrapped.__context__ = error
            return wrapped
        return error

    cdef bint reports(self):
        return self.looped  # concurrent.futures says nothing, asyncio does

    cdef object cancelled_error(self):
        return _BlockedCancelled() if not self.looped else TokenBase.cancelled_error(self)

    cdef void announce(self, uint32_t state, uint32_t old, int64_t now, Debtor by) except *:
        TokenBase.announce(self, state, old, now, by)
        try:
            if old & TG_BLOCKED and self.listens():
                if by is not None:
                    by.settle_debt()
                self.tell(by is not None)  # last: callbacks may take their time, and raise what they like
        finally:
            # an abandoned one is not over before its function returns
            if not (old & TG_RUNNING and state > TG_FAILED and self.watch_return(self._leave)):
                self._leave()

    def _leave(self):
        """Its executor need not wait for it any longer."""
        self.live.discard(self)

    cdef void inherited(self):
        # A thread of the parent may have held the lock, and what it waited with is the parent's.
        with cython.critical_section(self):
            self.condition = None
            self.waiters = None
        TokenBase.inherited(self)
        if self.listens():
            self.tell(True)

    def __repr__(self):
        return TokenBase.__repr__(self).replace("Token", type(self).__name__, 1)

    def __reduce__(self):
        raise TypeError(f"{self!r} belongs to its process and stands for one call: it can be neither pickled nor copied")

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
            self.hold_up(timeout)
        return self.outcome()

    def exception(self, timeout=None):
        """What the function raised, or None. Blocks, and raises CancelledError and TimeoutError, like `result`."""
        if not tg_ended(self.look()):
            self.hold_up(timeout)
        return TokenBase.exception(self)

    cdef void hold_up(self, timeout) except *:
        if self.patient:
            self.block(timeout)
        else:
            self.wait(timeout)

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

    cdef bint listens(self) noexcept:
        with cython.critical_section(self):
            return self.listening

    cdef void listen(self) except *:
        """From now on the end of the token is told; at once where it has ended."""
        self.look()
        with cython.critical_section(self):
            if self.listening:
                return
            self.listening = True
            # Who ends it sees BLOCKED and comes to tell, or we see that it has ended. Both may be so: the first tells.
            if not tg_ended(tg_word_announce(&self.t.word, TG_BLOCKED)):
                return
        self.tell(False)

    cdef void tell(self, bint swallow) except *:
        """The token has ended: everybody who waits in concurrent.futures' way learns it, once. swallow: what callbacks
        raise is logged, whatever it is; else it is raised here if it is no Exception, after the last of them."""
        cdef list callbacks = None, late
        cdef object condition
        with cython.critical_section(self):
            if self.telling:
                return
            self.telling = True
            condition = self.condition
            if condition is None:
                callbacks = self.now_told()
        if condition is not None:
            # Who holds it has to see all futures stand still: `_state` shows the end from `told` on, and not before.
            with condition:
                with cython.critical_section(self):
                    callbacks = self.now_told()
                self.tell_waiters()
                condition.notify_all()
        try:
            if callbacks is not None:
                self.call_all(callbacks, swallow)
        finally:
            with cython.critical_section(self):
                self.settled = True
                late = self.late
                self.late = None
            if late is not None:
                for lock in late:
                    lock.release()

    cdef list now_told(self):
        # in the critical section
        cdef list callbacks = self.done_callbacks
        self.done_callbacks = None
        self.told = True
        return callbacks

    cdef void tell_waiters(self) except *:
        cdef uint32_t state = tg_state_of(tg_word_load(&self.t.word))
        for waiter in self.waiters:
            if state == TG_COMPLETED:
                waiter.add_result(self)
            elif state == TG_CANCELLED:
                waiter.add_cancelled(self)
            else:
                waiter.add_exception(self)

    cdef void call_all(self, list callbacks, bint swallow) except *:
        cdef object severe = None
        outer = _thread_value("tokengate.telling")
        _set_thread_value("tokengate.telling", self)
        try:
            for fn in callbacks:
                try:
                    self.call(fn)
                except BaseException as error:
                    # neither the other callbacks nor the worker can help it
                    if swallow:
                        _cf_log.critical("exception calling callback for %r", self, exc_info=True)
                    elif severe is None:
                        severe = error
        finally:
            _set_thread_value("tokengate.telling", outer)
        if severe is not None:
            raise severe

    cdef void call(self, object fn) except *:
        try:
            fn(self)
        except Exception:
            _cf_log.exception("exception calling callback for %r", self)

    cdef bint await_callbacks(self) except -1:
        """Blocks until the callbacks of an ended token have been called, if a thread is about to."""
        cdef object lock = _allocate_lock()
        lock.acquire()
        with cython.critical_section(self):
            if not self.listening or self.settled:
                return True
            if self.late is None:
                self.late = []
            self.late.append(lock)
        return lock.acquire()

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
        cdef uint32_t state = tg_state_of(self.look())
        if state >= TG_COMPLETED:
            with cython.critical_section(self):
                if self.condition is not None and not self.told:
                    return "RUNNING"  # who holds the condition counts on it: an end is seen when it is told
        return _CF_STATES[state]

    @property
    def _condition(self):
        cdef object made = None
        self.look()
        with cython.critical_section(self):
            condition = self.condition
        if condition is None:
            made = threading.Condition()
            with cython.critical_section(self):
                if self.condition is None:
                    self.waiters = []
                    self.condition = made
                condition = self.condition
            self.listen()
        return condition

    @property
    def _waiters(self):
        cdef Worker worker
        self._condition
        found = current_worker()
        if found is not None and not tg_ended(self.look()):
            # `wait` and `as_completed`, called by a function that a worker runs, are about to block it. They do not say
            # when they are done: its place is free until the function returns.
            worker = <Worker>found
            if worker.aside == 0:
                worker.step_aside()
        return self.waiters

    @property
    def _result(self):
        return self.value if tg_state_of(self.look()) == TG_COMPLETED else None

    @property
    def _exception(self):
        cdef uint32_t state = tg_state_of(self.look())
        return None if state < TG_FAILED or state == TG_CANCELLED else TokenBase.exception(self)
