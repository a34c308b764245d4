# Where the calls of an operation with lane="auto" go. Which lane that should be is decided in tokengate/lanes/auto.py, from
# time to time and on the thread of a caller; here is what each call does about it.

cdef enum:
    SMALL = 65_536           # bytes
    REVIEW_NS = 100_000_000  # between two looks at whether an operation is in the right lane


@cython.final
cdef class Seat:
    """Of one operation in one coordinator: the lane of its calls, and what is known for choosing it."""

    cdef Core home, away        # away: the core its calls go to, None: home, the threads. Under the GIL, or never set
    cdef Operation there        # the operation in `away`
    cdef readonly str name
    cdef readonly str lane
    cdef public str reason      # why, for stats()
    cdef public object notes    # auto.py's own
    cdef int64_t reviewed
    cdef readonly bint curious  # the next result is to be pickled, to know its size
    cdef readonly Py_ssize_t size   # bytes of pickled arguments and results, of one call; -1: unknown
    cdef readonly double pickling   # s of CPU that took
    cdef readonly object unfit      # why a result cannot travel, or None
    cdef readonly object refused    # why the arguments of a call could not, since it moved, or None

    def __cinit__(self, Core home, Operation operation):
        self.home = home
        self.name = operation.name
        self.lane = "thread"
        self.reason = "not measured yet"
        self.size = -1

    def ask(self, args, kwargs):
        """Pickle the arguments of this call, and the result of one that ends soon, to know what they would cost to send.
        What pickling raises comes out."""
        cdef double seconds = 0.0
        cdef Py_ssize_t size
        _load_pickle()
        size = _weigh((args, kwargs), &seconds)
        self.pickling = seconds
        self.size = -1 - size
        self.curious = True

    cdef void taste(self, object value):
        # On a worker, before anybody else has the result.
        cdef double seconds = 0.0
        cdef Py_ssize_t size
        self.curious = False
        try:
            size = _weigh(value, &seconds)
        except BaseException as error:  # whatever its own code does: the run is over, and nothing of this may come out
            self.unfit = f"{type(value).__qualname__}{_told(error)}"
            return
        self.pickling += seconds
        self.size = -1 - self.size + size

    def go(self, str lane):
        """From now on calls go to that lane; `LaneUnavailable` if it cannot be had. What has been called stays."""
        cdef Core core = self.home._lane_core(lane)
        cdef Operation operation = self.home.operations[self.name]
        self.refused = None
        if core is self.home:
            self.away = None
        else:
            self.there = core.operation(self.name, operation.tags, operation.rules())
            self.away = core
        self.lane = lane

    @property
    def strict(self):
        """Whether the operation's policy holds for all its calls together, which two lanes at a time could break."""
        cdef Policy policy = (<Operation>self.home.operations[self.name]).rules()
        return policy.limit is not None or policy.key is not None or policy.max_waiting is not None


cdef Py_ssize_t _weigh(object value, double *seconds) except -1:
    """Bytes of it pickled, and s of CPU that took: others may hold the GIL meanwhile. Small things are pickled again, for the
    first time costs what is not in the caches yet."""
    cdef int32_t clock = tg_own_clock()
    cdef int64_t start, took, best = -1
    cdef Py_ssize_t size = 0
    for _ in range(4):
        start = tg_clock_cpu(clock)
        size = len(_dumps(value, 5))
        took = tg_clock_cpu(clock) - start
        best = took if best < 0 or took < best else best
        if size > SMALL:
            break
    seconds[0] = best * 1e-9
    return size


cdef Seat _seat(Core home, Operation operation):
    if operation.seat is None and operation.shared is None:
        operation.seat = Seat(home, operation)
    return operation.seat


cdef tuple _elsewhere(Core home, Operation operation, object fn, tuple args, dict kwargs, Terms asked, object labels):
    """Where a call with lane="auto" goes if not to the threads of `home`: (core, operation, its Packed), or None. Any thread."""
    cdef Seat seat = _seat(home, operation)
    cdef Core away
    cdef int64_t now = tg_now()
    if seat is None:
        return None  # beyond the first thousand names: it has no figures of its own
    if now - seat.reviewed >= REVIEW_NS:
        seat.reviewed = now
        _review(seat, fn, args, kwargs)
    away = seat.away
    if away is None or (asked is not None and asked.says_key):
        return None  # keys are kept in order within a lane, so calls with one of their own all stay in one
    there = seat.there
    away.check()
    try:
        return away, there, (<RemoteCore>away).packed(there, fn, args, kwargs, labels)
    except Exception as error:
        seat.refused = str(error)
        _review(seat, fn, args, kwargs)
        return None


cdef void _review(Seat seat, object fn, tuple args, dict kwargs) except *:
    try:
        seat.home._review(seat, fn, args, kwargs)
    except Exception:
        _log.error("operation %r stays in the %s lane: looking for a better one failed", seat.name, seat.lane, exc_info=True)
