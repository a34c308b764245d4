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

    def __cinit__(self, Core core, on_start, on_exit):
        """on_start(self) runs on the thread first, on_exit(self) last; not in a forked child."""
        self.timers = tg_timers_retain(core.timers)
        self.generation = core.generation
        self.on_start = on_start
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
