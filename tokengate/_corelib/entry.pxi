# The way in for what is not plain: tokens with terms of their own, and full queues.

cdef bint _dress(Core core, TokenBase token, Operation operation, Terms asked, object receiver,
                 PyObject *inherited) except -1:
    """Gives a token what its terms ask for. receiver: what the function is bound to by its guard, or None. False: it ended
    over that, and is counted: its deadline had passed already, or its key could not be had."""
    cdef Terms own = operation.asks()
    cdef int64_t timeout = 0, run_timeout = 0, deadline = 0, outer
    cdef object key = None, value
    cdef Key held
    cdef tg_extra *extra = <tg_extra*>PyMem_Calloc(1, sizeof(tg_extra))
    if extra is NULL:
        raise MemoryError("no memory for a token's deadline or key")
    extra.token = &token.t
    token.t.extra = extra
    extra.priority = operation.rules().priority
    if own is not None:
        timeout = own.timeout
        run_timeout = own.run_timeout
        key = own.key
    if asked is not None:
        if asked.timeout >= 0:
            timeout = asked.timeout
        if asked.run_timeout >= 0:
            run_timeout = asked.run_timeout
        if asked.says_key:
            key = asked.key
        if asked.says_priority:
            extra.priority = asked.priority
    extra.run_timeout = run_timeout
    if timeout > 0:
        deadline = token.t.created + timeout
    if inherited is not NULL:
        if <object>inherited is not None:
            outer = <object>inherited
            if deadline == 0 or outer < deadline:
                deadline = outer
        Py_DECREF(<object>inherited)  # PyContextVar_Get gave us a reference
    if deadline != 0:
        tg_stamp(&extra.deadline, deadline)
        if deadline <= token.t.created:
            token.end(TG_EXPIRED, None)
            return False
    if key is not None:
        try:
            args = token.positional()
            if receiver is not None:
                args = (receiver, *args)
            value = key(*args) if token.kwargs is None else key(*args, **<dict>token.kwargs)
            held = operation.acquire_key(value)
        except BaseException as error:
            _fail_unrun(core, token, error)
            if isinstance(error, KeyboardInterrupt):
                raise  # this is the caller's thread: Ctrl-C is for the caller
            return False
        extra.key = &held.k
        Py_INCREF(held)
        extra.key_owner = <void*>held
        extra.queue = tg_pool_key_queue(core.pool, token.t.op)
        if extra.queue is NULL:
            extra.key = NULL
            token.let_key_go()
            raise MemoryError("no memory for a queue of keys")
    return True


cdef void _fail_unrun(Core core, TokenBase token, object error) except *:
    # Its `key` function raised, or gave what cannot be a key: as if the function had.
    cdef tg_step step
    cdef int64_t now = tg_now()
    tg_count(&token.t.op.submitted)
    token.drop_call()
    token.track_now()
    token.value = _failure(token, error)  # [W3]
    token.t.finished = now
    tg_word_submit(&token.t.word)
    step = tg_word_fail_unrun(&token.t.word)
    token.announce(TG_FAILED, step.old, now, None)


cdef void _end_shed(Core core, tg_token *t) except *:
    cdef TokenBase token
    cdef tg_token *rest
    while t is not NULL:
        rest = t.prev
        t.prev = NULL
        token = <TokenBase>t.owner
        Py_DECREF(token)  # the queue's reference [P5]; `token` holds one
        if token.end(TG_KILLED, GateFull(f"token {t.id} of {token.op.name} made room for a newer call: only "
                                         f"{token.op.rules().max_waiting} may wait")):
            tg_count(&t.op.shed)
        t = rest


cdef bint _overflow(Core core, TokenBase token, Operation operation) except -1:
    """The queue is full (or the token has ended meanwhile): refuses it or waits. True: it has been handed over."""
    if tg_ended(tg_word_load(&token.t.word)):
        return False
    cdef Policy policy = operation.rules()
    if policy.overflow != "block":
        tg_count(&token.t.op.rejected)
        token.end(TG_KILLED, GateFull(f"{token!r} was refused: {policy.max_waiting} calls of it wait already"))
        return False
    if _running_loop() is not None:
        tg_count(&token.t.op.rejected)
        token.end(TG_KILLED, GateFull("the queue is full, and waiting for room would have blocked an event loop"))
        raise RuntimeError(
            f"operation {operation.name!r}: {policy.max_waiting} calls wait already, and with overflow='block' this "
            "one would block the running event loop. Use `.map`, which waits for room without blocking, or "
            "overflow='reject'"
        )
    try:
        while True:
            if not _wait_for_room(core, token):
                token.end(TG_EXPIRED, None)
                return False
            if core.hand_over(token, False):
                return True
            if tg_ended(tg_word_load(&token.t.word)):
                return False
    except BaseException:
        token.end(TG_CANCELLED, None)
        raise


cdef bint _wait_for_room(Core core, TokenBase token) except -1:
    """Blocks until there may be room in the token's queue. False: its deadline has passed."""
    cdef int64_t deadline = 0 if token.t.extra is NULL else tg_stamped(&token.t.extra.deadline)
    worker = current_worker()
    lock = _allocate_lock()
    lock.acquire()
    if not _watch_room(core, token.t.op, lock.release):
        return True
    try:
        if worker is not None:
            if deadline == 0:
                _begin_waiting_for_room(core, <Worker>worker, token.t.op)
            (<Worker>worker).step_aside()
        if deadline == 0:
            return lock.acquire()
        return lock.acquire(True, min(max(0, deadline - tg_now()) * 1e-9, threading.TIMEOUT_MAX))
    finally:
        if worker is not None:
            (<Worker>worker).waits_for = None
            (<Worker>worker).step_back()
        _unwatch_room(core, lock.release)


cdef void _begin_waiting_for_room(Core core, Worker worker, tg_op *op) except *:
    # There is room once the first of those that wait has started.
    cdef TokenBase first
    cdef tg_token *t = tg_pool_first(core.pool, op, tg_hold)
    if t is not NULL:
        first = <TokenBase>t.owner
        Py_DECREF(first)  # the reference that tg_hold took
        _begin_waiting(worker, (first,), False)


cdef bint _watch_room(Core core, tg_op *op, object notify) except -1:
    """Calls `notify()` once when there may be room in the queue. False: there is, or there will be none."""
    with cython.critical_section(core):
        core.rooms.append(notify)
    if tg_pool_want_room(core.pool, op, True):
        _unwatch_room(core, notify)
        return False
    return True


cdef void _unwatch_room(Core core, object notify) except *:
    with cython.critical_section(core):
        for i in range(len(core.rooms)):
            if core.rooms[i] == notify:
                del core.rooms[i]
                break


cdef void _announce_room(Core core) except *:
    cdef list waiting
    with cython.critical_section(core):
        waiting = core.rooms
        core.rooms = []
    for notify in waiting:
        notify()
