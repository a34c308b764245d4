# The token: one call, from creation to its end, speaking asyncio's Future protocol without a Future around it.
#
# Who may write what (rules [W1]-[W6] in tg_word.h):
#   call           function, arguments, context: the submitter, then the winner of the edge that uses or drops them
#   value          the worker, before the edge EXECUTING -> COMPLETED | FAILED
#   rare.verdict   a caller's side end (cancel, kill, expiry), under the token's critical section, before its edge
#   callback, what is in `rare`, delivered: under the token's critical section
#   link           once: at creation, or by the first loop that awaits it, under the critical section

cdef tuple _STATE_NAMES = ("CREATED", "WAITING", "ADMITTED", "EXECUTING", "COMPLETED", "FAILED", "CANCELLED",
                           "EXPIRED", "KILLED")


cdef void _remove_identical(list items, object item) except *:
    cdef Py_ssize_t i
    if items is not None:
        for i in range(len(items)):
            if items[i] is item:
                del items[i]
                return


@cython.final
cdef class Failure:
    """A function's exception on its way to whoever asks; reports itself if nobody ever does."""

    cdef readonly object exception
    cdef object traceback
    cdef object loop_ref
    cdef object what
    cdef bint retrieved

    def __cinit__(self, exception, loop_ref, what):
        self.exception = exception
        self.traceback = exception.__traceback__
        self.loop_ref = loop_ref
        self.what = what

    cdef object again(self):
        # The same exception object may be raised to several awaiters: each starts from the function's traceback.
        self.retrieved = True
        return self.exception.with_traceback(self.traceback)

    def __del__(self):
        if self.retrieved:
            return
        exception = self.exception.with_traceback(self.traceback)
        context = {
            "message": f"{self.what}: exception was never retrieved",
            "exception": exception,
            "token": self.what,
        }
        loop = self.loop_ref() if self.loop_ref is not None else None
        if loop is not None:
            try:
                # posted: this runs on whatever thread dropped the token, often a worker
                loop.call_soon_threadsafe(loop.call_exception_handler, context)
                return
            except RuntimeError:
                pass  # the loop has been closed
        _log.error(context["message"], exc_info=exception)


@cython.final
cdef class _Rare:
    """What few of a million waiting tokens have; made when the first of it comes."""

    cdef list callbacks           # but for the first
    cdef list blockers            # locks of threads blocked in result(), collectors of synchronous consumers, rosters
    cdef list watchers            # what to call once nothing of it runs any more
    cdef object kept              # the arguments, where a consumer asked to see them again
    cdef object verdict           # what it was cancelled or killed with, if anything; a cancellation may have no words


@cython.auto_pickle(False)
cdef class TokenBase:
    """The compiled half of `tokengate.Token`."""

    cdef tg_token t
    cdef readonly Core core
    cdef Operation op
    cdef Link link
    cdef object fn
    cdef object args              # the tuple of positional arguments, or a sole one (flag `sole`)
    cdef object kwargs
    cdef object context           # to run in; a _Snapshot: in a copy of that
    cdef object value
    cdef object callback          # the first callback and its context; more of them in `rare`
    cdef object callback_context
    cdef _Rare rare                # set once, under the critical section
    cdef str caller_name          # of the asyncio task that called
    cdef Py_ssize_t place         # position in the batch it came from; -1: none
    cdef uint8_t blocking         # these are flags
    cdef uint8_t delivered
    cdef uint8_t sole
    cdef uint8_t enclosed         # its coordinator lives for ever and its tags are plain: neither leads back to it
    cdef object labels            # the tags of the guard that made it
    cdef object __weakref__

    def __init__(self, *args, **kwargs):
        raise TypeError("tokens are made by calling a guarded function, Coordinator.submit() or .map()")

    # -- what it is -------------------------------------------------------------------------------------------------

    @property
    def id(self):
        """Number of the token within its coordinator, from 1."""
        return self.t.id

    @property
    def operation_type(self):
        """Name of the operation."""
        return self.op.name

    @property
    def tags(self):
        """The tags of the guarded function, or of the `.options` view, it came from; read-only."""
        return self.labels

    @property
    def index(self):
        """Position in the iterable of the `.map` call it came from, or None."""
        return None if self.place < 0 else self.place

    @property
    def args(self):
        """The positional arguments, where `.map(tokens=True)` kept them, else None."""
        return None if self.rare is None else self.rare.kept

    @property
    def caller(self):
        """Name of the asyncio task that made the token, or None where none did."""
        return self.caller_name

    # -- state ------------------------------------------------------------------------------------------------------

    cdef inline uint32_t look(self):
        if self.t.generation != tg_generation():
            self.inherited()
        return tg_word_load(&self.t.word)

    cdef inline void track(self, object outcome):
        # It is about to end, and from here on it can be part of a cycle, if what it refers to may lead back to it.
        if not self.enclosed or PyObject_IS_GC(outcome) or self.rare is not None:
            with cython.critical_section(self):
                self.track_now()

    cdef void track_now(self):
        """`track` for who is in the token's critical section: entered twice, it would let others in (up to 3.13)."""
        if not PyObject_GC_IsTracked(self):
            self.disown_callbacks()  # what a tracked token refers to is tracked, or clearing it would crash
            PyObject_GC_Track(self)

    cdef void inherited(self):
        # In a forked child: no worker will ever come for it, and the parent's queues must not be touched.
        cdef _Rare rare = self.needed()
        verdict = TokenKilled("the process forked: the token lives on in the parent only")
        with cython.critical_section(self):
            if not tg_ended(tg_word_load(&self.t.word)):
                rare.verdict = verdict
                self.t.ended = tg_now()
                tg_word_end(&self.t.word, TG_KILLED)
            tg_word_returned(&self.t.word)  # its function does not run here
            self.t.generation = tg_generation()
        self.release_blockers()  # a collector of this process still waits for it
        self.tell_watchers()

    @property
    def deadline(self):
        """When the token expires if it has not ended by then, in seconds of `time.monotonic`, or None. Any thread."""
        cdef int64_t deadline = 0 if self.t.extra is NULL else tg_stamped(&self.t.extra.deadline)
        return deadline * 1e-9 if deadline else None

    def remaining(self):
        """Seconds until the deadline, 0.0 where it has passed, or None without one. Any thread."""
        cdef int64_t deadline = 0 if self.t.extra is NULL else tg_stamped(&self.t.extra.deadline)
        return None if deadline == 0 else max(0, deadline - tg_now()) * 1e-9

    @property
    def state_code(self):
        """The state as the core's number."""
        return tg_state_of(self.look())

    @property
    def abandoned(self):
        """True while the function still runs although the token has ended (cancelled, expired or killed)."""
        return tg_abandoned(self.look())

    @property
    def wait_time(self):
        """Seconds from creation to start; up to now, or to its end, where it has not started. Any thread."""
        cdef uint32_t word = self.look()
        cdef int64_t to = tg_stamped(&self.t.started)
        if to == 0:
            to = self.t.ended if tg_ended(word) else tg_now()
        return (to - self.t.created) * 1e-9 if to > self.t.created else 0.0

    @property
    def run_time(self):
        """Seconds from start to finish; up to now while executing, up to its end where it ended before the function
        returned; 0.0 where it never started. Any thread."""
        cdef uint32_t word = self.look()
        cdef uint32_t state = tg_state_of(word)
        cdef int64_t to, started = tg_stamped(&self.t.started)
        if started == 0:
            return 0.0
        if state == TG_COMPLETED or state == TG_FAILED:
            to = self.t.finished
        elif tg_ended(word):
            to = self.t.ended
        else:
            to = tg_now()
        return (to - started) * 1e-9 if to > started else 0.0

    @property
    def timestamps(self):
        """Monotonic ns of (created, admitted, started, finished); 0 where it has not happened."""
        cdef uint32_t state = tg_state_of(self.look())
        cdef int64_t finished = 0
        if state == TG_COMPLETED or state == TG_FAILED:
            finished = self.t.finished
        elif state >= TG_COMPLETED:
            finished = self.t.ended
        return (self.t.created, tg_stamped(&self.t.admitted), tg_stamped(&self.t.started), finished)

    def done(self):
        """True once the token has ended, however. Turns true when the worker finishes; callbacks follow on the loop."""
        return tg_ended(self.look())

    def cancelled(self):
        """True if the caller cancelled it."""
        return tg_state_of(self.look()) == TG_CANCELLED

    def __repr__(self):
        cdef uint32_t word = self.look()
        return (f"<Token {self.t.id} {self.op.name} {_STATE_NAMES[tg_state_of(word)]}"
                f"{' abandoned' if tg_abandoned(word) else ''}>")

    # -- ending it from outside -------------------------------------------------------------------------------------

    cdef bint end(self, uint32_t state, object verdict, bint unstarted_only=False) except -1:
        """One of the caller's side edges. False: it had already ended (or started). Any thread."""
        cdef tg_step step
        cdef tg_summons summons
        cdef uint32_t was
        cdef bint room = False
        cdef Carrier carrier = None
        if tg_ended(self.look()):
            return False
        if self.core.sent_lock is None:
            step = self.take_end(state, verdict, unstarted_only)
        else:
            with self.core.sent_lock:
                carrier = (<RemoteCore>self.core).before_end(self)
                step = self.take_end(state, verdict, unstarted_only)
                if carrier is not None and step.moved:
                    carrier.interrupt(self)
        if not step.moved:
            return False
        cdef int64_t now = self.t.ended
        was = tg_state_of(step.old)
        if was == TG_EXECUTING:
            tg_op_abandoned_add(self.t.op, 1)
            tg_count(&self.t.op.abandoned_total)
            if self.core.sent_lock is None:
                self.core.replace_later(self.t.op)
        else:
            self.drop_call()
            if was == TG_ADMITTED:
                self.give_place(&self.t.op.dropped)  # what pops its ring entry one day finds it ended
                if tg_op_gated(self.t.op):
                    self.core.carry_out(tg_pool_freed(self.core.pool, self.t.op, now))
            else:
                if was == TG_CREATED:
                    tg_count(&self.t.op.submitted)  # so that the figures add up
                elif tg_pool_unlink(self.core.pool, &self.t):
                    room = True
                if was == TG_WAITING:
                    Py_DECREF(self)  # the queue's reference [P5]
                self.let_key_go()
        self.announce(state, step.old, now, None)
        if room:
            _announce_room(self.core)
        return True

    cdef tg_step take_end(self, uint32_t state, object verdict, bint unstarted_only):
        """The edge alone."""
        cdef tg_step step
        cdef _Rare rare = self.needed() if verdict is not None else None
        step.moved = False
        step.old = 0
        with cython.critical_section(self):
            if not tg_ended(tg_word_load(&self.t.word)):
                if rare is not None:
                    rare.verdict = verdict
                self.track_now()
                self.t.ended = tg_now()
                step = (tg_word_end_unstarted if unstarted_only else tg_word_end)(&self.t.word, state)
                if not step.moved and rare is not None:
                    rare.verdict = None  # the worker was first; `ended` is not read for its states
        return step

    cdef void give_place(self, tg_counter *counter):
        """Its place, in the limit and in its key, is free again: the function has returned, or will not run."""
        tg_op_give_place(self.t.op, counter)
        if self.t.extra is not NULL and self.t.extra.key is not NULL:
            tg_pool_give_key(self.core.pool, &self.t)
            self.let_key_go()

    cdef void let_key_go(self):
        cdef Key key
        if self.t.extra is not NULL and self.t.extra.key_owner is not NULL:
            key = <Key>self.t.extra.key_owner
            Py_DECREF(key)
            self.t.extra.key_owner = NULL
            self.op.release_key(key)

    cdef tuple positional(self):
        """The positional arguments of the call."""
        return (self.args,) if self.sole else <tuple>self.args

    cdef void drop_call(self) noexcept:
        # [W2] the function will not run
        _disown(self.context)
        self.fn = self.args = self.kwargs = self.context = None

    def __dealloc__(self):
        _disown(self.context)
        self.disown_callbacks()
        PyMem_Free(self.t.extra)  # disarmed since it ended; a key is let go of before that

    cdef void disown_callbacks(self) noexcept:
        _disown(self.callback_context)
        if self.rare is not None and self.rare.callbacks is not None:
            for pair in self.rare.callbacks:
                _disown(pair[1])

    cdef _Rare needed(self):
        """Its `rare`. Not for who is in the token's critical section: allocating may run a finalizer, which lets other
        threads in."""
        cdef _Rare made
        if self.rare is None:
            made = _Rare()
            with cython.critical_section(self):
                if self.rare is None:
                    self.rare = made
        return self.rare

    cdef void announce(self, uint32_t state, uint32_t old, int64_t now, Debtor by) except *:
        """Tells everybody who asked that the token has ended. By the winner of the ending edge, once."""
        cdef Link link
        if self.t.extra is not NULL:
            _disarm(self.core, self)
        tg_op_ended(self.t.op, state)
        if old & TG_WATCHED and not (old & TG_RUNNING and state > TG_FAILED):
            self.tell_watchers()  # [W6] it is over; one that is abandoned now, its worker will tell of
        if old & TG_WAITER:
            link = self.link  # once pushed, the token may be delivered and freed, and its reference with it
            link.push(self, now, by)
        if old & TG_BLOCKED:
            self.release_blockers()
        if tg_pool_watched(self.core.pool):
            self.core.check_watches()

    def cancel(self, msg=None):
        """Cancel the token; returns False if it had already ended.

        Its awaiters get `asyncio.CancelledError` (threads blocked in `result`:
        `concurrent.futures.CancelledError`). A function that has not started never runs. One that
        is executing in the thread lane runs on, `abandoned`; its result is dropped. Any thread;
        does not block; callbacks run on the token's loop.
        """
        return self.end(TG_CANCELLED, msg)

    def kill(self, reason="killed"):
        """End the token for everybody with `TokenKilled(reason)`; returns False if it had already ended.

        Like `cancel`, but says that it was not the caller's wish. Any thread; does not block.
        TypeError for a reason that is not a string.
        """
        if not isinstance(reason, str):
            raise TypeError(f"reason={reason!r}: expected a string that says why")
        return self.end(TG_KILLED, TokenKilled(reason))

    def _kill_with(self, error):
        """`kill` with an exception of the caller's choice, a TokenKilled."""
        return self.end(TG_KILLED, error)

    cpdef void forgive(self):
        # its consumer has gone: what it failed with need not be reported
        cdef uint32_t state = tg_state_of(tg_word_load(&self.t.word))
        if state == TG_FAILED:
            (<Failure>self.value).retrieved = True

    # -- outcome ----------------------------------------------------------------------------------------------------

    @property
    def _cancel_message(self):
        return self.words() if tg_state_of(self.look()) == TG_CANCELLED else None

    def _make_cancelled_error(self):
        # gather() asks this of a cancelled child, and hangs where it is missing
        message = self._cancel_message
        return _LoopCancelled() if message is None else _LoopCancelled(message)

    cdef object translated(self, object error):
        """What an awaiter gets for what the function raised."""
        if not isinstance(error, _MUST_NOT_ACT):
            return error
        wrapped = FunctionExited(
            f"the function of {self!r} raised {type(error).__name__}{_told(error)}; it ends this token, not the awaiter"
        )
        wrapped.__cause__ = error
        return wrapped

    cdef bint reports(self):
        """Whether an exception that nobody asks for is told to the loop, or logged."""
        return True

    cdef object cancelled_error(self):
        if _running_loop() is not None:
            return self._make_cancelled_error()
        message = self._cancel_message
        return _BlockedCancelled() if message is None else _BlockedCancelled(message)

    cdef object outcome(self):
        """The result, or raises what the token ended with. Only once it has ended."""
        cdef uint32_t state = tg_state_of(tg_word_load(&self.t.word))
        if state == TG_COMPLETED:
            return self.value
        if state == TG_FAILED:
            raise (<Failure>self.value).again()
        if state == TG_CANCELLED:
            raise self.cancelled_error()
        raise self.told().with_traceback(None)

    cdef object words(self):
        return None if self.rare is None else self.rare.verdict

    cdef object told(self):
        """The exception of a token that was killed or has expired."""
        verdict = self.words()
        if verdict is not None:
            return verdict
        # Deadlines pass in thousands at a time: the words are made for those who ask.
        if tg_stamped(&self.t.started) == 0:
            what = f"{self!r}: it had not started {self.wait_time:.3g} s after its creation"
        else:
            what = f"{self!r}: its function had been running for {self.run_time:.3g} s"
        expired = TokenExpired(what)
        cdef _Rare rare = self.needed()
        with cython.critical_section(self):
            if rare.verdict is None:
                rare.verdict = expired
            return rare.verdict

    def result(self, timeout=None):
        """The function's result, or raises what the token ended with.

        timeout: seconds, None: for ever. On a thread without a running event loop this blocks
        until the token has ended (`TimeoutError` when the timeout passes first; Ctrl-C works on
        the main thread); a worker that blocks here runs the token itself if it has not started.
        On a thread with a running loop a token that has not ended raises
        `asyncio.InvalidStateError`: await it instead.
        """
        if not tg_ended(self.look()):
            self.block(timeout)
        return self.outcome()

    def exception(self, timeout=None):
        """The exception the token ended with, or None if it completed. Blocks, and raises, like `result`; a cancelled
        token raises the cancellation."""
        cdef uint32_t state
        if not tg_ended(self.look()):
            self.block(timeout)
        state = tg_state_of(tg_word_load(&self.t.word))
        if state == TG_COMPLETED:
            return None
        if state == TG_FAILED:
            return (<Failure>self.value).again()
        if state == TG_CANCELLED:
            raise self.cancelled_error()
        return self.told()

    @property
    def failed(self):
        """True if it ended in any way but with a result. Does not count as asking for the exception."""
        cdef uint32_t word = self.look()
        return tg_ended(word) and tg_state_of(word) != TG_COMPLETED

    cdef void block(self, timeout) except *:
        if _running_loop() is not None:
            raise _InvalidState(
                f"{self!r} has not ended, and waiting for it here would stall the running event loop: await it"
            )
        self.wait(timeout)

    cdef void wait(self, timeout) except *:
        worker = current_worker()
        if timeout is not None and timeout <= 0:
            raise TimeoutError(f"{self!r} has not ended")  # a look, for which nothing is run
        if worker is not None and (<Worker>worker).help(self):
            return
        lock = _allocate_lock()
        lock.acquire()
        if not self.add_blocker(lock):
            return
        acquired = False
        try:
            if worker is not None:
                if timeout is None:
                    _begin_waiting(<Worker>worker, (self,), False)
                (<Worker>worker).step_aside()
            acquired = lock.acquire(True, -1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        finally:
            if worker is not None:
                (<Worker>worker).waits_for = None
                (<Worker>worker).step_back()
            if not acquired:
                self.remove_blocker(lock)
        if not acquired and not tg_ended(tg_word_load(&self.t.word)):
            raise TimeoutError(f"{self!r} has not ended after {timeout} s; it goes on (use cancel() to stop waiting "
                               "for good)")

    cdef bint add_blocker(self, object blocker) except -1:
        """False: the token has ended, nobody will release the blocker."""
        cdef uint32_t old
        cdef _Rare rare = self.needed()
        self.look()
        with cython.critical_section(self):
            if tg_ended(tg_word_load(&self.t.word)):
                return False
            if rare.blockers is None:
                rare.blockers = []
            rare.blockers.append(blocker)
            old = tg_word_announce(&self.t.word, TG_BLOCKED)
            if not tg_ended(old):
                return True
            # It ended between the two looks. With BLOCKED already set the ender comes for all of them; the list is
            # then its own to empty, and a lock released twice would be an error, so take ours back.
            _remove_identical(rare.blockers, blocker)
            return False

    cdef void remove_blocker(self, object blocker) except *:
        with cython.critical_section(self):
            if self.rare is not None:
                _remove_identical(self.rare.blockers, blocker)

    cdef void release_blockers(self) except *:
        cdef list waiting = None
        with cython.critical_section(self):
            if self.rare is not None:
                waiting = self.rare.blockers
                self.rare.blockers = None
        if waiting is None:
            return
        for blocker in waiting:
            if type(blocker) is Collector:
                (<Collector>blocker).note(self)
            elif type(blocker) is Roster:
                (<Roster>blocker).note_end(self)
            else:
                blocker.release()

    def watch_return(self, notify):
        """Call `notify()` once, as soon as the token has ended and its function, if it ever started, has returned.

        False: that is so already, and `notify` is not called. Unlike the end of a token that was cancelled while it
        executed, this says that nothing of it runs any more. `notify` is called on the thread that learns of it, most
        often a worker; it must not block, and what it raises is logged. Any thread; does not block.
        """
        cdef uint32_t old
        cdef list first = [notify]  # made out here, as in `needed`
        cdef _Rare rare = self.needed()
        self.look()
        with cython.critical_section(self):
            if tg_over(tg_word_load(&self.t.word)):
                return False
            if rare.watchers is None:
                rare.watchers = first
            else:
                rare.watchers.append(notify)
            old = tg_word_announce(&self.t.word, TG_WATCHED)
            if not tg_over(old):
                return True
            # It was over between the two looks. Where WATCHED was set already somebody comes for the list, but not
            # before this section is left.
            _remove_identical(rare.watchers, notify)
            return False

    def unwatch_return(self, notify):
        """Undoes one `watch_return`; `notify` may be being called at this moment. Any thread; does not block."""
        with cython.critical_section(self):
            if self.rare is not None:
                _remove_identical(self.rare.watchers, notify)

    cdef void tell_watchers(self) noexcept:
        cdef list watching = None
        with cython.critical_section(self):
            if self.rare is not None:
                watching = self.rare.watchers
                self.rare.watchers = None
        if watching is None:
            return
        for notify in watching:
            try:
                if type(notify) is Roster:
                    (<Roster>notify).note(self)
                else:
                    notify()
            except BaseException:
                _log.error("%r is over, and could not be announced to %r", self, notify, exc_info=True)

    # -- the Future protocol ----------------------------------------------------------------------------------------

    @property
    def _asyncio_future_blocking(self):
        return self.blocking

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, bint value):
        self.blocking = value

    cdef Link bind(self):
        """The way to its loop; a token made off any loop belongs to the first that asks."""
        cdef Link link = self.link
        if link is not None:
            return link
        loop = _running_loop()
        if loop is None:
            return None
        link = _link_to(loop)
        with cython.critical_section(self):
            if self.link is None:
                self.link = link
            return self.link

    def get_loop(self):
        """The event loop the token belongs to. RuntimeError where it has none, or the loop is gone."""
        cdef Link link = self.bind()
        loop = link.loop() if link is not None else None
        if loop is None:
            raise RuntimeError(f"{self!r} belongs to no living event loop")
        return loop

    def _begin_await(self):
        # Called by __await__ before anything is blocked.
        cdef Link link
        loop = require_loop(self)
        link = self.bind()
        if not link.leads_to(loop):
            raise RuntimeError(
                f"{self!r} belongs to another event loop ({link.loop()!r}) and was awaited on {loop!r}. "
                "Await it where it was created, or wait in a thread: asyncio.to_thread(token.result)"
            )
        if link.within:
            _check_within(self)
        self.blocking = True

    def add_done_callback(self, callback, *, context=None):
        """Call `callback(token)` on the token's loop once it has ended; at the loop's next turn if it already has.

        context: the `contextvars.Context` to call it in, by default a copy of the current one.
        RuntimeError where the token belongs to no loop. Any thread; does not block.
        """
        cdef Link link = self.bind()
        if link is None:
            raise RuntimeError(f"{self!r} belongs to no event loop yet, so there is nowhere to call {callback!r}: "
                               "call add_done_callback where a loop runs, or use result()")
        if link.within and PyFunction_Check(callback):
            _check_within(self)  # gather, say; a task that awaits has asked already, and could not be told here
        running = None
        if context is None:
            running = _running_loop()
            context = link.context_of_now(running) if running is not None and link.leads_to(running) else _own_context()
        elif not isinstance(context, contextvars.Context):
            raise TypeError(f"context={context!r}: expected a contextvars.Context or None")
        if self.store_callback(link, callback, context):
            return
        _disown(context)
        loop = self.get_loop()
        if running is None:  # else it was asked already; up to Python 3.11 that is a system call
            running = _running_loop()
        if running is loop:
            link.call_soon(loop, self, callback, context)
        else:
            loop.call_soon_threadsafe(callback, self, context=_given_out(context))

    cdef bint store_callback(self, Link link, object callback, object context) except -1:
        """False: the token has ended and delivers no more; the caller must call it."""
        cdef uint32_t old
        cdef list more
        cdef bint crowded = False
        if self.callback is not None:
            self.needed()
        self.look()
        with cython.critical_section(self):
            if self.delivered:
                return False
            if PyObject_GC_IsTracked(self):
                _disown(context)
            more = None if self.rare is None else self.rare.callbacks
            if self.callback is None and not more:
                self.callback = callback
                self.callback_context = context
            elif more is not None:
                more.append((callback, context))
            elif self.rare is not None:
                self.rare.callbacks = [(callback, context)]
            else:
                crowded = True  # another thread's has come since the first look
            if not crowded:
                old = tg_word_announce(&self.t.word, TG_WAITER)
                if not tg_ended(old) or old & TG_WAITER:
                    return True
                # [W4] it ended before anybody waited: no ender pushed it, so it is delivered from here on at once
                self.take_callbacks()
                self.delivered = True
                return False
        return self.store_callback(link, callback, context)

    def remove_done_callback(self, callback):
        """Remove all instances of a callback; returns how many there were. Any thread."""
        cdef Py_ssize_t removed = 0
        # Comparing runs the callbacks' own __eq__, which may do anything: on a snapshot, then by identity.
        for candidate in self.callback_snapshot():
            if candidate == callback:
                removed += self.remove_identical_callback(candidate)
        return removed

    cdef list callback_snapshot(self):
        cdef list found = []
        with cython.critical_section(self):
            if self.callback is not None:
                found.append(self.callback)
            if self.rare is not None and self.rare.callbacks is not None:
                for pair in self.rare.callbacks:
                    found.append((<tuple>pair)[0])
        return found

    cdef bint remove_identical_callback(self, object callback) except -1:
        cdef Py_ssize_t i
        cdef object gone = None
        cdef list more
        with cython.critical_section(self):
            more = None if self.rare is None else self.rare.callbacks
            if self.callback is callback:
                gone = self.callback_context
                self.callback = self.callback_context = None
            elif more is not None:
                for i in range(len(more)):
                    if (<tuple>more[i])[0] is callback:
                        gone = (<tuple>more[i])[1]
                        del more[i]
                        break
        _disown(gone)
        return gone is not None

    cdef void forget_callbacks(self):
        # Its loop is gone. What they refer to must not hang on a token the collector does not look at.
        with cython.critical_section(self):
            self.disown_callbacks()
            self.take_callbacks()

    cdef list take_callbacks(self):
        """Empties the callbacks; returns those after the first. In the token's critical section."""
        cdef list more = None
        self.callback = self.callback_context = None
        if self.rare is not None:
            more = self.rare.callbacks
            self.rare.callbacks = None
        return more

    cdef void deliver(self) except *:
        """Runs the callbacks. On the loop's thread, by the drain, once."""
        cdef object callback, context
        cdef list more
        with cython.critical_section(self):
            self.disown_callbacks()
            callback = self.callback
            context = self.callback_context
            more = self.take_callbacks()
            self.delivered = True
        if more is None:
            if callback is not None:
                self.call_back(callback, context)
            return
        pairs = more if callback is None else [(callback, context), *more]
        for i, (callback, context) in enumerate(pairs):
            try:
                self.call_back(callback, context)
            except BaseException:
                self.post(pairs[i + 1:])
                raise

    cdef void post(self, list more) except *:
        # A callback raised SystemExit or KeyboardInterrupt out of the drain: the others have their turn after it.
        loop = self.link.loop()
        for callback, context in more:
            if type(callback) is Collector:
                (<Collector>callback).note(self)
            elif loop is not None:
                loop.call_soon(callback, self, context=_given_out(context))

    cdef void call_back(self, object callback, object context) except *:
        if type(callback) is Collector:
            (<Collector>callback).note(self)
            return
        used = self.link.wardrobe.take(context)
        PyContext_Enter(used)
        try:
            callback(self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.link.loop().call_exception_handler({
                "message": f"Exception in callback {callback!r} of {self!r}",
                "exception": exc,
                "token": self,
            })
        finally:
            PyContext_Exit(used)
        if Py_REFCNT(used) == 1:
            self.link.wardrobe.put(context, used)
