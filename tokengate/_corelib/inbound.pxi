# Finished tokens on their way back to an event loop.
#
# One Link per event loop. Workers push ended tokens that somebody awaits; the first to arrive wakes the loop once; the
# loop drains in slices. Nothing here ever blocks a worker, and a loop that is closed or gone simply has no waiters.

cdef enum:
    STALE_NS = 100_000_000
    SLICE_NS = 1_000_000  # a drain that has run this long lets the loop's other callbacks go first
    BACKLOG = 256         # so many tokens of an operation live: the loop comes for what has ended by itself
    PAUSE_NS = 1_000_000  # after so long

_links = weakref.WeakKeyDictionary()  # event loop -> Link; guarded by _links_lock
_links_lock = threading.Lock()

if hasattr(os, "register_at_fork"):
    # another thread may hold it while the process forks
    os.register_at_fork(after_in_child=_links_lock._at_fork_reinit)


@cython.final
cdef class Link:
    """The way from workers to one event loop."""

    cdef tg_port *port       # its native half: inbox, bell, lag
    cdef tg_token *first     # drained from the box, not delivered yet; the loop's thread only
    cdef tg_token *last
    cdef void *loop_address  # compared only while `alive`; an address alone may be reused
    cdef bint alive
    cdef bint apart          # workers run while the loop does: there is no GIL
    cdef bint within         # the loop was first seen inside a function that a worker runs
    cdef bint deaf           # the loop has dropped its reader: it was closed
    cdef object loop_ref
    cdef _Snapshot snapshot   # of the context that calls are being made in; the loop's thread only, as the next two
    cdef void *vars          # the mapping of that context; compared only, unless `snapshot` holds it
    cdef int alike           # calls and callbacks made in it in a row
    cdef _Wardrobe wardrobe   # for what is called back
    cdef list late           # tokens that had ended when callbacks were added, each followed by one and its context;
    cdef object late_handle  # the loop's handle that will call them, and the first callback; the loop's thread only
    cdef object late_callback
    cdef object context      # empty: drains belong to nobody; each callback runs in its own
    cdef object task_ref     # the task that last called on this loop, weakly, and its name; the loop's thread only
    cdef str task_name
    cdef object __weakref__

    def __cinit__(self, loop):
        self.port = tg_port_new(tg_bell_new())
        if self.port is NULL:
            raise MemoryError("no memory for the way to an event loop")
        if loop is _running_loop():
            tg_port_adopt(self.port)
        self.loop_address = <void*>loop
        self.alive = True
        self.apart = not gil_enabled()
        self_ref = weakref.ref(self)

        def loop_gone(_, self_ref=self_ref):
            link = self_ref()
            if link is not None:
                (<Link>link).gone()

        self.loop_ref = weakref.ref(loop, loop_gone)
        self.context = contextvars.Context()
        self.wardrobe = _Wardrobe()
        cdef _Listener listener
        if self.port.bell is not NULL:
            listener = _Listener(self)
            try:
                # not in the context of whoever comes first, which the loop would then keep for good
                self.context.run(loop.add_reader, self.port.bell.fd, listener)
            except NotImplementedError:  # a loop that does not watch descriptors
                listener.link = None  # it was never with the loop, so its going says nothing
                tg_bell_release(self.port.bell)
                self.port.bell = NULL  # woken by call_soon_threadsafe

    def __dealloc__(self):
        if self.port is not NULL:
            tg_port_mute(self.port)
            tg_port_release(self.port)

    cdef str caller(self, object loop):
        """Name of the task that runs on the loop, or None. On the loop's thread."""
        task = _current_task(loop)
        if task is None:
            return None
        if self.task_ref is None or self.task_ref() is not task:
            self.task_ref = weakref.ref(task)
            self.task_name = str(task.get_name())
        return self.task_name

    cdef object context_of_now(self, object loop):
        """For what is called, or is to be called back, from here on the loop: the context it is to run in, or a _Snapshot.
        On the loop's thread."""
        cdef void *now = tg_vars_now()
        cdef _Snapshot made
        if now is NULL or now != self.vars:
            self.forget_snapshot()
            self.vars = now
        elif self.snapshot is not None:
            return self.snapshot
        self.alike += 1
        if self.alike <= ALIKE or now is NULL or not _can_share:
            return _own_context()
        made = _Snapshot()
        # not kept for longer than calls are made in one go: it holds the values of all context variables
        loop.call_soon(self._forget_snapshot, context=self.context)
        # A finalizer, or a loop of another kind, may have called from another context meanwhile.
        if self.vars == now and self.snapshot is None:
            self.snapshot = made
        return made

    cdef void forget_snapshot(self) noexcept:
        cdef _Snapshot gone = self.snapshot  # dropped last: values may have finalizers, which run anything
        self.snapshot = None
        self.vars = NULL
        self.alike = 0

    def _forget_snapshot(self):
        self.forget_snapshot()

    cdef inline bint leads_to(self, object loop):
        # The weak reference's callback clears `alive` before the loop's memory can be reused.
        return self.alive and self.loop_address == <void*>loop

    cdef object loop(self):
        return self.loop_ref() if self.alive else None

    cdef object open_loop(self):
        """The loop, or None where it is gone or closed."""
        loop = self.loop()
        return None if loop is None or loop.is_closed() else loop

    cdef void gone(self):
        self.alive = False
        tg_port_close(self.port)
        self.drop()

    cdef void drop(self):
        # The waiters are gone with their loop; the references their tokens had here end.
        # No drain can be running, but several workers may find the loop closed at once.
        cdef tg_token *t
        cdef tg_token *rest
        with cython.critical_section(self):
            self.collect()
            rest = self.first
            self.first = self.last = NULL
        while rest is not NULL:
            t = rest
            rest = t.next
            t.next = NULL
            (<TokenBase>t.owner).forget_callbacks()
            Py_DECREF(<object>t.owner)

    cdef inline void collect(self):
        cdef tg_token *t = tg_inbox_take(&self.port.box)
        if t is NULL:
            return
        if self.first is NULL:
            self.first = t
        else:
            self.last.next = t
        while t.next is not NULL:
            t = t.next
        self.last = t

    cdef void push(self, TokenBase token, int64_t now, Debtor by) except *:
        """An ended token that has a waiter on this loop. Any thread; `by`: who ended it and rings the bell itself, soon, or None."""
        Py_INCREF(token)
        if tg_inbox_push(&self.port.box, &token.t, now):
            self.wake(by)
        elif self.deaf:
            self.drop()
        elif now - tg_inbox_armed_at(&self.port.box) > STALE_NS:
            # Woken long ago and not drained: a loop that is stuck, or one that was closed in between and never will.
            if self.open_loop() is None:
                self.drop()

    cdef void wake(self, Debtor by) except *:
        loop = self.open_loop()
        if loop is None:
            self.drop()
        elif self.port.bell is not NULL and by is not None:
            by.owe(self.port.bell)
        elif self.port.bell is not NULL:
            tg_bell_ring(self.port.bell)
        else:
            try:
                loop.call_soon_threadsafe(self.drain, context=self.context)
            except RuntimeError:
                if not loop.is_closed():
                    raise
                self.drop()

    cdef void unheard(self):
        # The loop was closed: what lies in the box would keep itself, its waiters and with them the loop alive.
        self.deaf = True
        self.late = self.late_handle = self.late_callback = None
        self.forget_snapshot()
        tg_port_close(self.port)
        self.drop()

    def drain(self):
        """Delivers ended tokens to their waiters, in the order they ended. On the loop's thread only."""
        cdef int64_t begun = tg_now()
        cdef int delivered = 0
        cdef bint busy = False
        cdef tg_token *t
        cdef TokenBase token
        tg_port_answer(self.port, begun)
        self.collect()
        self.forget_snapshot()
        try:
            while self.first is not NULL:
                t = self.first
                self.first = t.next
                t.next = NULL
                token = <TokenBase>t.owner
                Py_DECREF(token)  # the box's reference; `token` holds one
                token.deliver()
                delivered += 1
                if delivered & 15 == 0 and tg_now() - begun > SLICE_NS:
                    break
            busy = delivered != 0 and self.apart and tg_op_live(token.t.op) >= BACKLOG
        finally:
            self.wardrobe.clear()
            # also when a callback raised SystemExit or KeyboardInterrupt: the others must not be lost
            if self.first is not NULL and tg_inbox_arm(&self.port.box, tg_now()):
                loop = self.open_loop()
                if loop is not None:
                    loop.call_soon(self.drain, context=self.context)
            elif busy and tg_inbox_arm(&self.port.box, begun + PAUSE_NS):
                # Where workers run beside the loop each token would wake it, and push a worker off its CPU, though
                # hundreds more are to come that the same awaiter waits for.
                loop = self.open_loop()
                if loop is None:
                    pass
                elif not -0.05 < loop.time() - begun * 1e-9 < 0.05:  # a clock of its own: that of a test, say, and stopped
                    loop.call_soon(self.drain, context=self.context)
                else:
                    loop.call_later(PAUSE_NS * 1e-9, self.drain, context=self.context)

    cdef void call_soon(self, object loop, TokenBase token, object callback, object context) except *:
        """Calls back an ended token's callback at the loop's next turn, in the order of loop.call_soon. On the loop's
        thread."""
        # Thousands come in a row, when tokens are gathered. They can share a handle of the loop's while none of its others is
        # behind that. Where that cannot be seen (uvloop), those share one that are the same callback: gather's, say, whose
        # order among others nobody could tell, for it was up to the workers which tokens had ended by then.
        ready = getattr(loop, "_ready", None)
        if self.late is None or not (self.late_callback is callback if type(ready) is not _deque else
                                     ready and ready[len(ready) - 1] is self.late_handle):
            if loop.get_debug():  # it tells which callback was slow
                loop.call_soon(callback, token, context=_given_out(context))
                return
            late = []
            self.late_handle = loop.call_soon(self._call_late, late, context=self.context)
            self.late_callback = callback
            self.late = late
        self.late.append(token)
        self.late.append(callback)
        self.late.append(context)

    def _call_late(self, list late):
        """What `call_soon` has put off. On the loop's thread."""
        cdef Py_ssize_t i = 0
        cdef TokenBase token
        if self.late is late:
            self.late = self.late_handle = self.late_callback = None
        try:
            while i < len(late):
                token, callback, context = <TokenBase>late[i], late[i + 1], late[i + 2]
                late[i] = late[i + 1] = late[i + 2] = None  # gone once it has been called, as the loop's handles are
                i += 3
                token.call_back(callback, context)
        finally:
            self.wardrobe.clear()
            if i < len(late):  # a callback raised SystemExit or KeyboardInterrupt: the others come first when the loop goes on
                loop = self.open_loop()
                if loop is not None:
                    handle = loop.call_soon(self._call_late, late[i:], context=self.context)
                    ready = getattr(loop, "_ready", None)
                    if type(ready) is _deque and ready[len(ready) - 1] is handle:
                        ready.rotate(1)

    def busy(self):
        """CPU seconds per second that the loop's thread uses by itself, 0.0 to 1.0, over about the last second."""
        return tg_port_busy(self.port, tg_now())

    def lag_view(self):
        """Loop lag: (count, mean, max, p50, p99) in s over the last minute."""
        cdef tg_hist_view v
        tg_hist_snapshot(&self.port.lag, <uint64_t>tg_now(), &v)
        return (v.count, v.mean * 1e-9, v.max * 1e-9, v.p50 * 1e-9, v.p99 * 1e-9)


@cython.final
cdef class _Listener:
    """The loop's reader callback. The loop lets go of it when it is closed, and in that way tells the link."""

    cdef Link link

    def __cinit__(self, Link link):
        self.link = link

    def __repr__(self):
        # what a loop in debug mode calls slow, where a callback of a token was
        return "<tokengate: callbacks of ended tokens>"

    def __call__(self):
        tg_bell_clear(self.link.port.bell)
        self.link.drain()

    def __del__(self):
        if self.link is not None:
            self.link.unheard()


def require_loop(what):
    """The event loop that runs on this thread; RuntimeError, naming what was to be awaited, where there is none."""
    loop = _running_loop()
    if loop is None:
        raise RuntimeError(
            f"{what if isinstance(what, str) else repr(what)} was awaited where no asyncio event loop runs. Under trio use "
            "anyio with its asyncio backend, or trio.to_thread.run_sync with what blocks (token.result, say)"
        )
    return loop


def links():
    """The links of all event loops that are alive."""
    with _links_lock:
        return [link for link in _links.values()]


cdef Link _link_to(object loop):
    """The link of an event loop, made on first use. Any thread."""
    cdef object cached = _thread_value("tokengate.link")
    cdef Link link
    if cached is not None and (<Link>cached).leads_to(loop):
        return <Link>cached
    with _links_lock:
        link = _links.get(loop)
        if link is None:
            link = Link(loop)
            _links[loop] = link
    _set_thread_value("tokengate.link", link)
    worker = current_worker()
    if worker is not None:
        # A function that runs an event loop of its own will wait there for tokens; with its place kept, the last worker
        # would wait for itself.
        link.within = True
        (<Worker>worker).step_aside()
    return link
