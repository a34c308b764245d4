# Deadlocks: a function that waits for tokens, one of which waits, in the end, for that very function.
#
# A worker that blocks says what for, and looks, under one lock, whether any of it can still end. What waits for a place in
# a limit or a key can end if one of those who have the places can; what executes can, unless its function is itself blocked
# on something that cannot. The last to close a cycle sees all the others, so exactly it is told.

cdef enum:
    LOOKS = 10_000  # tokens looked at before giving up and waiting: a false alarm would be worse

_waiting_lock = threading.Lock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_waiting_lock._at_fork_reinit)


@cython.final
cdef class _Search:
    cdef list path       # tokens between the one we wait for and where we are
    cdef Py_ssize_t looks

    def __cinit__(self):
        self.path = []

    cdef bint stuck(self, TokenBase token) except -1:
        """True if the token can never end; `path` then leads to what closes the cycle."""
        cdef uint32_t word = token.look()
        cdef TokenBase each
        cdef list holders
        self.looks += 1
        if tg_ended(word) or self.looks > LOOKS or (token.t.extra is not NULL and tg_stamped(&token.t.extra.deadline)):
            return False
        for seen in self.path:
            if seen is token:
                return True
        self.path.append(token)
        if tg_state_of(word) == TG_EXECUTING:
            worker = _worker_of(token)
            if worker is not None and self.blocked(<Worker>worker):
                return True
        else:
            holders = _holders(token)
            if holders:
                for other in holders:
                    each = <TokenBase>other
                    if not self.held(each):
                        break
                else:
                    return True
        self.path.pop()
        return False

    cdef bint never_done(self, TokenBase token, bint until_return) except -1:
        """True if a wait for the token's end, or for the return of its function, can never be over."""
        cdef uint32_t word = token.look()
        if until_return and (tg_state_of(word) == TG_EXECUTING or tg_abandoned(word)):
            self.looks += 1
            return self.looks <= LOOKS and self.held(token)  # no deadline makes a function return
        return self.stuck(token)

    cdef bint held(self, TokenBase token) except -1:
        """True if the function of this token can never return. Its token may have ended, which frees nothing."""
        cdef Py_ssize_t depth = len(self.path)
        for seen in self.path:
            if seen is token:
                return True
        worker = _worker_of(token)
        if worker is not None:
            self.path.append(token)
            if self.blocked(<Worker>worker):
                return True
            del self.path[depth:]
        return False

    cdef bint blocked(self, Worker worker) except -1:
        """True if what the worker is blocked on can never let it go on."""
        cdef Py_ssize_t depth = len(self.path)
        cdef list found = None
        waits = worker.waits_for
        if not waits:
            return False
        for other in waits:
            if self.never_done(<TokenBase>other, worker.until_return):
                if not worker.any_will_do:
                    return True
                found = list(self.path)
                del self.path[depth:]
            elif worker.any_will_do:
                return False
        if found is None:
            return False
        self.path = found
        return True


cdef object _worker_of(TokenBase token):
    for worker in list(token.core.workers):
        if type(worker) is not Worker:
            continue  # what runs elsewhere waits for nothing here
        for each in worker.tokens:
            if each is token:
                return worker
    return None


cdef list _holders(TokenBase token):
    """The tokens whose functions hold all the places that this one waits for; None: it waits for something else."""
    cdef tg_op_view v
    cdef TokenBase each
    cdef Key key = None
    cdef list of_operation = [], of_key = []
    if token.t.extra is not NULL and token.t.extra.key_owner is not NULL:
        key = <Key>token.t.extra.key_owner
    tg_pool_look_op(token.core.pool, token.t.op, &v)
    if v.paused:
        return None
    for worker in list(token.core.workers):
        for other in worker.tokens:
            each = <TokenBase>other
            if each.t.op is token.t.op:
                of_operation.append(each)
                if key is not None and each.t.extra is not NULL and each.t.extra.key_owner is <void*>key:
                    of_key.append(each)
    if key is not None and len(of_key) >= <Py_ssize_t>v.policy.key_limit:
        return of_key
    if v.policy.limit and len(of_operation) >= <Py_ssize_t>v.policy.limit:
        return of_operation
    return None


cdef void _begin_waiting(Worker worker, tokens, bint any_will_do, bint until_return=False) except *:
    """Before a worker blocks on these tokens for as long as it takes, or until their functions have returned.
    TokenDeadlock if that could never end."""
    cdef _Search search = _Search()
    with _waiting_lock:
        worker.waits_for = tokens
        worker.any_will_do = any_will_do
        worker.until_return = until_return
        if search.blocked(worker):
            worker.waits_for = None
            raise TokenDeadlock(_cycle(worker, search.path))


cdef void _check_within(TokenBase token) except *:
    """Before something on an event loop that a worker's function runs waits for a token: TokenDeadlock if the token can not
    end before that function returns. Other things may happen on that loop, so this says nothing of what comes later."""
    cdef Worker worker
    cdef _Search search
    cdef bint cycle = False
    found = current_worker()
    if found is None or tg_ended(token.look()):
        return
    worker = <Worker>found
    search = _Search()
    with _waiting_lock:
        worker.waits_for = (token,)
        worker.any_will_do = worker.until_return = False
        cycle = search.blocked(worker)
        worker.waits_for = None
    if cycle:
        raise TokenDeadlock(_cycle(worker, search.path))


cdef str _cycle(Worker worker, list path):
    told = [f"{token!r}" for token in path]
    mine = worker.current
    return (f"the function of {mine!r} would wait for itself: it waits for " + ", which waits for ".join(told)
            + (f", which waits for {mine!r}" if path[len(path) - 1] is not mine else "")
            + ". Raise the operation's limit, or do not wait for its tokens inside its own functions")
