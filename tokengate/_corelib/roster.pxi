# Who waits for many tokens made elsewhere, until nothing of them runs any more: groups, and executors that shut down.


@cython.final
cdef class Roster:
    """The tokens that one waiter answers for; any number may come and go while it lives.

    until_return true: a token stays until it has ended and its function has returned, also where it ended before. False:
    until it has ended. on_failure(token) is called on the thread that ends a token in any way but with a result or a
    cancellation, before that token leaves; None: nobody asks. Any thread; nothing here blocks, except `help`.

    Empty: no token is left and nobody is about to add one (`reserve`). A roster that is closed stays empty.
    """

    cdef readonly bint until_return
    cdef object on_failure
    cdef dict live            # token -> how many notes are still to come; under the critical section, as what follows
    cdef Py_ssize_t reserved  # tokens about to be added
    cdef bint closed
    cdef object waker
    cdef object __weakref__

    def __cinit__(self, bint until_return, on_failure=None):
        self.until_return = until_return
        self.on_failure = on_failure
        self.live = {}

    def __len__(self):
        """Tokens that have not left. A snapshot."""
        return len(self.live)

    def reserve(self):
        """A token is about to be added, or not: until `unreserve` the roster is not empty. False: it is closed."""
        with cython.critical_section(self):
            if self.closed:
                return False
            self.reserved += 1
            return True

    def unreserve(self):
        """After `reserve`."""
        cdef object waker
        with cython.critical_section(self):
            self.reserved -= 1
            waker = self.waker_if_empty()
        if waker is not None:
            waker()

    cdef object waker_if_empty(self):
        # in the critical section
        cdef object waker = None
        if not self.live and self.reserved == 0:
            waker = self.waker
            self.waker = None
        return waker

    def close_if_empty(self):
        """Nothing comes any more, if nothing is left; whether that is so."""
        with cython.critical_section(self):
            if self.live or self.reserved:
                return False
            self.closed = True
            self.on_failure = None
            return True

    def add(self, TokenBase token):
        """Answer for this token, too; once for each token."""
        cdef bint at_end = not self.until_return or self.on_failure is not None
        with cython.critical_section(self):
            if token in self.live:
                return
            self.live[token] = at_end + self.until_return
        # Two notes for one token, because a worker may say that the function has returned before whoever ended the token
        # has come to say that.
        if at_end and not token.add_blocker(self):
            self.note_end(token)
        if self.until_return and not token.watch_return(self):
            self.note(token)

    cdef void note_end(self, TokenBase token) except *:
        """A token has ended."""
        cdef uint32_t state = tg_state_of(tg_word_load(&token.t.word))
        cdef object on_failure
        with cython.critical_section(self):
            on_failure = self.on_failure if token in self.live else None
        try:
            if on_failure is not None and state != TG_COMPLETED and state != TG_CANCELLED:
                on_failure(token)
        finally:
            self.note(token)

    cdef void note(self, TokenBase token) except *:
        cdef object waker = None
        cdef object left
        with cython.critical_section(self):
            left = self.live.get(token)
            if left is None:
                return  # the waiter has gone
            if left == 1:
                del self.live[token]
                waker = self.waker_if_empty()
            else:
                self.live[token] = left - 1
        if waker is not None:
            waker()

    def tokens(self):
        """The tokens that have not left, in the order they came. A snapshot."""
        with cython.critical_section(self):
            return list(self.live)

    def wake_when_empty(self, waker):
        """Calls `waker()` once the roster is empty, on the thread that learns of it. False: it is, now."""
        with cython.critical_section(self):
            if not self.live and self.reserved == 0:
                return False
            self.waker = waker
            return True

    def forget_waker(self):
        """The waiter no longer waits."""
        with cython.critical_section(self):
            self.waker = None

    def cancel(self):
        """Cancels the tokens that have not ended."""
        cdef bint unstarted
        cdef list left = self.tokens()
        # First what has not started: a worker that is abandoned is replaced, and the new one would start it.
        for unstarted in (True, False):
            for token in left:
                try:
                    (<TokenBase>token).end(TG_CANCELLED, None, unstarted)
                except BaseException:
                    # it has ended, and so must the others; who could not be told is a loop that refuses to be woken, say
                    _log.error("the end of %r could not be announced", token, exc_info=True)

    def clear(self):
        """The waiter answers for none of them any more, and for none to come."""
        cdef TokenBase token
        with cython.critical_section(self):
            self.closed = True
            self.waker = self.on_failure = None
            left = list(self.live)
            self.live = {}
        for each in left:
            token = <TokenBase>each
            token.remove_blocker(self)
            token.unwatch_return(self)

    def help(self, Worker worker):
        """By a worker about to wait until none is left: runs those that have not started, as far as it may."""
        cdef bint ran = True
        while ran:
            ran = False
            for each in self.tokens():
                if not tg_ended((<TokenBase>each).look()) and worker.help(<TokenBase>each):
                    ran = True

    def begin_waiting(self, Worker worker):
        """Before a worker blocks until none is left: TokenDeadlock if that can never be."""
        _begin_waiting(worker, self.tokens(), False, self.until_return)

    def end_waiting(self, Worker worker):
        """After `begin_waiting`."""
        worker.waits_for = None

    def check_within(self):
        """Before a loop that a worker runs waits until none is left: TokenDeadlock if one of them cannot end."""
        if current_worker() is None:
            return
        for each in self.tokens():
            _check_within(<TokenBase>each)


def cancelled_call(GuardBase guard, tuple args, dict kwargs):
    """The token of a call that came too late to run: already cancelled."""
    cdef Core core = guard.core()
    core.check()
    return _cancelled(core, guard.runtime, guard.of(core), guard.labels, guard.plain, guard.fn, args, kwargs)


def cancelled_submit(Runtime runtime, Core core, str operation, tags, fn, tuple args, dict kwargs):
    """The same for a plain callable on a given coordinator."""
    core.check()
    return _cancelled(core, runtime, core.operation(operation, tags, _no_policy), tags, _plain(tags), fn, args, kwargs)


cdef TokenBase _cancelled(Core core, Runtime runtime, Operation operation, labels, bint plain, fn, tuple args, dict kwargs):
    cdef TokenBase token = core.make(runtime.token_class, operation, labels, plain, fn, args, kwargs if kwargs else None)
    loop = _running_loop()
    if loop is not None:
        token.link = _link_to(loop)
        token.caller_name = token.link.caller(loop)
    token.t.created = tg_now()
    token.end(TG_CANCELLED, "its TokenGroup is shutting down")
    return token
