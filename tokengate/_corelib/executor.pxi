# The compiled half of the executor: from `submit` to a future.

from functools import partial as _partial

_no_tags = _frozen({})


cdef inline bint _is_context_run(object fn):
    return PyCFunction_Check(fn) and type(fn.__self__) is contextvars.Context and fn.__name__ == "run"


cdef class ExecutorBase:
    """The compiled half of `tokengate.Executor`: from `submit` to a future."""

    cdef Core home             # of the lane
    cdef object owner          # the coordinator
    cdef type plain_class, loop_class  # of futures made off a loop, and on one
    cdef bint auto             # the lane of each call is chosen by measurement; `home` is the coordinator's own then
    cdef Operation single      # the operation of all its calls; None: each function's own
    cdef object name_of        # callable -> operation name
    cdef dict known            # operation name -> (name, Policy): those that are not what the function says
    cdef set live              # the futures that are not over: they enter here, and leave by themselves
    cdef uint32_t generation
    cdef object served         # weakly, the loop that it is the default executor of, by install; None: of none
    cdef bint closed

    def _set_up(self, Core core, coordinator, type plain_class, type loop_class, name_of, dict known, str operation,
                bint auto=False):
        """Once, by the constructor. operation: the name of one that the coordinator knows, for all calls; None: each
        function has its own. known: names to be replaced, with the policies of what replaces them."""
        core.check()
        self.home = core
        self.owner = coordinator
        self.auto = auto
        self.plain_class = plain_class
        self.loop_class = loop_class
        self.name_of = name_of
        self.known = known
        self.single = None if operation is None else core.operations[operation]
        self.renew()

    cdef void renew(self):
        # at first, and in a forked child: the futures are the parent's
        cdef set live = set()
        with cython.critical_section(self):
            if self.generation != tg_generation():
                self.live = live
                self.generation = tg_generation()

    def __reduce__(self):
        raise TypeError(f"{self!r} belongs to its process: it can be neither pickled nor copied")

    @property
    def coordinator(self):
        """The coordinator that runs the calls."""
        return self.owner

    def _serve(self, loop):
        """It is this loop's default executor, as nobody else's."""
        self.served = weakref.ref(loop)

    @property
    def _shutdown(self):
        return self.closed

    def submit(self, fn, /, *args, **kwargs):
        """Run `fn(*args, **kwargs)` on the coordinator; returns a `concurrent.futures.Future`.

        On a thread with a running event loop the future can be awaited there, too. RuntimeError after `shutdown`, and
        where the coordinator has been stopped. Any thread; does not block.
        """
        cdef FutureBase future
        cdef Core core = self.home
        cdef Operation operation
        cdef Packed packed = None
        cdef object context = None
        loop = _running_loop()
        # a loop's own executor, asked for another loop's sake, must not give a future of the one that runs here
        cdef bint looped = loop is not None and (self.served is None or self.served() is loop)
        if self.home is None:
            raise RuntimeError(f"this {type(self).__name__} was made without its constructor")
        if self.generation != tg_generation():
            self.renew()
        # What asyncio.to_thread makes, and what others made before it was there: partial(context.run, function, ...), or
        # context.run and the function as first argument. The call is the function's, in that context.
        if type(fn) is _partial and fn.args and _is_context_run(fn.func):
            args = fn.args + args
            if fn.keywords:
                kwargs = {**fn.keywords, **kwargs}
            fn = fn.func
        if PyCFunction_Check(fn) and args and _is_context_run(fn):
            context = fn.__self__
            fn = args[0]
            args = args[1:]
        self.home.check()
        operation = self.operation(fn)
        if self.home.refusing:
            raise RuntimeError(f"cannot schedule new futures: {self.home!r} is stopped; start() it again to use it")
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self.auto and context is None:  # another context than the caller's does not travel
            found = _elsewhere(core, operation, fn, args, kwargs if kwargs else None, None, _no_tags)
            if found is not None:
                core, operation, packed = <Core>found[0], <Operation>found[1], <Packed>found[2]
        future = core.make(self.loop_class if looped else self.plain_class, operation, _no_tags, False, fn, args,
                                kwargs if kwargs else None, context)
        future.looped = looped
        future.patient = looped and self.served is not None  # by run_in_executor: what asyncio would have given
        # Without a lock between this and _close: either that finds the future among the living, or we see `closed`.
        # The set's own lock orders the two.
        future.live = self.live
        future.live.add(future)
        if self.closed:
            future.end(TG_CANCELLED, None)
            raise RuntimeError("cannot schedule new futures after shutdown")
        try:
            return core.launch(future, operation, None, None, packed)
        except BaseException:
            future.end(TG_CANCELLED, None)  # it is not on its way, and nobody else has it
            raise

    cdef Operation operation(self, object fn):
        cdef Operation operation = self.single
        cdef str name
        cdef object policy = _no_policy
        if operation is not None:
            return operation
        if PyFunction_Check(fn):
            name = f"{fn.__module__}.{fn.__qualname__}"
        else:
            name = self.name_of(fn)
        if name in self.known:
            name, policy = self.known[name]
        operation = self.home.operations.get(name)
        return operation if operation is not None else self.home.operation(name, _no_tags, policy)

    def _close(self):
        """No call is taken any more. Returns the futures that may not have ended, or whose functions may still run."""
        if self.generation != tg_generation():
            self.renew()
        self.closed = True
        return list(self.live)

    def _await_callbacks(self, futures):
        """Blocks until the callbacks of these ended futures have been called. Not inside a callback, which could be
        waiting for itself."""
        cdef FutureBase future
        if _thread_value("tokengate.telling") is not None:
            return
        worker = current_worker()
        if worker is not None:
            (<Worker>worker).step_aside()
        try:
            for each in futures:
                future = <FutureBase>each
                future.await_callbacks()
        finally:
            if worker is not None:
                (<Worker>worker).step_back()
