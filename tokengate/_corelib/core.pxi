# The core of a coordinator: a pool, its operations, and the way in.

cdef class Core:
    """The compiled half of `tokengate.Coordinator`."""

    cdef tg_pool *pool
    cdef tg_pool *ids        # whose numbers its tokens get: its own, or, of a further lane, its coordinator's
    cdef dict lanes          # name -> Core of each further lane that has been used
    cdef object sent_lock    # None: tokens run on this lane's own threads; else see carrier.pxi
    cdef tg_timers *timers   # NULL: no token has had a deadline yet; made once, under the critical section
    cdef list rooms          # callables of who waits for room in a queue; under the critical section
    cdef uint32_t generation
    cdef uint32_t max_workers
    cdef dict operations     # name -> Operation
    cdef list workers        # the lane's book of them
    cdef object on_start, on_exit, on_fork
    cdef Keeper keeper       # the last one started; None: none was needed yet
    cdef int64_t lag_target  # ns; 0: the limit stays as it is
    cdef uint32_t initial, cpus
    cdef bytes ground        # the files that `cpus` follows from, as tg_ground.h takes them; None: it stays as it is
    cdef uint64_t print      # of them, from before they were read
    # id -> (Operation or None, callable): who waits for tokens to end. Whoever takes one out calls it; taking out is one
    # step of the dict's. (A critical section would not do: it is left while a list inside it is waited for.)
    cdef dict watches
    cdef bint refusing
    cdef int64_t nudging     # when a loop was asked to call _nudge at its next turn; 0: none is
    cdef bint reserves       # see _set_steering
    cdef bint immortal       # the default coordinator
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        self.operations = {}
        self.lanes = {}
        self.watches = {}
        self.rooms = []

    def _open_pool(self, uint32_t max_workers):
        """Makes the native pool; once, by the constructor, after `_set_steering`."""
        self.max_workers = max_workers
        self.generation = tg_generation()
        self.pool = self.new_pool()
        if self.ids is NULL:
            self.ids = self.pool

    def _set_steering(self, double lag_target, uint32_t cpus, bint reserves):
        """How the active limit will be steered. lag_target: seconds of loop lag to stay below, 0.0: the limit is always
        the number of workers. cpus: how many this process may use. reserves: nobody chose the number of workers, so that
        operations without a limit leave some of them to the others."""
        self.reserves = reserves
        self.lag_target = <int64_t>(lag_target * 1e9)
        if lag_target > 0.0 and self.lag_target == 0:
            self.lag_target = 1
        self.cpus = cpus
        self.initial = 1 if gil_enabled() else cpus

    def _stand_on(self, files):
        """From now on a change of these files (a list of bytes), or of the affinity, makes the keeper call
        `_cpus_changed`. Called before the files are read. Reads them, without the GIL."""
        cdef bytes ground = b"".join([each + b"\0" for each in files])
        cdef const char *paths = ground
        cdef uint64_t found
        with nogil:
            found = tg_ground_print(paths)
        with cython.critical_section(self):
            self.ground = ground
            self.print = found

    def _cpus_changed(self):
        """On the keeper's thread: count the CPUs again, and `_set_cpus`."""

    def _set_cpus(self, uint32_t cpus):
        """The number of CPUs this process may use is another one now. Any thread."""
        self.check()
        self.cpus = cpus
        self.initial = 1 if gil_enabled() else cpus
        tg_pool_cpus(self.pool, cpus, self.first_limit())

    @property
    def _cpus(self):
        """How many the active limit is steered by now. Any thread."""
        self.check()
        return tg_pool_cpus_now(self.pool)

    cdef uint32_t first_limit(self) noexcept:
        return self.initial if self.lag_target > 0 and self.initial < self.max_workers else self.max_workers

    cdef tg_pool *new_pool(self) except NULL:
        cdef uint32_t limit = self.first_limit()
        cdef tg_pool *pool
        pool = tg_pool_new(self.max_workers, limit)
        if pool is NULL:
            raise MemoryError("no memory for a coordinator's queues")
        tg_pool_steer(pool, self.lag_target, limit, self.cpus, gil_enabled())
        tg_pool_reserve(pool, self.reserves)
        return pool

    def __dealloc__(self):
        if self.pool is NULL:
            return
        if self.generation == tg_generation():
            # Dropped without stop(): its tokens have ended (each holds its core), so the workers may leave.
            tg_pool_close(self.pool)
            tg_pool_release(self.pool)
            if self.timers is not NULL:
                tg_timers_close(self.timers)
                tg_timers_release(self.timers)
        # else: inherited by a forked child; its locks are in an unknown state and its memory stays where it is

    cdef void renew(self) except *:
        """In a forked child: starts afresh, with new queues and nobody else's tokens."""
        with _renew_lock:
            if self.generation == tg_generation():
                return
            self.pool = self.ids = self.new_pool()
            self.lanes = {}
            if self.sent_lock is not None:
                self.sent_lock = threading.RLock()
            self.keeper = None
            if self.refusing:
                tg_pool_refuse(self.pool)
            self.watches = {}
            self.rooms = []
            self.timers = NULL
            for operation in self.operations.values():
                (<Operation>operation).keys = None
                (<Operation>operation).seat = None
                (<Operation>operation).keys_lock = threading.RLock()
                (<Operation>operation).ptr = self.new_op(<Operation>operation)
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

    cdef Core lane(self, str name):
        """The core of a further lane, opened on first use. Any thread."""
        self.check()  # before its lanes are looked at: a forked child has none yet
        core = self.lanes.get(name)
        return core if core is not None else self._open_lane(name)

    def _lane_core(self, str name):
        """This core for "thread", else that of the further lane, opened on first use."""
        return self if name == "thread" else self.lane(name)

    @property
    def _lanes(self):
        """name -> core of each further lane that has been used."""
        return self.lanes

    def _review(self, Seat seat, fn, args, kwargs):
        """Whether an operation with lane="auto" is in the right lane, at this call. On the caller's thread."""

    def _seat_of(self, str name):
        """The Seat of an operation that has been called with lane="auto", else None."""
        return (<Operation>self.operations[name]).seat

    def _measured(self, str name):
        """(runs [(ns by the clock, ns of CPU)], how often a worker was found in it, and that holding the GIL, tokens that
        lived at a time) as its workers and the keeper have seen of late."""
        cdef Operation operation
        cdef tg_op_view v
        self.check()
        operation = self.operations[name]
        tg_pool_look_op(self.pool, operation.record(), &v)
        return ([(operation.walls[i], operation.cpus[i]) for i in range(min(operation.sampled, <uint64_t>SAMPLES))],
                v.looks, v.held, operation.crowd)

    def _is_quiet(self, str name):
        """None of the operation's tokens is left, and none of its functions runs."""
        cdef tg_op *op = (<Operation>self.operations[name]).record()
        return tg_op_live(op) == 0 and tg_counted(&op.started) == tg_counted(&op.returned)

    def _open_lane(self, name):
        """Makes the core of a further lane, or finds it made meanwhile."""
        raise NotImplementedError

    # -- operations -------------------------------------------------------------------------------------------------

    cdef tg_op *new_op(self, Operation operation) except NULL:
        cdef uint64_t hint = _HINTS.get(operation.tags.get("weight"), _HINTS["light"])
        cdef tg_policy policy
        cdef tg_op *ptr
        _native_policy(operation.rules(), &policy)
        ptr = tg_pool_add_op(self.pool, hint, &policy)
        if ptr is NULL:
            raise MemoryError("no memory for an operation's queue")
        return ptr

    cdef Operation operation(self, str name, object tags, Policy policy):
        """The operation of that name, made with these tags and this policy on first use. Any thread."""
        cdef Operation operation = self.operations.get(name)
        if operation is not None:
            return operation
        operation = self.new_operation(name, tags, policy)
        if len(self.operations) < MAX_OPERATIONS or name in self.operations:
            return self.enter(operation)
        operation.shared = self.operations.get(OTHER)
        if operation.shared is None:
            operation.shared = self.enter(self.new_operation(OTHER, _frozen({}), _no_policy))
        return operation

    cdef Operation new_operation(self, str name, object tags, Policy policy):
        cdef Operation operation = Operation()
        operation.name = name
        operation.tags = tags
        operation.keys_lock = threading.RLock()
        operation.adopt(policy)
        return operation

    cdef Operation enter(self, Operation operation):
        """Into the books, unless another thread was first: then that thread's."""
        operation.ptr = self.new_op(operation)  # of one that comes too late nothing will ever know
        with cython.critical_section(self):
            # one step, which lets nobody in between; making what is entered may run anything
            return self.operations.setdefault(operation.name, operation)

    # -- the way in -------------------------------------------------------------------------------------------------

    cdef TokenBase make(self, type token_class, Operation operation, object tags, bint plain, object fn, tuple args,
                        dict kwargs, object context=None):
        """A token in state CREATED. plain: nothing in the tags can refer to anything else. context: to run the function in;
        None: who sets it on its way gives it one."""
        # not through __init__, which is there to refuse
        cdef TokenBase token = <TokenBase>(<PyTypeObject*>token_class).tp_new(token_class, (), NULL)
        tg_token_init(&token.t, operation.record(), <void*>token, tg_pool_new_id(self.ids), self.generation)
        token.core = self
        token.op = operation
        token.labels = tags
        token.enclosed = self.immortal and plain
        token.fn = fn
        token.sole = len(args) == 1
        if token.sole:
            token.args = args[0]
        else:
            token.args = args
        token.kwargs = kwargs
        token.context = context
        token.place = -1
        # Until it ends, the queue, the ring or a worker holds a reference that the garbage collector cannot see, so
        # looking at it would only tell it what is so anyway: nothing it refers to can be garbage. With a million tokens
        # waiting these looks were half of what a token cost. TokenBase.track brings it back.
        PyObject_GC_UnTrack(token)
        return token

    cdef TokenBase spawn(self, type token_class, Operation operation, object tags, bint plain, Terms asked,
                         object receiver, object fn, tuple args, dict kwargs, Packed packed=None):
        """A token on its way. Any thread; `check` comes first."""
        return self.launch(self.make(token_class, operation, tags, plain, fn, args, kwargs), operation, asked, receiver,
                           packed)

    cdef TokenBase launch(self, TokenBase token, Operation operation, Terms asked, object receiver, Packed packed=None):
        """Sets a token that has been made on its way. packed: its call, where it has been pickled already."""
        cdef InlineBlock block = None
        cdef PyObject *deadline = NULL
        loop = _running_loop()
        if loop is not None:
            token.link = _link_to(loop)
            tg_pool_meet(self.pool, token.link.port)
            token.caller_name = token.link.caller(loop)
        if token.context is None:
            token.context = _own_context() if loop is None else token.link.context_of_now(loop)
        token.t.created = tg_now()
        PyContextVar_Get(_deadline_var, NULL, &deadline)
        if asked is not None or operation.terms is not None or deadline is not NULL:
            if not _dress(self, token, operation, asked, receiver, deadline):
                return token
        if tg_inline_open():
            block = _inline_block()
            if block is not None:
                if block.call(self, token):
                    return token
        if self.sent_lock is not None:
            (<RemoteCore>self).pack(token, block is not None, packed)
            if tg_ended(tg_word_load(&token.t.word)):
                return token
        if not self.hand_over(token, False) and not _overflow(self, token, operation):
            return token
        if token.t.extra is not NULL:
            _arm(self, token, 0)
        if block is not None:
            block.remember(token)
        return token

    cdef inline bint hand_over(self, TokenBase token, bint patient) except -1:
        """patient: no older one has to make room. False: the pool did not take it; it has ended, or its operation's queue
        is full."""
        cdef tg_token *t = &token.t
        cdef tg_receipt receipt
        tg_lend(token)  # the queue's reference
        receipt = tg_pool_submit(self.pool, t.op, &t, 1, patient, t.created)
        if receipt.shed is not NULL:
            _end_shed(self, receipt.shed)
        if receipt.taken:
            self.carry_out(receipt.summons)
            return True
        Py_DECREF(token)
        self.carry_out(receipt.summons)
        if receipt.closed:
            self.refuse(token)
        return False

    cdef void refuse(self, TokenBase token) except *:
        """A token the pool did not take ends at once, and is counted."""
        tg_count(&token.t.op.rejected)
        token.end(TG_KILLED, CoordinatorStopped(
            f"{self!r} is stopped and takes no new tokens; start() it again to use it"))

    cdef inline void carry_out(self, tg_summons summons) except *:
        """Does what the pool asked for after it let go of its lock: wake one worker, or start one."""
        if summons.wake is not NULL:
            if self.sent_lock is None:
                tg_unpark(&summons.wake.parker)
            else:
                (<RemoteCore>self).wake(summons.wake)
        elif summons.start:
            self.start_worker()
        if summons.room:
            _announce_room(self)
        if summons.keeper:
            self.call_keeper()

    cdef void call_keeper(self) except *:
        """The pool wants to be looked at: wakes its keeper, or starts one."""
        cdef Keeper keeper
        if not tg_keeper_call(self.pool):
            keeper = self.keeper
            if keeper is not None:
                keeper.call()
            return
        keeper = None
        try:
            keeper = Keeper(self, self.on_start, self.on_exit)
            self.keeper = keeper
            keeper.call()
            self.workers.append(keeper)
            _start_thread(keeper.run, keeper.handle)
        except BaseException:
            # Whoever calls next tries again; until then the limit stays where it is. Not an error: where the system has no
            # thread to give, there are none to be let in either.
            _remove_identical(self.workers, keeper)
            tg_keeper_gone(self.pool)
            _log.debug("the keeper of %r could not be started", self, exc_info=True)

    cdef void replace_later(self, tg_op *op) except *:
        """A run was abandoned: another worker may take its place. On a loop's thread not before the loop's next turn: who
        cancels a thousand tokens in a row would otherwise start, one after the other, what is about to be cancelled."""
        cdef int64_t now
        cdef bint asked
        loop = _running_loop()
        if loop is None:
            self.carry_out(tg_pool_abandon(self.pool, op, tg_now()))
            return
        tg_pool_abandon_quietly(self.pool, op)
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
            _start_thread(worker.run, worker.handle)
        except BaseException as error:
            _remove_identical(self.workers, worker)
            self._start_failed(str(error))

    def _start_failed(self, str why):
        """No thread could be started. Without any worker, what waits can never run, and ends here saying so."""
        if tg_pool_start_failed(self.pool) == 0:
            self._kill_waiting(TokenKilled, f"no worker could be started: {why}")

    # -- administration ---------------------------------------------------------------------------------------------

    def _kill_waiting(self, type error, str reason, name=None):
        """Ends every token of the operation (None: of all) that has not started with an `error(reason)` of its own;
        returns how many. What others submit meanwhile it may leave to wait."""
        cdef Py_ssize_t ended = 0
        self.check()
        if name is not None:
            ended = self.kill_waiting((<Operation>self.operations[name]).ptr, error, reason)
        elif self.refusing:
            ended = self.kill_waiting(NULL, error, reason)
        else:  # each for itself: those that others submit of one must not be taken for those that wait of another
            for each in list(self.operations.values()):
                ended += self.kill_waiting((<Operation>each).ptr, error, reason)
        self.carry_out(tg_pool_nudge(self.pool, tg_now()))  # who waits for room
        return ended

    cdef Py_ssize_t kill_waiting(self, tg_op *only, type error, str reason) except -1:
        cdef tg_token *found[64]
        cdef size_t i, count
        # Who submits may be faster than this. A pool that takes nothing more has to be empty in the end.
        cdef size_t left = <size_t>-1 if self.refusing else tg_pool_unstarted(self.pool, only)
        cdef TokenBase token
        cdef Py_ssize_t ended = 0
        while left > 0:
            count = tg_pool_detach(self.pool, only, found, min(left, <size_t>64))
            if count == 0:
                break
            left -= count
            for i in range(count):
                token = <TokenBase>found[i].owner
                Py_DECREF(token)  # the queue's reference [P5]; `token` holds one
                # a ring entry may have been started meanwhile by a worker that waits for it: that one runs
                ended += token.end(TG_KILLED, error(reason), True)
        return ended

    def _find(self, uint64_t number):
        """The token of that number, if it has not started, else None."""
        cdef tg_token *t
        cdef tg_token *ended[64]
        cdef size_t i, count = 64
        cdef TokenBase token
        self.check()
        while count == 64:
            count = tg_pool_recall(self.pool, ended, 64)
            for i in range(count):
                token = <TokenBase>ended[i].owner
                Py_DECREF(token)  # the ring's reference [P5]
        t = tg_pool_find(self.pool, number, tg_hold)
        self.carry_out(tg_pool_nudge(self.pool, tg_now()))
        if t is NULL:
            return None
        token = <TokenBase>t.owner
        Py_DECREF(token)  # the reference that tg_hold took
        return token

    def _waiting_tokens(self):
        """The tokens that have not started, oldest first. A snapshot."""
        cdef tg_token *ended[64]
        cdef tg_token **found = NULL
        cdef size_t i, room = 0, count = 64
        cdef list tokens = []
        self.check()
        while count == 64:
            count = tg_pool_recall(self.pool, ended, 64)
            for i in range(count):
                Py_DECREF(<TokenBase>ended[i].owner)  # the ring's reference [P5]
        while True:
            count = tg_pool_list(self.pool, found, room, tg_hold)
            tokens = []
            for i in range(min(count, room)):
                token = <TokenBase>found[i].owner
                Py_DECREF(token)  # the reference that tg_hold took
                tokens.append(token)
            PyMem_Free(found)
            if count <= room:
                break
            room = count + 64
            found = <tg_token**>PyMem_Malloc(room * sizeof(tg_token*))
            if found is NULL:
                raise MemoryError("no memory for a list of the tokens that wait")
        self.carry_out(tg_pool_nudge(self.pool, tg_now()))
        tokens.sort(key=_number)
        return tokens

    def _pause(self, name, bint paused):
        cdef tg_op *only = NULL
        cdef InlineBlock block
        self.check()
        if name is not None:
            only = (<Operation>self.operations[name]).ptr
        if not paused and tg_inline_open():
            block = _inline_block()
            if block is not None:
                tg_pool_pause_quietly(self.pool, only, False)
                block.run_waiting(self)
                return
        self.carry_out(tg_pool_pause(self.pool, only, paused))

    def _tags_of(self, str name):
        return (<Operation>self.operations[name]).tags

    def _policy(self, str name):
        return (<Operation>self.operations[name]).rules()

    def _introduce(self, str name, tags, Policy policy):
        """Makes an operation that has not run yet."""
        self.check()
        self.operation(name, tags, policy)

    def _set_policy(self, str name, Policy policy):
        """Gives an operation another policy."""
        cdef Operation operation
        cdef InlineBlock block
        cdef tg_policy native
        self.check()
        operation = self.operations[name]
        operation.adopt(policy)
        _native_policy(policy, &native)
        if tg_inline_open():
            block = _inline_block()
            if block is not None:
                tg_pool_configure_quietly(self.pool, operation.ptr, &native)
                block.run_waiting(self)
                return
        self.carry_out(tg_pool_configure(self.pool, operation.ptr, &native))

    def _refuse_new(self):
        self.check()
        self.refusing = True
        tg_pool_refuse(self.pool)
        _announce_room(self)

    def _close_pool(self):
        self.check()
        self.refusing = True
        tg_pool_close(self.pool)
        if self.timers is not NULL:
            tg_timers_close(self.timers)

    def _reopen_pool(self):
        self.check()
        self.refusing = False
        if self.timers is not NULL:
            tg_timers_open(self.timers)
        tg_pool_open(self.pool)

    def _resize_pool(self, uint32_t max_workers):
        cdef tg_summons summons
        self.check()
        self.max_workers = max_workers
        self.reserves = False  # this number has been chosen
        tg_pool_reserve(self.pool, False)
        tg_pool_resize(self.pool, max_workers, max_workers, &summons)
        self.carry_out(summons)

    def _restart_pool(self, uint32_t max_workers):
        """The numbers of a pool that is not in use, after `_set_steering`."""
        cdef tg_summons summons
        cdef uint32_t limit
        self.check()
        self.max_workers = max_workers
        for operation in self.operations.values():
            (<Operation>operation).seat = None  # the lanes are new ones
        limit = self.first_limit()
        tg_pool_steer(self.pool, self.lag_target, limit, self.cpus, gil_enabled())
        tg_pool_reserve(self.pool, self.reserves)
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
        self.watches[id(watch)] = watch
        self.check_watches()
        return watch

    def _unwatch(self, watch):
        """False if it had been called already."""
        if self.watches.pop(id(watch), None) is None:
            return False
        tg_pool_watch(self.pool, False)
        return True

    cdef void check_watches(self) except *:
        for watch in list(self.watches.values()):
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

    def _knows(self, str name):
        return name in self.operations

    def _look(self):
        """(workers, idle, max_workers, limit, queued, admitted, wakes, cpu_seconds, cuts, last_reason) of the pool."""
        cdef tg_pool_view v
        self.check()
        tg_pool_look(self.pool, &v)
        if self.keeper is not None:
            self.keeper.log(self)
        return (v.workers, v.idle, v.max_workers, v.limit, v.queued, v.admitted, v.wakes, v.cpu_seconds, v.cuts,
                _REASONS[v.reason])

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
            "shed": tg_counted(&op.shed),
            "abandoned_now": abandoned,
            "abandoned_total": tg_counted(&op.abandoned_total),
            "oldest_wait": (now - v.oldest) * 1e-9 if v.oldest else 0.0,
            "wait": _durations(&op.times.wait, now),
            "run": _durations(&op.times.run, now),
        }


cdef void _native_policy(Policy policy, tg_policy *out) except *:
    out.limit = policy.limit or 0
    out.key_limit = policy.key_limit
    out.max_waiting = policy.max_waiting or 0
    out.priority = policy.priority
    out.overflow = {"reject": TG_REJECT, "shed_oldest": TG_SHED_OLDEST, "block": TG_BLOCK}[policy.overflow]


def _number(TokenBase token):
    return token.t.id


cdef bint _plain(object tags) except -1:
    for value in tags.values():
        if PyObject_IS_GC(value):
            return False
    return True


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
