# Calls that run at once in the caller's thread: what tokengate.testing.inline() asks for.
#
# The token is what it always is, with its coordinator's policy and figures; only who executes it differs: the caller,
# as a worker that takes no place in the lane. What may not start then (paused, limit, key) waits in its queue, and the next
# call inside the block that lets it start runs it; one from outside leaves it to the workers.

_inline_var = contextvars.ContextVar("tokengate.inline")  # the innermost block around, an InlineBlock

# What asyncio.Task uses around each step. Before 3.12 the current task is looked up by the loop that runs, which is enough.
_swap_current_task = getattr(asyncio.tasks, "_swap_current_task", None)
_set_running_loop = asyncio._set_running_loop


@cython.final
cdef class InlineBlock:
    """One `with inline():`, in the context it was entered in and those copied from it. `waiting` under the critical section."""

    cdef InlineBlock outer
    cdef bint over       # contexts that still have it go by the one around it
    cdef list waiting    # tokens of this block that could not start, oldest first

    def __cinit__(self):
        self.outer = _inline_block() if tg_inline_open() else None
        self.waiting = []
        tg_inline_count(True)

    def leave(self):
        """Calls are no longer run by this block, in whatever context they are made. Once."""
        self.over = True
        tg_inline_count(False)
        with cython.critical_section(self):
            self.waiting = []

    cdef bint call(self, Core core, TokenBase token) except -1:
        """Runs a token that is CREATED and dressed. False: it may not start now: hand it over and `remember` it."""
        if not tg_pool_start_here(core.pool, &token.t, tg_now()):
            return False
        self.run(core, token)
        return True

    cdef void remember(self, TokenBase token):
        with cython.critical_section(self):
            if not self.over and not tg_ended(tg_word_load(&token.t.word)):
                self.waiting.append(token)

    cdef void run(self, Core core, TokenBase token) except *:
        try:
            _execute_here(core, token)
        finally:
            if token.t.generation == tg_generation() and tg_op_gated(token.t.op):
                tg_pool_freed_quietly(core.pool, token.t.op)
                self.run_waiting(core)

    cdef void run_waiting(self, Core core) except *:
        """Runs what may start by now of this block, oldest first; what then is left to do in the pool is the workers'."""
        cdef TokenBase token
        cdef uint32_t was = 0
        cdef tg_summons summons
        cdef bint again = True
        try:
            while again:
                again = False
                for each in list(self.waiting):
                    token = <TokenBase>each
                    if not tg_ended(token.look()):
                        if token.core is not core or not tg_pool_help(core.pool, &token.t, tg_now(), &was, &summons):
                            continue
                        if was == TG_WAITING:
                            Py_DECREF(token)  # the queue's reference [P5]
                        core.carry_out(summons)  # who waits for room
                        _execute_here(core, token)
                        if tg_op_gated(token.t.op):
                            tg_pool_freed_quietly(core.pool, token.t.op)
                            again = True
                    with cython.critical_section(self):
                        _remove_identical(self.waiting, token)
        finally:
            if core.generation == tg_generation():
                core.carry_out(tg_pool_nudge(core.pool, tg_now()))


cdef InlineBlock _inline_block():
    """The innermost block around that is not over, or None. Ask tg_inline_open() first."""
    cdef PyObject *found = NULL
    cdef InlineBlock block
    PyContextVar_Get(_inline_var, NULL, &found)
    if found is NULL:
        return None
    block = <InlineBlock><object>found
    Py_DECREF(block)  # PyContextVar_Get gave us a reference
    while block is not None and block.over:
        block = block.outer
    return block


cdef void _execute_here(Core core, TokenBase token) except *:
    """Runs the function of a token whose edge into EXECUTING the caller won, on the caller's thread, as on a worker: no
    event loop runs there for it, and its own token is the current one."""
    cdef object before = _thread_value("tokengate.worker")
    cdef object found = current_worker()
    cdef object loop = _running_loop(), task = None
    cdef Worker worker, outer = None
    cdef bint late = False
    cdef int64_t now
    cdef int aside
    if found is not None and (<Worker>found).pool is core.pool:
        worker = <Worker>found  # as when it runs what it waits for
    else:
        worker = Worker(core, core.on_start, core.on_exit, core.on_fork)
        worker.visits = True
        worker.handle = None  # the thread does not end with it
        worker.thread_ident = threading.get_ident()
        core.workers.append(worker)
        _set_thread_value("tokengate.worker", worker)
        if found is not None:
            outer = <Worker>found
            with _waiting_lock:  # its function goes on when this one has returned
                outer.waits_for = (token,)
                outer.any_will_do = False
    aside = worker.aside
    if loop is not None:
        if _swap_current_task is not None:
            task = _swap_current_task(loop, None)
        _set_running_loop(None)
    if token.t.extra is not NULL:
        worker.limit_run(token, 0)  # the token's own deadline; that of its run follows
    worker.execute(token, &late, &now)
    _set_thread_value("tokengate.worker", before)
    if worker.generation != tg_generation():
        return  # the function forked and returned in the child, where no loop runs and nothing native is ours
    if loop is not None:
        _set_running_loop(loop)
        if _swap_current_task is not None:
            _swap_current_task(loop, task)
    worker.settle_debt()
    if worker.aside > aside:
        worker.aside = aside  # it ran an event loop of its own
        if aside == 0:
            tg_pool_back(core.pool, token.t.op)
        _set_thread_value("tokengate.link", None)  # the next function to run this loop steps aside again
    if late:
        tg_pool_unabandon(core.pool)
    if outer is not None:
        with _waiting_lock:
            outer.waits_for = None
    if worker.visits and worker is not before:
        worker.on_exit(worker)
    _raise_interrupt(token)


cdef void _raise_interrupt(TokenBase token) except *:
    # Ctrl-C reaches whatever the main thread runs, and is for the caller; nobody can tell it from a function's own.
    cdef Failure failure
    if type(token.value) is not Failure or threading.get_ident() != threading.main_thread().ident:
        return
    failure = <Failure>token.value
    error = failure.exception
    if type(error) is FunctionExited:
        error = error.__cause__
    if isinstance(error, KeyboardInterrupt):
        failure.retrieved = True
        raise error
