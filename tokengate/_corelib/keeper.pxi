# The keeper's thread: steers the pool from outside. Nearly all of it is native (tg_keeper.h); it attaches to the
# interpreter only for what needs it, starting a worker or writing to the log.

cdef tuple _REASONS = (
    "initial limit",
    "raised: the workers sleep",
    "raised: capacity is left",
    "raised: to see whether the workers hold the GIL",
    "cut: the event loop starved",
    "cut: more workers burn CPU than there are CPUs",
    "lowered: fewer do as much with less lag",
    "lowered: the last step up brought nothing",
    "idle: back to the initial limit",
    "resized",
)


@cython.final
cdef class Keeper:
    """What the keeper's thread runs. It holds the pool, never the coordinator: a coordinator nobody holds can go."""

    cdef tg_pool *pool
    cdef tg_keeper *k
    cdef uint32_t generation
    cdef uint64_t logged     # changes of the limit written to the log so far
    cdef bytes ground        # alive for as long as the native half looks at it
    cdef object core_ref, on_start, on_exit
    cdef readonly object thread_ident
    cdef readonly object handle  # of the thread; None before Python 3.13

    def __cinit__(self, Core core, on_start, on_exit):
        """on_start(keeper) runs on the keeper's thread first, on_exit(keeper) last."""
        core.check()
        self.pool = tg_pool_retain(core.pool)
        self.generation = core.generation
        self.core_ref = weakref.ref(core)
        self.on_start = on_start
        self.handle = _new_handle()
        self.on_exit = on_exit
        self.k = tg_keeper_new(self.pool)
        if self.k is NULL:
            raise MemoryError("no memory for the keeper of a coordinator")
        self.stand(core)

    def __dealloc__(self):
        if self.pool is NULL or self.generation != tg_generation():
            return  # in a forked child: its locks are in an unknown state
        if self.k is not NULL:
            tg_keeper_free(self.k)
        tg_pool_release(self.pool)

    @property
    def token(self):
        """None: it runs no functions."""
        return None

    @property
    def tokens(self):
        """Empty, as above."""
        return []

    cdef void stand(self, Core core):
        self.ground = core.ground
        if self.ground is not None:
            tg_keeper_stand(self.k, self.ground, core.print)

    cdef void call(self):
        """The pool asks for the keeper. On the thread that has carried the summons here."""
        tg_keeper_want_log(self.k, _log.isEnabledFor(_DEBUG))

    def run(self):
        """The body of the keeper's thread."""
        cdef tg_errand errand
        cdef tg_summons summons
        cdef bint left = False
        cdef Core core
        self.thread_ident = threading.get_ident()
        try:
            self.on_start(self)
            while True:
                # Detached here: it sleeps, looks and steers without Python objects.
                with nogil:
                    errand = tg_keeper_run(self.k, &summons)
                if errand == TG_KEEPER_LEAVE:
                    left = True
                    return
                core = self.core_ref()
                if core is None:
                    continue  # dropped without stop(): the pool is closing
                if errand == TG_KEEPER_ACT:
                    try:
                        core.carry_out(summons)
                    except BaseException:
                        _log.error("a worker could not be started", exc_info=True)
                elif errand == TG_KEEPER_CPUS:
                    try:
                        core._cpus_changed()
                    except BaseException:
                        _log.error("the CPUs could not be counted again", exc_info=True)
                    self.stand(core)
                self.log(core)
                core = None
        finally:
            if self.generation == tg_generation():
                if not left:
                    tg_keeper_gone(self.pool)
                self.on_exit(self)

    cdef void log(self, object core) except *:
        cdef tg_change change[TG_POOL_CHANGES]
        cdef size_t i, n
        if not _log.isEnabledFor(_DEBUG):
            return
        with cython.critical_section(self):
            n = tg_pool_changes(self.pool, &self.logged, change)
        for i in range(n):
            _log.debug("%r: active limit of the thread lane %d -> %d, %s (%.2f CPUs used, starved lag %.1f ms)", core,
                       change[i].from_, change[i].to, _REASONS[change[i].reason], change[i].busy, change[i].level * 1e-6)
