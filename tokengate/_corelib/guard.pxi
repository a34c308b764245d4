# The compiled half of a guarded function: from call to token in about a microsecond.

cdef class GuardBase:
    """Calls become tokens."""

    cdef Runtime runtime
    cdef object fn
    cdef readonly str operation
    cdef object tags          # as declared: the operation's hint comes from here
    cdef object labels        # what its tokens show
    cdef readonly Policy _policy  # as declared
    cdef object receiver      # the object or class this view is bound to, or None
    cdef Terms terms          # what .options asks for on top of it, or None
    cdef bint plain           # nothing in the labels can refer to anything else
    cdef str _lane            # None: the thread lane
    cdef bint auto            # the lane is chosen by measurement; `_lane` is None then
    cdef Core home            # the coordinator of .options(coordinator=...), or None: the current one
    cdef Operation cached     # this operation in the default coordinator, which never goes away
    cdef dict __dict__
    cdef object __weakref__

    def _set_up(self, Runtime runtime, fn, str operation, tags, Policy policy, Core home=None):
        """Once, by the constructor. tags: a read-only mapping."""
        self._policy = policy
        self.runtime = runtime
        self.fn = fn
        self.operation = operation
        self.tags = self.labels = tags
        self.plain = _plain(tags)
        self.home = home

    def __getattribute__(self, name):
        # Some frameworks ask of `obj.__call__` whether it is a coroutine function; calls themselves never look here.
        if name == "__call__":
            return self
        if name == "__annotations__":
            return getattr(self.fn, name, {})  # from 3.14 on functools copies only what computes them
        if name == "__signature__":
            return self._signature()  # worked out for those who ask, not for every binding of a method
        return PyObject_GenericGetAttr(self, name)

    def _copy(self, GuardBase other, fn):
        """Once, by the maker of a view: another function (a bound method, say) under the same operation."""
        self._set_up(other.runtime, fn, other.operation, other.tags, other._policy, other.home)
        self.terms = other.terms
        self.receiver = other.receiver
        self._lane = other._lane
        self.auto = other.auto
        self.cached = other.cached
        self.labels = other.labels
        self.plain = other.plain

    def _move(self, Core home):
        self.home = home

    def _lay(self, str lane):
        # "thread" is the core of the coordinator itself
        self.auto = lane == "auto"
        self._lane = None if lane == "thread" or self.auto else lane

    @property
    def lane(self):
        """Name of the lane its tokens run in, or "auto"."""
        if self.auto:
            return "auto"
        return "thread" if self._lane is None else self._lane

    @property
    def _coordinator(self):
        """Whose lane that is, for calls made here and now."""
        return self.home if self.home is not None else self.runtime.core()

    def _receive(self, receiver):
        self.receiver = receiver

    def _ask(self, Terms terms):
        self.terms = terms

    def _retag(self, labels):
        self.labels = labels
        self.plain = _plain(labels)

    @property
    def _tags(self):
        return self.tags

    cdef inline Core core(self):
        cdef Core core = self.home if self.home is not None else self.runtime.core()
        return core if self._lane is None else core.lane(self._lane)

    def _declared(self):
        """(tags, policy) of its operation, which another function may have said more about."""
        return self.tags, self._policy

    cdef inline Operation of(self, Core core):
        cdef Operation operation
        if core is self.runtime.default:
            operation = self.cached
            if operation is None:
                operation = self.find(core)
                with cython.critical_section(self):
                    if self.cached is None:
                        self.cached = operation
            return operation
        return self.find(core)

    cdef Operation find(self, Core core):
        cdef Operation operation = core.operations.get(self.operation)
        if operation is None:
            tags, policy = self._declared()
            operation = core.operation(self.operation, tags, policy)
        return operation

    def __call__(self, *args, **kwargs):
        cdef Core core
        if self.runtime is None:
            raise RuntimeError(f"this {type(self).__name__} was made without its constructor")
        core = self.core()
        core.check()  # before anything of the pool is touched
        if self.auto:
            found = _elsewhere(core, self.of(core), self.fn, args, kwargs if kwargs else None, self.terms, self.labels)
            if found is not None:
                return (<Core>found[0]).spawn(self.runtime.token_class, <Operation>found[1], self.labels, self.plain,
                                              self.terms, self.receiver, self.fn, args, kwargs if kwargs else None,
                                              <Packed>found[2])
        return core.spawn(self.runtime.token_class, self.of(core), self.labels, self.plain, self.terms, self.receiver,
                          self.fn, args,
                          kwargs if kwargs else None)


def submit(Runtime runtime, Core core, str operation, tags, fn, tuple args, dict kwargs):
    """A token of a plain callable on a given coordinator."""
    core.check()
    return core.spawn(runtime.token_class, core.operation(operation, tags, _no_policy), tags, _plain(tags), None, None, fn, args,
                      kwargs if kwargs else None)
