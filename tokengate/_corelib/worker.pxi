# A worker of the thread lane: waits without the GIL, then runs token after token, keeping it.

cdef enum:
    DEEP = 32  # runs within runs on one stack; each takes a few frames of Python's recursion limit
    SAMPLE_NS = 1_000_000  # between two runs whose CPU time a worker measures: the clock costs as much as a short token
    SWITCH_NS = 5_000_000  # a callable that never enters Python code would otherwise never let another thread in


cdef class Debtor:
    """A thread that ends tokens and wakes the loops they are awaited on a little later."""

    # A loop that was told at once would wake to wait for the GIL, which this thread is about to let go, or about to use for its
    # next token. The debt must be settled before anything that waits, runs code of others, or ends the thread: until then that
    # loop is told of nothing, by nobody.
    cdef tg_bell *owed  # of the loop to wake; the thread's own

    def __dealloc__(self):
        self.settle_debt()

    cdef void owe(self, tg_bell *bell):
        self.settle_debt()
        self.owed = tg_bell_retain(bell)

    cdef inline void settle_debt(self) noexcept nogil:
        if self.owed is not NULL:
            tg_bell_ring(self.owed)
            tg_bell_release(self.owed)
            self.owed = NULL


@cython.final
cdef class Worker(Debtor):
    """What one worker thread runs. It holds the pool, never the coordinator: a coordinator nobody holds can go."""

    cdef tg_pool *pool
    cdef tg_worker *w
    cdef uint32_t generation
    cdef TokenBase current   # innermost first; the thread's own
    cdef int64_t lent        # ns of nested runs inside the current one
    cdef int64_t attached    # when it last let other threads in
    cdef bint shares         # there is a GIL, which it shares with others
    cdef int64_t sampled     # when it last measured the CPU time of a run
    cdef bint measures       # it does: there is a GIL, and a clock of this thread's CPU time
    cdef tg_port *port       # of the loop that the last token's waiter is on
    cdef int64_t waited      # the wake-up of that loop that has been waited for
    cdef readonly object thread_ident
    cdef readonly object handle  # of the thread; None before Python 3.13
    cdef object on_start, on_exit, on_fork
    cdef _Wardrobe wardrobe
    cdef list outer          # the tokens below the current one, outermost first; under the critical section
    cdef object waits_for    # tokens its function is blocked on, for as long as it takes; under _waiting_lock
    cdef bint any_will_do    # it goes on as soon as one of them has ended, else only when all have
    cdef bint until_return   # and their functions have returned
    cdef readonly bint visits  # it runs on a thread of somebody else's, for one token: see inline.pxi
    cdef int aside           # > 0: its function waits for tokens and does not count as active

    def __cinit__(self, Core core, on_start, on_exit, on_fork):
        """on_start(worker) runs on the worker's thread first; on_exit(worker) last, or on_fork() in a forked child."""
        core.check()
        self.pool = tg_pool_retain(core.pool)
        self.generation = core.generation
        self.wardrobe = _Wardrobe()
        self.on_start = on_start
        self.handle = _new_handle()
        self.on_exit = on_exit
        self.on_fork = on_fork

    def __dealloc__(self):
        if self.pool is not NULL and self.generation == tg_generation():
            tg_pool_release(self.pool)
        if self.port is not NULL:
            tg_port_release(self.port)

    @property
    def index(self):
        """Number of the worker in its lane, from 0; a successor takes it over."""
        return 0 if self.w is NULL else self.w.index

    @property
    def token(self):
        """The token it executes, or None. A snapshot; any thread."""
        with cython.critical_section(self):
            return self.current

    @property
    def tokens(self):
        """The tokens whose functions are on its stack, the one that runs last. A snapshot; any thread."""
        with cython.critical_section(self):
            if self.current is None:
                return []
            return [self.current] if self.outer is None else [*self.outer, self.current]

    def run(self):
        """The body of the worker's thread."""
        cdef tg_token *t
        cdef int64_t awake
        self.w = tg_pool_enter(self.pool)
        if self.w is NULL:
            tg_pool_start_failed(self.pool)  # the next submission tries again
            self.on_exit(self)
            raise MemoryError("no memory for a worker")
        self.thread_ident = threading.get_ident()
        _set_thread_value("tokengate.worker", self)
        if gil_enabled():
            self.shares = True
            tg_watch_own_gil(self.pool, self.w)
            self.measures = tg_clock_cpu(self.w.clock) >= 0
        try:
            try:
                self.on_start(self)
            except Exception:
                # A worker that could not be pinned still works; dying here would take its tokens along.
                _log.warning("worker %d could not be set up as asked and runs without", self.w.index, exc_info=True)
            while True:
                # Detached here: waiting, picking and parking touch no Python object.
                with nogil:
                    self.settle_debt()
                    t = tg_pool_wait(self.pool, self.w)
                    awake = tg_now()
                if t is NULL:
                    return
                self.attached = tg_now()
                tg_pool_attached(self.pool, self.attached - awake)
                if not self.work(t):
                    # A function forked, and has now returned in the child, whose only Python thread this was. What it
                    # started there ends as at interpreter exit, or the child would live on without anybody in it.
                    self.on_fork()
                    return
        finally:
            if self.generation == tg_generation():
                self.on_exit(self)

    cdef bint work(self, tg_token *t) except -1:
        """Runs `t` and what follows until nothing is left to take. False: this is a forked child, touch nothing."""
        cdef tg_summons summons = tg_pool_claimed(self.pool, self.w)
        cdef TokenBase token
        cdef Core core = (<TokenBase>t.owner).core
        cdef tg_op *op
        cdef int64_t charge, run, now
        cdef bint late = False, python
        cdef uint32_t seen = 0
        cdef tg_start how
        while t is not NULL:
            self.settle_debt()
            token = <TokenBase>t.owner
            if summons.wake is not NULL or summons.start or summons.room or summons.keeper:
                self.carry_out(token.core, summons)
            op = t.op
            charge = t.charge
            if tg_op_barred(op):
                how = tg_pool_start(self.pool, t)
            elif tg_word_try_start(&t.word).moved:
                how = TG_STARTED
                tg_count(&op.started)
            else:
                how = TG_NOT_STARTED
            if how == TG_PUT_BACK:
                token = None
                t = tg_pool_again(self.pool, self.w, tg_now(), &summons)
                continue
            Py_DECREF(token)  # the ring's reference [P5]; `token` holds one
            if how == TG_NOT_STARTED:
                token = None
                t = tg_pool_skip(self.pool, self.w, op, charge, tg_now(), &summons)
                continue
            python = PyFunction_Check(token.fn)
            if token.link is not None and token.link.port is not self.port:
                self.turn_to(token.link.port)
            run = self.execute(token, &late, &now)
            if self.generation != tg_generation():
                return False
            if core is not token.core:  # without a GIL all workers count it on one line
                core = token.core
            token = None
            if (self.shares and self.port is not NULL and tg_port_due(self.port, now, self.waited, &seen)
                    and (tg_port_late(self.port, now) or tg_pool_alone(self.pool))):
                self.let_loop_go_first(seen)
            if self.aside:
                # it ran an event loop of its own
                self.aside = 0
                tg_pool_back(self.pool, op)
                _set_thread_value("tokengate.link", None)  # the next function to run this loop steps aside again
            t = tg_pool_next(self.pool, self.w, op, charge, run, late, now, &summons)
            if t is not NULL and not python and now - self.attached > SWITCH_NS:
                # Python code lets waiting threads in by itself; a C function does not. Once in a switch interval.
                with nogil:
                    pass
                self.attached = tg_now()
        if summons.wake is not NULL or summons.start or summons.room or summons.keeper:
            self.carry_out(core, summons)
        self.wardrobe.clear()  # idle, it holds nobody's values
        return True

    cdef void turn_to(self, tg_port *port):
        tg_port_retain(port)
        if self.port is not NULL:
            tg_port_release(self.port)
        self.port = port
        self.waited = 0

    cdef void let_loop_go_first(self, uint32_t seen):
        # Once for each wake-up: a loop that is stuck must not stop the workers.
        cdef int64_t awake
        self.waited = tg_inbox_armed_at(&self.port.box)
        with nogil:
            self.settle_debt()
            tg_port_await(self.port, seen)
            awake = tg_now()
        self.attached = tg_now()
        tg_pool_attached(self.pool, self.attached - awake)

    cdef void carry_out(self, Core core, tg_summons summons):
        # Whatever goes wrong in starting another worker, this one has a token in hand and goes on.
        try:
            core.carry_out(summons)
        except BaseException:
            _log.error("a further worker could not be started", exc_info=True)

    cdef int64_t execute(self, TokenBase token, bint *late, int64_t *ended) noexcept:
        """Runs the function of a token whose edge into EXECUTING we won. Returns the ns it ran. Nothing that the
        function, its exception or its waiters do comes out of here."""
        cdef tg_token *t = &token.t
        cdef tg_op *op = t.op
        cdef TokenBase outer = self.current
        cdef int64_t lent = self.lent, run, started, cpu = -1
        cdef tg_op *around = NULL
        cdef Seat seat = token.op.seat
        cdef uint32_t to = TG_COMPLETED
        cdef tg_step step
        # [W2] ours now
        cdef object fn = tg_take_fn(token), args = tg_take_args(token), kwargs = tg_take_kwargs(token)
        cdef object context = tg_take_context(token)
        cdef object value = None, used = None
        cdef bint sole = token.sole
        with cython.critical_section(self):  # partner: the properties `token` and `tokens`, read by reports
            self.current = token
            if outer is not None:
                self.outer = [outer] if self.outer is None else [*self.outer, outer]
        self.lent = 0
        if self.w is not NULL:
            around = tg_worker_running(self.w)
            tg_worker_runs(self.w, op)
        started = tg_now()
        tg_stamp(&t.started, started)
        if t.extra is not NULL and t.extra.run_timeout:
            self.limit_run(token, started + t.extra.run_timeout)
        if self.measures and started - self.sampled >= SAMPLE_NS:
            self.sampled = started
            cpu = tg_clock_cpu(self.w.clock)
        try:
            used = self.wardrobe.take(context)
            PyContext_Enter(used)
            try:
                if sole:
                    value = fn(args) if kwargs is None else fn(args, **<dict>kwargs)
                else:
                    value = fn(*<tuple>args) if kwargs is None else fn(*<tuple>args, **<dict>kwargs)
            finally:
                PyContext_Exit(used)
            if Py_REFCNT(used) == 1:
                self.wardrobe.put(context, used)
        except BaseException as error:
            to = TG_FAILED
            value = _failure(token, error)
        if cpu >= 0 and self.lent == 0:
            token.op.sample(tg_now() - started, tg_clock_cpu(self.w.clock) - cpu)
        _disown(context)
        fn = args = kwargs = context = used = None
        with cython.critical_section(self):
            self.current = outer
            if outer is not None:
                self.outer = self.outer[:len(self.outer) - 1] or None
        t.finished = tg_now()
        ended[0] = t.finished
        run = t.finished - started
        if self.generation != tg_generation():
            return run  # the function forked and returned in the child: nothing here is ours
        if self.w is not NULL:
            tg_worker_runs(self.w, around)
        if seat is not None and seat.curious and to == TG_COMPLETED:
            seat.taste(value)
        token.track(value)
        token.value = value  # [W3]
        value = None
        step = tg_word_finish(&t.word, to)
        token.give_place(&op.returned)
        late[0] = not step.moved
        if step.moved:
            tg_hist_record(&op.times.wait, <uint64_t>(started - t.created), <uint64_t>t.finished)
            tg_hist_record(&op.times.run, <uint64_t>run, <uint64_t>t.finished)
            try:
                token.announce(to, step.old, t.finished, self)
            except BaseException:
                # a loop that refuses to be woken, no memory for a waiter: theirs is lost, the worker is not
                _log.error("the end of a token could not be announced", exc_info=True)
        else:
            if to == TG_FAILED and type(token.value) is Failure:
                (<Failure>token.value).retrieved = True  # nobody can ask for it any more
            token.value = None  # the late outcome is dropped
            tg_op_abandoned_add(op, -1)
            if tg_word_returned(&t.word) & TG_WATCHED:
                token.tell_watchers()
        # what it ran for others while it waited is theirs
        run -= self.lent
        self.lent = lent + (t.finished - started)
        return run

    cdef void limit_run(self, TokenBase token, int64_t until):
        try:
            _arm(token.core, token, until)
        except BaseException:
            _log.error("%r runs without the limit of its run time", token, exc_info=True)

    cdef bint help(self, TokenBase token) except -1:
        """Runs a token this worker is about to block on, if it has not started. True: it has ended."""
        cdef tg_token *t = &token.t
        cdef bint late = False
        cdef int64_t now
        cdef uint32_t was = 0
        cdef tg_summons summons
        if token.core is None or token.core.pool is not self.pool or t.generation != self.generation:
            return False
        if self.outer is not None and len(self.outer) >= DEEP and tg_pool_replaceable(self.pool):
            return False  # this stack is deep enough: another worker takes it while this one waits
        if not tg_pool_help(self.pool, t, tg_now(), &was, &summons):
            return False
        if was == TG_WAITING:
            Py_DECREF(token)  # the queue's reference [P5]
        self.carry_out(token.core, summons)
        self.execute(token, &late, &now)
        if self.generation != tg_generation():
            return False
        self.settle_debt()
        if tg_op_gated(t.op):
            self.carry_out(token.core, tg_pool_freed(self.pool, t.op, now))
        if late:
            # the account of abandoned runs is the pool's; the worker itself goes on with the outer token
            tg_pool_unabandon(self.pool)
        return True

    def step_aside(self):
        """The function is about to wait for other tokens: its worker gives up its place among the active ones, so that
        they can run. Until as many `step_back`, or until the function returns. On the worker's own thread."""
        if self.current is None:
            return
        self.aside += 1
        if self.aside == 1:
            self.current.core.carry_out(tg_pool_aside(self.pool, self.current.t.op, tg_now()))

    def step_back(self):
        """Takes the place again. On the worker's own thread."""
        if self.aside > 0:
            self.aside -= 1
            if self.aside == 0 and self.generation == tg_generation():
                tg_pool_back(self.pool, self.current.t.op)

cdef object _failure(TokenBase token, object error):
    # The exception is the user's own and may be as badly behaved as it likes: nothing here may raise.
    cdef Failure failure
    try:
        failure = Failure(token.translated(error), None if token.link is None else token.link.loop_ref,
                          f"token {token.t.id} of {token.op.name}")
        failure.retrieved = not token.reports()
        return failure
    except BaseException:
        return Failure(error, None, "a token")


cdef str _told(object error):
    try:
        text = str(error)
    except BaseException:
        return ""
    return f": {text}" if text else ""


def current_token():
    """The token whose function runs on this thread, or None outside a worker. Does not block."""
    worker = _thread_value("tokengate.worker")
    if worker is None:
        stand_in = _thread_value("tokengate.stand_in")
        return None if stand_in is None else stand_in()
    return (<Worker>worker).current


def stand_in(current):
    """On this thread, which is no worker, `current()` gives the current token: in a worker process, whose tokens live in
    its parent."""
    _set_thread_value("tokengate.stand_in", current)


def current_worker():
    """The worker this thread is, or None; None in a forked child of one."""
    worker = _thread_value("tokengate.worker")
    return worker if worker is not None and (<Worker>worker).generation == tg_generation() else None
