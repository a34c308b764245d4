# The compiled half of a remote lane: a pool whose workers are carriers, threads that run no function themselves but send
# tokens to where they run (a process, an interpreter) and finish them as replies come. What moves the bytes is in
# tokengate/lanes.
#
# A carrier claims a few tokens ahead. They stay ADMITTED, and can be taken back, until the worker has begun them: that is
# decided by one compare-and-swap on the board (tg_board.h). Two locks, taken in this order:
#   drive      of a carrier: who claims and sends for it, in order. Its own thread, or a submitter that finds it idle.
#   sent_lock  of the lane: which carrier holds which token. Around each claim, each revocation and each ending edge, so that
#              no token can end, as never started, while it is being sent. Nothing of the user's runs under it, except
#              finalizers, which may end tokens: it is reentrant.

cdef enum:
    WINDOW = 128                 # tokens sent and not answered, at most
    AHEAD_NS = 2_000_000         # ns of expected work sent ahead at least,
    FAR_AHEAD_NS = 10_000_000    # and at most, where
    DEPTH = 8                    # times as much waits for each worker: nothing then depends on who takes which
    FLUSH_NS = 1_000_000         # a worker tells of what it has finished after so long at least,
    FLUSHES = 3                  # and so many times within what is sent ahead
    UNKNOWN_NS = 1_000_000       # what a run is expected to take before one has been measured
    LONG_NS = 5_000_000          # nothing is sent ahead behind a run expected to be longer
    AT_ONCE = 32_768             # bytes; a submitter that sends by itself must not block
    MOST_REFS = 4_096            # functions remembered, with their tags
    BARREN = 10                  # workers in a row that may die before they begin what they were sent
    DEADLY = 3                   # deaths in a row that quarantine an operation

DEADLY_RUNS = DEADLY

_loads = _dumps = None  # of pickle, imported with the first remote lane


cdef void _load_pickle() except *:
    global _loads, _dumps
    if _loads is None:
        import pickle
        _dumps = pickle.dumps
        _loads = pickle.loads


_SIMPLE = frozenset((bool, int, float, str, type(None)))


@cython.final
cdef class Ref:
    """What a remote worker must know of the calls of one function: sent to it once, then named by its number."""

    cdef readonly object fn, labels
    cdef readonly unsigned int number
    cdef readonly object definition  # a pickle

    def __cinit__(self, fn, labels, unsigned int number, definition):
        self.fn = fn
        self.labels = labels
        self.number = number
        self.definition = definition


@cython.final
cdef class Packed:
    """A call as it travels; stands for its function in the token. Called, it runs here (tokengate.testing.inline)."""

    cdef readonly Ref ref
    cdef readonly object payload   # None: no arguments; bytes: a pickle; or a tuple of a pickle and its buffers
    cdef Py_ssize_t size
    cdef object call               # (fn, args, kwargs), where it may be run here, or None

    def __cinit__(self, Ref ref, payload, Py_ssize_t size):
        self.ref = ref
        self.payload = payload
        self.size = size

    def __call__(self):
        fn, args, kwargs = self.call
        return fn(*args, **(kwargs or {}))


cdef class RemoteCore(Core):
    """The compiled half of `tokengate.lanes.remote.RemoteLane`."""

    cdef dict refs          # (id of the function, id of its tags, operation) -> Ref, which keeps both alive
    cdef dict travelling    # the context variables whose values go along, by name

    def __cinit__(self, *args, **kwargs):
        _load_pickle()
        self.sent_lock = threading.RLock()
        self.refs = {}

    def _share_ids(self, Core home):
        """Numbers its tokens together with another core's."""
        self.ids = tg_pool_retain(home.pool)

    def __dealloc__(self):
        if self.ids is not NULL and self.ids is not self.pool and self.generation == tg_generation():
            tg_pool_release(self.ids)

    def _set_travelling(self, dict travelling):
        self.travelling = travelling

    def _known_ref(self, fn, str operation, tags):
        return self.refs.get((id(fn), id(tags), operation))

    def _keep_ref(self, Ref ref, str operation):
        if len(self.refs) >= MOST_REFS:
            self.refs.clear()  # functions made on the fly; whoever is still called is defined anew
        self.refs[id(ref.fn), id(ref.labels), operation] = ref

    # -- in ---------------------------------------------------------------------------------------------------------

    cdef Packed packed(self, Operation operation, object fn, tuple args, dict kwargs, object labels):
        """A call as it travels. Raises what cannot."""
        cdef Ref ref = operation.ref
        cdef object payload = None
        cdef Py_ssize_t size = 0
        if ref is None or ref.fn is not fn or ref.labels is not labels:
            found, args = self._refer(fn, args, operation.name, labels)
            ref = <Ref?>found
            operation.ref = ref
        if kwargs or self.travelling or not _simple(args):
            payload, size = self._payload(fn, args, kwargs)
        elif args:
            payload = _dumps(args, 5)
            size = len(<bytes>payload)
        return Packed(ref, payload, size)

    cdef void pack(self, TokenBase token, bint keep, Packed packed=None) except *:
        """Before a token is handed over: its call is pickled, on the caller's thread, so that what cannot be is told there.
        packed: that has been done."""
        cdef Operation operation = token.op
        cdef object quarantine = operation.books().quarantine
        try:
            if quarantine is not None:
                tg_count(&token.t.op.rejected)
                token.end(TG_KILLED, quarantine)
                return
            if packed is None:
                packed = self.packed(operation, token.fn, token.positional(), token.kwargs, token.labels)
        except BaseException:
            token.let_key_go()
            token.drop_call()
            raise
        if keep:
            packed.call = (token.fn, token.positional(), token.kwargs)
        token.fn = packed
        token.args = ()
        token.sole = False
        token.kwargs = None
        if not keep:
            _disown(token.context)
            token.context = None  # what travels of it is in the payload

    cdef void wake(self, tg_worker *w) except *:
        """A worker was chosen for what has just been submitted: sends it from here if that is easy, else wakes the carrier."""
        for each in list(self.workers):
            if isinstance(each, Carrier) and (<Carrier>each).w is w:
                if (<Carrier>each).send_at_once():
                    return
                break
        tg_worker_wake(w)

    cdef void start_worker(self) except *:
        cdef Carrier carrier = None
        try:
            carrier = self._new_carrier()
            self.workers.append(carrier)
            _start_thread(carrier.run, carrier.handle)
        except BaseException as error:
            _remove_identical(self.workers, carrier)
            self._start_failed(str(error))

    cdef list carriers(self):
        return [each for each in list(self.workers) if isinstance(each, Carrier)]

    # -- ending what has been sent ----------------------------------------------------------------------------------

    cdef Carrier holder(self, TokenBase token):
        """The carrier that has sent this token, or None. Under sent_lock."""
        for each in self.carriers():
            if (<Carrier>each).slot_of(token) >= 0:
                return <Carrier>each
        return None

    cdef Carrier before_end(self, TokenBase token):
        """Before the ending edge of a token, under sent_lock: takes it back from its worker, or finds that it has started
        and who has it."""
        cdef uint32_t state = tg_state_of(tg_word_load(&token.t.word))
        cdef Carrier carrier
        if state != TG_ADMITTED and state != TG_EXECUTING:
            return None  # it is admitted before sent_lock is taken to send it
        carrier = self.holder(token)
        if carrier is not None and not carrier.take_back(token):
            carrier.begun(token, tg_now())
            return carrier
        return None

    # -- administration ---------------------------------------------------------------------------------------------

    def _recall(self, name=None):
        """What has been sent and not begun, of that operation (None: of all), goes back to its queue."""
        cdef tg_op *only = NULL
        if name is not None:
            only = (<Operation>self.operations[name]).ptr
        with self.sent_lock:
            for each in self.carriers():
                (<Carrier>each).recall(only)

    def _kill_waiting(self, type error, str reason, name=None):
        self.check()
        self._recall(name)
        return Core._kill_waiting(self, error, reason, name)

    def _find(self, uint64_t number):
        self.check()
        self._recall()
        return Core._find(self, number)

    def _pause(self, name, bint paused):
        Core._pause(self, name, paused)
        if paused:
            self._recall(name)

    def _set_policy(self, str name, Policy policy):
        Core._set_policy(self, name, policy)
        self._recall(name)
        self.carry_out(tg_pool_nudge(self.pool, tg_now()))

    def _quarantine(self, str name, error):
        """Refuses the operation's calls with `error`; None: takes them again."""
        cdef Operation operation = self.operations[name]
        operation.quarantine = error
        operation.deaths = 0

    def _quarantined(self, str name):
        return (<Operation>self.operations[name]).quarantine


cdef class Carrier(Debtor):
    """The compiled half of `tokengate.lanes.remote.RemoteWorker`: one thread, one worker elsewhere. It holds the pool, never
    the core: a lane nobody holds can go."""

    cdef tg_pool *pool
    cdef tg_worker *w
    cdef tg_board *board
    cdef Py_buffer view           # of the memory the board is in
    cdef bint viewed
    cdef uint32_t generation
    cdef readonly object drive, sent_lock
    cdef list slots               # what has been sent and not answered, at number % TG_BOARD_SLOTS
    cdef int64_t expected[TG_BOARD_SLOTS]  # ns each is expected to run
    cdef int64_t ahead            # sum of them
    cdef int64_t reach            # how much of that may be sent ahead now
    cdef Py_ssize_t held          # how many
    cdef Py_ssize_t lengthy       # of them are expected to be long
    cdef uint64_t oldest, next    # numbers: of the first that may be unanswered, of the one to be sent next
    cdef set known                # numbers of the Refs the worker has been told
    cdef set proven               # addresses of the operations of which its worker has finished a run
    cdef tg_op *latest            # the last of them
    cdef readonly bint left       # it has left the pool
    cdef readonly bint ready      # its worker can be sent tokens
    cdef list again               # declared begun, but their worker died before it was: to be sent to the next
    cdef bint away                # another carrier has taken its place
    cdef int barren               # workers in a row that died before they began what they had been sent
    cdef Core seen                # of the last token claimed; within `_gather` only
    cdef readonly object thread_ident
    cdef readonly object handle   # of the thread; None before Python 3.13

    def __cinit__(self, RemoteCore core):
        core.check()
        self.pool = tg_pool_retain(core.pool)
        self.generation = core.generation
        self.sent_lock = core.sent_lock
        self.drive = threading.Lock()
        self.slots = [None] * TG_BOARD_SLOTS
        self.known = set()
        self.proven = set()
        self.again = []
        self.next = self.oldest = 1
        self.reach = AHEAD_NS
        self.handle = _new_handle()

    def __dealloc__(self):
        if self.viewed:
            PyBuffer_Release(&self.view)
        if self.pool is not NULL and self.generation == tg_generation():
            tg_pool_release(self.pool)

    @property
    def index(self):
        """Number of the worker in its lane, from 0; a successor takes it over."""
        return 0 if self.w is NULL else self.w.index

    @property
    def tokens(self):
        """The tokens whose functions its worker runs: one or none. A snapshot; any thread."""
        cdef uint64_t number
        cdef list found = []
        with self.sent_lock:
            for number in range(self.oldest, self.next):
                token = self.slots[number % TG_BOARD_SLOTS]
                if token is not None and self.has_begun(number):
                    self.begun(<TokenBase>token, tg_now())
                    found.append(token)
            found = found[len(found) - 1:]  # those before it have returned, and their replies are on the way
            found += self.again
        return found

    @property
    def place(self):
        """Where its tokens run, for reports. Any thread."""
        return "another interpreter"

    def _attach(self, memory):
        """A board for the next worker. On the carrier's thread, before the worker exists; nothing is held then."""
        cdef Py_buffer view
        PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
        if view.len < <Py_ssize_t>sizeof(tg_board):
            PyBuffer_Release(&view)
            raise ValueError(f"a board needs {sizeof(tg_board)} bytes")
        with self.sent_lock:
            if self.viewed:
                PyBuffer_Release(&self.view)
            self.view = view
            self.viewed = True
            self.board = <tg_board*>view.buf
            self.known = set()
            self.proven = set()
            self.latest = NULL
            self.next = self.oldest = 1
            self.ready = True

    def _enter(self, int wake_fd):
        """Joins the pool. wake_fd: what the pool writes eight bytes to when there is work for an idle carrier; 0: none.
        On the carrier's thread, first."""
        self.thread_ident = threading.get_ident()
        self.w = tg_pool_enter(self.pool)
        if self.w is NULL:
            tg_pool_start_failed(self.pool)
            raise MemoryError("no memory for a worker")
        self.w.wake_fd = wake_fd

    # -- out: from the pool to the worker -----------------------------------------------------------------------------

    cdef Py_ssize_t slot_of(self, TokenBase token):
        cdef uint64_t number
        for number in range(self.oldest, self.next):
            if self.slots[number % TG_BOARD_SLOTS] is token:
                return <Py_ssize_t>number
        return -1

    cdef inline bint has_begun(self, uint64_t number):
        return tg_board_is(self.board, number, TG_SLOT_BEGUN) or tg_board_is(self.board, number, TG_SLOT_DECLARED)

    cdef bint has_window(self):
        if self.held == 0:
            return True
        if not self.ready:  # its worker is about to end
            return False
        if self.next - self.oldest >= TG_BOARD_SLOTS - 1 or self.held >= WINDOW + 2 or self.lengthy:
            return False
        return self.held < 2 or self.ahead < self.reach

    cdef int64_t look_ahead(self):
        """How much work is to be sent ahead, for what waits now. The more, the fewer wake-ups and changes of threads, and the
        longer this thread may wait for the GIL before its worker has nothing to do."""
        cdef int64_t share = tg_pool_backlog(self.pool, UNKNOWN_NS, FAR_AHEAD_NS * DEPTH) // DEPTH
        return max(share, AHEAD_NS)

    cdef tg_token *claim(self, tg_summons *summons) except? NULL:
        """The next token to send, ADMITTED; NULL: none, or no more should be. Under drive and sent_lock."""
        cdef tg_token *t
        cdef tg_op *op
        cdef TokenBase token
        cdef bint left = False
        cdef int64_t charge
        cdef tg_start how
        cdef tg_summons more
        while not self.left and self.has_window():
            if self.held == 0:
                t = tg_pool_poll(self.pool, self.w, &left)
                if left:
                    self.left = True
                if t is not NULL:
                    _merge(summons, tg_pool_claimed(self.pool, self.w))
            else:
                t = tg_pool_fetch(self.pool, self.w, tg_now(), &more)
                _merge(summons, more)
            if t is NULL:
                return NULL
            op = t.op
            charge = t.charge
            token = <TokenBase>t.owner
            self.seen = token.core
            how = tg_pool_keep(self.pool, t)
            if how == TG_STARTED:
                return t
            if how == TG_NOT_STARTED:
                Py_DECREF(token)  # the ring's reference [P5]; `token` holds one
                tg_pool_uncharge(self.pool, op, charge)
        return NULL

    def _gather(self, Py_ssize_t most=WINDOW):
        """Claims what is to be sent now: (first number, Refs the worker does not know, Ref numbers, payloads, ids, deadlines,
        bytes, us after which the worker should tell), or None. Numbers count up from the first. Under `drive`."""
        cdef tg_summons summons
        cdef tg_token *t
        cdef TokenBase token
        cdef Packed packed
        cdef Core core = None
        cdef uint64_t first = self.next
        cdef list news = None, refs = [], payloads = [], ids = [], deadlines = []
        cdef bint dated = False, again
        cdef int64_t deadline
        cdef Py_ssize_t size = 0
        summons.wake = NULL
        summons.start = summons.room = summons.keeper = False
        if most > 1:
            self.reach = self.look_ahead()
        with self.sent_lock:
            while len(refs) < most and size <= AT_ONCE:  # more than that fills the pipe by itself
                again = self.held == 0 and len(self.again) != 0
                if again:
                    token = <TokenBase>self.again.pop(0)
                    t = &token.t
                else:
                    t = self.claim(&summons)
                    if t is NULL:
                        break
                    token = <TokenBase>t.owner
                packed = <Packed?>token.fn
                self.enter_slot(token)
                if not again:
                    Py_DECREF(token)  # the ring's reference [P5]; the slot holds one
                if packed.ref.number not in self.known:
                    self.known.add(packed.ref.number)
                    if news is None:
                        news = []
                    news.append(packed.ref)
                refs.append(packed.ref.number)
                payloads.append(packed.payload)
                ids.append(t.id)
                size += packed.size
                deadline = 0 if t.extra is NULL else tg_stamped(&t.extra.deadline)
                dated = dated or deadline != 0
                deadlines.append(deadline)
            core = self.seen or self.core_of_sent()
            self.seen = None
        if core is not None:  # else there was nothing in the pool that others could be summoned for
            self.carry_out(core, summons)
        if not refs:
            return None
        return (first, news, refs, payloads, ids, deadlines if dated else None, size,
                max(FLUSH_NS, self.reach // FLUSHES) // 1000)

    cdef Core core_of_sent(self):
        """Of what has been sent and not answered; None: nothing has. Under sent_lock."""
        if self.oldest == self.next:
            return None
        return (<TokenBase?>self.slots[self.oldest % TG_BOARD_SLOTS]).core

    cdef void enter_slot(self, TokenBase token) except *:
        # Whoever is sent to an idle worker is begun: the worker is at it as soon as it wakes.
        cdef uint64_t number = self.next
        cdef bint idle = self.held == 0
        cdef int64_t expected = tg_pool_expected(self.pool, token.t.op, UNKNOWN_NS)
        self.slots[number % TG_BOARD_SLOTS] = token
        self.expected[number % TG_BOARD_SLOTS] = expected
        self.ahead += expected
        self.lengthy += expected > LONG_NS
        self.held += 1
        self.next = number + 1
        tg_board_send(self.board, number, TG_SLOT_DECLARED if idle else TG_SLOT_SENT)
        if idle:
            self.begun(token, tg_now())

    cdef TokenBase leave_slot(self, uint64_t number):
        cdef object token = self.slots[number % TG_BOARD_SLOTS]
        if token is None or number < self.oldest or number >= self.next:
            return None
        self.slots[number % TG_BOARD_SLOTS] = None
        self.ahead -= self.expected[number % TG_BOARD_SLOTS]
        self.lengthy -= self.expected[number % TG_BOARD_SLOTS] > LONG_NS
        self.held -= 1
        while self.oldest < self.next and self.slots[self.oldest % TG_BOARD_SLOTS] is None:
            self.oldest += 1
        return <TokenBase>token

    cdef void begun(self, TokenBase token, int64_t now):
        """The worker has begun it: if that is news, it is EXECUTING from here on. Under sent_lock."""
        cdef tg_token *t = &token.t
        if not tg_word_try_start(&t.word).moved:
            return
        tg_count(&t.op.started)
        tg_stamp(&t.started, now)
        if t.extra is not NULL and t.extra.run_timeout:
            try:
                _arm(token.core, token, now + t.extra.run_timeout)
            except BaseException:
                _log.error("%r runs without the limit of its run time", token, exc_info=True)

    cdef void carry_out(self, Core core, tg_summons summons):
        if summons.wake is NULL and not summons.start and not summons.room and not summons.keeper:
            return
        try:
            core.carry_out(summons)
        except BaseException:
            _log.error("a further worker could not be started", exc_info=True)

    cdef bint send_at_once(self):
        """For who has just submitted a token and was asked to wake this idle carrier: sends it from here, which saves one
        change of threads. False: wake it."""
        if not self.ready or not self.drive.acquire(False):
            return False
        try:
            if not self.ready or self.held:
                return False
            return self._send_one()
        except BaseException:
            _log.error("a token could not be sent at once", exc_info=True)
            return False
        finally:
            self.drive.release()

    # -- taking back ----------------------------------------------------------------------------------------------------

    cdef bint take_back(self, TokenBase token):
        """Revokes it for good. False: its worker has begun it. Under sent_lock."""
        cdef Py_ssize_t number = self.slot_of(token)
        if not tg_board_revoke(self.board, number):
            return False
        self.leave_slot(number)
        return True

    cdef bint recall(self, tg_op *only):
        """Gives what has not begun back to its queue. True: something. Under sent_lock; who can take it is woken by the
        caller's tg_pool_nudge."""
        cdef uint64_t number
        cdef TokenBase token
        cdef bint some = False
        for number in range(self.oldest, self.next):
            found = self.slots[number % TG_BOARD_SLOTS]
            if found is None or (only is not NULL and (<TokenBase>found).t.op is not only):
                continue
            if tg_board_revoke(self.board, number):
                token = self.leave_slot(number)
                self.give_back(token)
                some = True
        return some

    cdef void give_back(self, TokenBase token):
        Py_INCREF(token)  # the queue's reference
        if not tg_pool_give_back(self.pool, &token.t):
            Py_DECREF(token)  # it has ended

    def _look(self):
        """Learns what has begun, and takes the rest back from a worker that is at one token for long. On the carrier's
        thread, when nothing came for a while."""
        cdef uint64_t number
        cdef Core core = None
        with self.sent_lock:
            for number in range(self.oldest, self.next):
                token = self.slots[number % TG_BOARD_SLOTS]
                if token is not None and self.has_begun(number):
                    self.begun(<TokenBase>token, tg_now())
            core = self.core_of_sent()
            if core is None or not self.recall(NULL):
                return
        self.carry_out(core, tg_pool_nudge(self.pool, tg_now()))

    @property
    def pending(self):
        """How many tokens have been sent and not answered. A snapshot."""
        return self.held

    cdef void interrupt(self, TokenBase token):
        """A token that its worker has begun has ended: the worker is killed, unless it is past it. Under sent_lock."""
        cdef uint64_t number
        cdef Py_ssize_t mine = self.slot_of(token)
        if mine < 0:
            return
        self.recall(NULL)
        for number in range(mine + 1, self.next):
            if self.slots[number % TG_BOARD_SLOTS] is not None:
                return  # it has begun the next, so this one has returned
        # Nothing else can begin: what the worker may be at is this token.
        self.ready = False
        try:
            self._kill()
        except BaseException:
            _log.error("the worker that runs %r could not be killed", token, exc_info=True)

    def _give_way(self):
        """What its worker is at cannot be stopped: where its token has ended, another carrier takes this one's place. On the
        carrier's thread."""
        cdef uint64_t number
        cdef TokenBase token = None
        with self.sent_lock:
            for number in range(self.oldest, self.next):
                found = self.slots[number % TG_BOARD_SLOTS]
                if found is not None and tg_ended(tg_word_load(&(<TokenBase>found).t.word)):
                    token = <TokenBase>found
            if token is None or self.away:
                return
            self.away = True
        self.carry_out(token.core, tg_pool_abandon(self.pool, token.t.op, tg_now()))

    def _takes_back(self):
        """It is back in its place. True: it had given way. On the carrier's thread."""
        if not self.away:
            return False
        self.away = False
        tg_pool_unabandon(self.pool)
        return True

    # -- in: from the worker ---------------------------------------------------------------------------------------------

    def _listen(self, int pipe, int end, int bell, int timeout):
        """Until one of three descriptors can be read (-1: there is none), or so many ms (-1: for ever). (The first can be, the
        second can be). Wakes the loops that results have come for. On the carrier's thread."""
        cdef unsigned int found
        with nogil:
            self.settle_debt()
            found = tg_wire_listen(pipe, end, bell, timeout)
            if found & 4:
                tg_wire_clear(bell)
        return found & 1 != 0, found & 2 != 0

    def _send_now(self, int pipe, data):
        """How many of these bytes a socket takes at once; BlockingIOError: none, OSError: it is broken. Does not let go of the
        GIL for a few of them. Under `drive`."""
        cdef Py_buffer view
        cdef int64_t sent
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        if view.len <= AT_ONCE:
            sent = tg_wire_send(pipe, view.buf, view.len)
        else:
            with nogil:  # copying it takes longer
                sent = tg_wire_send(pipe, view.buf, view.len)
        PyBuffer_Release(&view)
        if sent >= 0:
            return sent
        raise (BlockingIOError if sent == TG_WIRE_FULL else ConnectionError)()

    def _hear_now(self, int pipe):
        """What has come through a socket, b"" at its end; None: nothing yet. OSError: it is broken. Does not let go of the GIL.
        On the carrier's thread."""
        cdef unsigned char data[4096]
        cdef int64_t got = tg_wire_receive(pipe, data, sizeof(data))
        if got >= 0:
            return PyBytes_FromStringAndSize(<char*>data, got)
        if got != TG_WIRE_FULL:
            raise ConnectionError
        return None

    def _tell_loops(self):
        """Wakes the loops that results have come for; before anything that blocks. On the carrier's thread."""
        self.settle_debt()

    def _take_replies(self):
        """Finishes the tokens whose replies lie on the board; how many. Their loops are owed the news. On the carrier's
        thread."""
        cdef tg_reply reply
        cdef const unsigned char *payload = NULL
        cdef object value
        cdef Py_ssize_t taken = 0
        while True:
            if not tg_board_look(self.board, &reply, &payload):
                return taken
            taken += 1
            value = None if reply.size == 0 else PyBytes_FromStringAndSize(<char*>payload, reply.size)
            tg_board_took(self.board, &reply)
            self.settle(reply.number, reply.started, reply.run, reply.kind, value, None)

    def _reply(self, uint64_t number, int64_t started, int64_t run, int kind, value, buffers):
        """A reply that came through the pipe. Its loop is owed the news. On the carrier's thread."""
        self.settle(number, started, run, kind, value, buffers)

    cdef void settle(self, uint64_t number, int64_t started, int64_t run, int kind, object payload,
                     object buffers) except *:
        cdef TokenBase token
        cdef object value = None
        cdef int64_t now = tg_now()
        cdef uint32_t to = TG_COMPLETED
        cdef int64_t sent
        with self.sent_lock:
            token = self.leave_slot(number)
            if token is None:
                return
            self.begun(token, started)
        if token.t.op is not self.latest:
            self.latest = token.t.op
            self.proven.add(<size_t>token.t.op)
        token.op.books().deaths = 0
        self.barren = 0
        sent = token.t.created
        if started < sent or started > now:
            started = tg_stamped(&token.t.started)
        else:
            tg_stamp(&token.t.started, started)
        if run < 0 or run > now - started:
            run = now - started if now > started else 0
        if not tg_ended(tg_word_load(&token.t.word)):
            try:
                if payload is None:
                    pass
                elif buffers is None and tg_plain(<const unsigned char*><char*>payload, len(<bytes>payload)):
                    value = _loads(payload)
                else:
                    value = self._load(payload, buffers)
            except BaseException as error:
                value = self._unreadable(error, kind)
                kind = 1
            if kind == 1:
                to = TG_FAILED
                value = _failure(token, self._failed(value))
        self.finish(token, to, value, started, run, now)

    cdef void finish(self, TokenBase token, uint32_t to, object value, int64_t started, int64_t run, int64_t now) except *:
        """The function has returned, or its worker has died. Not under sent_lock: it tells everybody."""
        cdef tg_token *t = &token.t
        cdef tg_op *op = t.op
        cdef int64_t charge = t.charge
        cdef tg_step step
        cdef Core core = token.core
        token.drop_call()
        t.finished = started + run
        token.track(value)
        token.value = value  # [W3]
        step = tg_word_finish(&t.word, to)
        token.give_place(&op.returned)
        if step.moved:
            tg_hist_record(&op.times.wait, <uint64_t>(started - t.created), <uint64_t>now)
            tg_hist_record(&op.times.run, <uint64_t>run, <uint64_t>now)
            try:
                token.announce(to, step.old, now, self)
            except BaseException:
                _log.error("the end of a token could not be announced", exc_info=True)
        else:
            if type(token.value) is Failure:
                (<Failure>token.value).retrieved = True  # nobody can ask for it any more
            token.value = None  # the late outcome is dropped
            tg_op_abandoned_add(op, -1)
            if tg_word_returned(&t.word) & TG_WATCHED:
                token.tell_watchers()
        tg_pool_book(self.pool, self.w, op, charge, run)
        if tg_op_gated(op):
            self.carry_out(core, tg_pool_freed(self.pool, op, now))

    def _lost(self):
        """The worker is gone, and all that it posted has been taken. What it had begun fails; what it had not goes back to
        its queue, or, if it counts as executing already, to the next worker. Returns (lane, operation) if that has now killed
        as many workers in a row as is borne, else None. On the carrier's thread."""
        cdef uint64_t number
        cdef TokenBase token, fallen = None
        cdef list dead = []
        cdef Core core = None
        cdef int64_t now = tg_now(), started
        cdef bint run
        cdef Operation books
        with self.sent_lock:
            self.ready = False
            for number in range(self.oldest, self.next):
                if self.slots[number % TG_BOARD_SLOTS] is None:
                    continue
                run = self.has_begun(number)
                token = self.leave_slot(number)
                core = token.core
                if not run:
                    tg_board_revoke(self.board, number)
                    self.give_back(token)
                elif (self.barren < BARREN and tg_board_is(self.board, number, TG_SLOT_DECLARED)
                      and not tg_ended(tg_word_load(&token.t.word))):
                    self.barren += 1
                    self.again.append(token)
                else:
                    self.begun(token, now)
                    dead.append(token)
        for found in dead:
            token = <TokenBase>found
            started = tg_stamped(&token.t.started)
            if not tg_ended(tg_word_load(&token.t.word)):
                # In a row: of workers that had finished a run of it, and may have died at the same time, only the first counts.
                books = token.op.books()
                if self.others_have_news(token.t.op, token.core):
                    books.deaths = 1
                elif <size_t>token.t.op not in self.proven or books.deaths == 0:
                    books.deaths += 1
                fallen = token
            self.finish(token, TG_FAILED, _failure(token, self._death_of(token)), started, max(0, now - started), now)
        if core is not None:
            self.carry_out(core, tg_pool_nudge(self.pool, now))
        if fallen is not None and fallen.op.books().deaths >= DEADLY:
            return core, fallen.op.books().name
        return None

    cdef bint others_have_news(self, tg_op *op, RemoteCore core):
        """Whether another worker may have finished a run of that operation which its carrier has not looked at yet."""
        with self.sent_lock:
            for each in core.carriers():
                if each is not self and (<Carrier>each).has_news_of(op):
                    return True
        return False

    cdef bint has_news_of(self, tg_op *op):
        if self.board is NULL or not tg_board_has_news(self.board):
            return False
        for token in self.slots:
            if token is not None and (<TokenBase>token).t.op is op:
                return True
        return False

    def _fail_again(self, error):
        """No worker can be had for the tokens that count as executing already: they fail. On the carrier's thread."""
        cdef TokenBase token
        cdef int64_t now = tg_now()
        while self.again:
            token = <TokenBase>self.again.pop(0)
            self.finish(token, TG_FAILED, _failure(token, error), tg_stamped(&token.t.started), 0, now)

    def _leave_if_closing(self):
        """Where there is no worker to be had: True if the pool is closing, and this carrier has left it."""
        cdef bint left = False
        cdef tg_token *t
        cdef TokenBase token
        with self.sent_lock:
            t = tg_pool_poll(self.pool, self.w, &left)
            if t is not NULL:
                token = <TokenBase>t.owner
                self.give_back(token)
                Py_DECREF(token)  # the ring's reference [P5]
            self.left = left
        return left

    def _patience(self):
        """Whether to look again soon, for nobody tells when a token begins or a worker is at one for long. After sending."""
        cdef object first
        if self.held == 0:
            return False
        first = self.slots[self.oldest % TG_BOARD_SLOTS]
        return self.held > 1 or (first is not None and
                                 tg_state_of(tg_word_load(&(<TokenBase>first).t.word)) == TG_ADMITTED)


cdef bint _simple(tuple args):
    for each in args:
        if type(each) not in _SIMPLE:
            return False
    return True


cdef void _merge(tg_summons *into, tg_summons more):
    if more.wake is not NULL:
        into.wake = more.wake
    into.start = into.start or more.start
    into.room = into.room or more.room
    into.keeper = into.keeper or more.keeper
