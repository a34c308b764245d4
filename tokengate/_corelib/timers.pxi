# The thread that ends tokens whose deadline has passed.

cdef enum:
    DUE = 64  # tokens taken from the timers under one lock


@cython.final
cdef class Timekeeper:
    """What the timers' thread runs. It holds the timers, never the coordinator: a coordinator nobody holds can go."""

    cdef tg_timers *timers
    cdef uint32_t generation
    cdef object on_start, on_exit
    cdef readonly object thread_ident
    cdef readonly object handle  # of the thread; None before Python 3.13

    def __cinit__(self, Core core, on_start, on_exit):
        """on_start(self) runs on the thread first, on_exit(self) last; not in a forked child."""
        self.timers = tg_timers_retain(core.timers)
        self.generation = core.generation
        self.on_start = on_start
        self.handle = _new_handle()
        self.on_exit = on_exit

    def __dealloc__(self):
        if self.timers is not NULL and self.generation == tg_generation():
            tg_timers_release(self.timers)

    @property
    def token(self):
        """None: it runs no functions."""
        return None

    @property
    def tokens(self):
        """Empty, as above."""
        return []

    def run(self):
        """The body of the thread."""
        self.thread_ident = threading.get_ident()
        try:
            self.on_start(self)
            self.keep()
        finally:
            if self.generation == tg_generation():
                self.on_exit(self)

    cdef void keep(self) except *:
        cdef tg_token *due[DUE]
        cdef size_t count, i
        cdef bint going
        cdef TokenBase token
        while True:
            with nogil:
                going = tg_timers_wait(self.timers)
            if not going:
                return
            while True:
                count = tg_timers_due(self.timers, tg_now(), due, DUE, tg_hold)
                if count == 0:
                    break
                for i in range(count):
                    token = <TokenBase>due[i].owner
                    Py_DECREF(token)  # the reference that tg_hold took; `token` holds one
                    try:
                        token.end(TG_EXPIRED, None)
                    except BaseException:
                        # a loop that refuses to be woken, no memory: this one's waiter is lost, the others are not
                        _log.error("the expiry of a token could not be announced", exc_info=True)
                    token = None


cdef void _arm(Core core, TokenBase token, int64_t run_until) except *:
    """Sets the timer of a token that has been handed over; run_until: not 0: as it starts, for its run_timeout."""
    cdef tg_extra *extra = token.t.extra
    cdef int64_t deadline = run_until if run_until else tg_stamped(&extra.deadline)
    cdef int debt
    if deadline == 0:
        return
    if core.timers is NULL:
        _make_timers(core)
    debt = tg_timers_arm(core.timers, extra, deadline)
    if tg_ended(tg_word_load(&token.t.word)):
        tg_timers_disarm(core.timers, extra)  # who ended it may have looked before there was anything to disarm
    if debt == TG_TIMERS_WAKE:
        tg_timers_wake(core.timers)
    elif debt == TG_TIMERS_START:
        _start_timekeeper(core)
    elif debt == TG_TIMERS_NO_MEMORY:
        raise MemoryError("no memory for a deadline")


cdef void _disarm(Core core, TokenBase token):
    """The token has ended. By who ended it, who holds it."""
    if core.timers is not NULL and tg_stamped(&token.t.extra.deadline) != 0:
        tg_timers_disarm(core.timers, token.t.extra)


cdef void _make_timers(Core core) except *:
    cdef tg_timers *timers = tg_timers_new()
    if timers is NULL:
        raise MemoryError("no memory for deadlines")
    with cython.critical_section(core):
        if core.timers is NULL:
            core.timers = timers
            timers = NULL
    if timers is not NULL:
        tg_timers_release(timers)


cdef void _start_timekeeper(Core core) except *:
    # As with workers: no Python code between the timers' choice and the thread's existence.
    cdef Timekeeper keeper = None
    try:
        keeper = Timekeeper(core, core.on_start, core.on_exit)
        core.workers.append(keeper)
        _start_thread(keeper.run, keeper.handle)
    except BaseException:
        _remove_identical(core.workers, keeper)
        tg_timers_start_failed(core.timers)
        _log.error("no thread could be started for deadlines: they are not kept until one can be", exc_info=True)
