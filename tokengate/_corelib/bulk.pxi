# Many tokens with one consumer: submitted and collected in C loops, with one wake-up for many.

cdef enum:
    CHUNK = 64  # tokens handed over under one lock


# Iterators that only look things up: any number of items may be taken before the first is handed over.
_KNOWN_ITERATORS = frozenset(type(iter(each)) for each in ([], (), range(0), range(1 << 70), "", b"", {}, {}.values(),
                                                           {}.items(), set(), reversed([])))


@cython.final
cdef class Collector:
    """Gathers the ended tokens of one consumer.

    on_loop true: the consumer is on an event loop, and ended tokens come from the loop's drain. False: the consumer is
    a plain thread, and they come from whichever thread ends them. Fields are under the critical section.
    """

    cdef bint on_loop
    cdef list ready           # ended, not taken yet, in the order they ended
    cdef dict tokens          # place -> token of submitted ones that have not been taken
    cdef readonly Py_ssize_t pending  # attached and not ended
    cdef Py_ssize_t next_place
    cdef Py_ssize_t want
    cdef object waker
    cdef list attached        # synchronous consumers: tokens made elsewhere, for a worker that helps
    cdef Py_ssize_t helped    # how many of those it has looked at
    cdef TokenBase kept_back  # made, and not taken by a full queue: the next to be handed over
    cdef object room          # notify of who waits until there is room for it
    cdef bint forgiving       # the consumer has what it wanted: later failures need not be reported
    cdef object __weakref__

    def __cinit__(self, bint on_loop):
        self.on_loop = on_loop
        self.ready = []
        self.tokens = {}

    @property
    def ready_count(self):
        """Ended tokens that have not been taken."""
        return len(self.ready)

    @property
    def submitted(self):
        """Tokens submitted through this collector so far."""
        return self.next_place

    @property
    def held(self):
        """Submitted tokens that have not been taken: what is in memory."""
        return len(self.tokens)

    # -- in ---------------------------------------------------------------------------------------------------------

    def attach(self, TokenBase token):
        """Watch a token somebody else made. On the consumer's thread."""
        cdef bint waits
        with cython.critical_section(self):
            self.pending += 1
        if self.on_loop:
            token._begin_await()
            token.blocking = False
            waits = token.store_callback(token.bind(), self, None)
        else:
            if self.attached is None:
                self.attached = []
            self.attached.append(token)
            waits = token.add_blocker(self)
        if not waits:
            self.note(token)

    cdef void note(self, TokenBase token) except *:
        """A token has ended."""
        cdef object waker = None
        cdef bint forgiving
        with cython.critical_section(self):
            self.pending -= 1
            self.ready.append(token)
            forgiving = self.forgiving  # together with the line above: partner of `forgive`, which looks at `ready`
            if self.waker is not None and (len(self.ready) >= self.want or self.pending == 0):
                waker = self.waker
                self.waker = None
        if forgiving:
            token.forgive()
        if waker is not None:
            waker()

    def submit_many(self, GuardBase guard, iterator, Py_ssize_t count, bint star, dict constants, bint keep,
                    int64_t budget):
        """Calls the guard with up to `count` items of an iterator, for at most about `budget` ns, or until its operation's
        queue is full (see `full`).

        star: an item is the tuple of positional arguments. constants: keyword arguments of every call, or None.
        keep: tokens remember their arguments. Returns True when the iterator is exhausted. What the iterator raises
        comes out after what it gave before has been submitted.
        """
        cdef Core core = guard.core(), home = core
        cdef Operation operation
        cdef dict kwargs
        cdef Packed packed = None
        cdef tg_token *chunk[CHUNK]
        cdef size_t filled = 0, full = 8, count_handed
        cdef bint taken, prompt = type(iterator) not in _KNOWN_ITERATORS
        cdef int64_t until = tg_now() + budget
        cdef Link link = None
        cdef InlineBlock block = None
        cdef str caller = None
        cdef TokenBase token
        cdef tuple args
        cdef object item
        cdef PyObject *deadline = NULL
        core.check()
        operation = guard.of(core)
        if not self.hand_over_kept():
            return False
        if tg_inline_open():
            block = _inline_block()
            if block is not None:
                count = min(count, 1)  # how far it runs ahead of its consumer must not depend on time
        prompt = prompt or block is not None or operation.bounded or (operation.shared is not None and operation.shared.bounded)
        loop = None
        if self.on_loop:
            loop = _running_loop()
            link = _link_to(loop)
            tg_pool_meet(core.pool, link.port)
            caller = link.caller(loop)
        try:
            while count > 0:
                count -= 1
                try:
                    item = next(iterator)
                except StopIteration:
                    return True
                args = tuple(item) if star else (item,)
                kwargs = None if constants is None else constants.copy()
                if guard.auto:
                    found = _elsewhere(home, guard.of(home), guard.fn, args, kwargs, guard.terms, guard.labels)
                    packed = None if found is None else <Packed>found[2]
                    if (home if found is None else <Core>found[0]) is not core:
                        # a chunk goes to one lane
                        count_handed = filled
                        filled = 0
                        self.hand_over(core, operation, chunk, count_handed)
                        core = home if found is None else <Core>found[0]
                        operation = guard.of(home) if found is None else <Operation>found[1]
                        if self.on_loop:
                            tg_pool_meet(core.pool, link.port)
                token = core.make(guard.runtime.token_class, operation, guard.labels, guard.plain, guard.fn, args, kwargs)
                token.place = self.next_place
                if keep:
                    token.needed().kept = args
                if self.on_loop:
                    token.link = link
                    token.caller_name = caller
                    token.context = link.context_of_now(loop)
                else:
                    token.context = _own_context()
                if block is None:
                    self.await_end(token)
                self.next_place += 1
                PyContextVar_Get(_deadline_var, NULL, &deadline)
                if guard.terms is not None or operation.terms is not None or deadline is not NULL:
                    token.t.created = tg_now()
                    if not self.dress(core, token, operation, guard, deadline):
                        if block is not None:
                            self.note(token)
                        continue
                if block is not None:
                    if self.run_inline(block, core, token):
                        continue
                    self.await_end(token)
                if core.sent_lock is not None and not self.pack(core, token, block is not None, packed):
                    continue
                tg_lend(token)  # the queue's reference, held for it by the chunk
                chunk[filled] = &token.t
                filled += 1
                if prompt or filled == full:
                    # An iterator that runs code of its own may wait for what it gave before, or take its time.
                    count_handed = filled
                    filled = 0
                    taken = self.hand_over(core, operation, chunk, count_handed)
                    if block is not None:
                        block.remember(token)
                    if not taken:
                        return False
                    full = CHUNK
                    if tg_now() >= until:
                        return False
            return False
        finally:
            # also when the iterator, or an item that is no tuple, raised: what came before it is on its way
            self.hand_over(core, operation, chunk, filled)

    cdef void await_end(self, TokenBase token):
        # before it is shared: who ends it will come for this
        if self.on_loop:
            token.callback = self
            tg_word_announce(&token.t.word, TG_WAITER)
        else:
            token.needed().blockers = [self]
            tg_word_announce(&token.t.word, TG_BLOCKED)

    cdef bint run_inline(self, InlineBlock block, Core core, TokenBase token) except -1:
        # True: it has run, and is noted here and now, on the consumer's own thread.
        cdef bint ran = True
        token.t.created = tg_now()
        with cython.critical_section(self):
            self.pending += 1
            self.tokens[token.place] = token
        try:
            ran = block.call(core, token)
        finally:
            if ran:
                self.note(token)
            else:
                with cython.critical_section(self):
                    self.pending -= 1  # hand_over counts it
        return ran

    cdef bint dress(self, Core core, TokenBase token, Operation operation, GuardBase guard, PyObject *deadline) except -1:
        # False: it has ended over that, and is on its way to `note`.
        with cython.critical_section(self):
            self.pending += 1
            self.tokens[token.place] = token
        if not _dress(core, token, operation, guard.terms, guard.receiver, deadline):
            return False
        with cython.critical_section(self):
            self.pending -= 1  # hand_over counts it
        return True

    cdef bint pack(self, Core core, TokenBase token, bint keep, Packed packed) except -1:
        # False: it has ended over that, and is on its way to `note`.
        cdef bint raised = True
        if token.t.created == 0:
            token.t.created = tg_now()
        with cython.critical_section(self):
            self.pending += 1
            self.tokens[token.place] = token
        try:
            (<RemoteCore>core).pack(token, keep, packed)
            raised = False
        finally:
            if raised or not tg_ended(tg_word_load(&token.t.word)):
                with cython.critical_section(self):
                    self.pending -= 1  # hand_over counts it
                    if raised:
                        del self.tokens[token.place]
        return not tg_ended(tg_word_load(&token.t.word))

    cdef bint hand_over(self, Core core, Operation operation, tg_token **chunk, size_t count) except -1:
        # No code of the user's runs in here: what can be seen in `tokens` has been submitted. False: the queue is full,
        # and the token that found it so is kept back (of bounded operations they come singly).
        cdef tg_receipt receipt
        cdef TokenBase token
        cdef size_t i
        cdef int64_t now
        if count == 0:
            return True
        now = tg_now()
        with cython.critical_section(self):
            self.pending += count
            for i in range(count):
                token = <TokenBase>chunk[i].owner
                token.t.created = now
                self.tokens[token.place] = token
        receipt = tg_pool_submit(core.pool, operation.record(), chunk, count, True, now)
        core.carry_out(receipt.summons)
        for i in range(receipt.taken):
            # what has been taken may be running, but this consumer, who has not looked yet, holds it
            if chunk[i].extra is not NULL:
                _arm(core, <TokenBase>chunk[i].owner, 0)
        if receipt.taken == count:
            return True
        for i in range(receipt.taken, count):
            token = <TokenBase>chunk[i].owner
            Py_DECREF(token)
            if receipt.closed:
                core.refuse(token)
            else:
                self.keep_back(core, operation, token)
        return receipt.closed

    cdef void keep_back(self, Core core, Operation operation, TokenBase token) except *:
        if self.kept_back is None:
            self.kept_back = token
        else:  # the policy was changed while a chunk was being filled
            _overflow(core, token, operation)

    cdef bint hand_over_kept(self) except -1:
        """False: there is still no room for the token that was kept back."""
        cdef TokenBase token = self.kept_back
        if token is None:
            return True
        self.forget_room()
        if not tg_ended(tg_word_load(&token.t.word)):
            if not token.core.hand_over(token, True) and not tg_ended(tg_word_load(&token.t.word)):
                return False
            if token.t.extra is not NULL:
                _arm(token.core, token, 0)
        self.kept_back = None
        return True

    @property
    def full(self):
        """True while a token is kept back because its operation's queue is full."""
        return self.kept_back is not None

    def watch_room(self, notify):
        """Calls `notify()` once when there may be room for the token that is kept back. False: there may be already."""
        cdef TokenBase token = self.kept_back
        if token is None:
            return False
        self.forget_room()
        if not _watch_room(token.core, token.t.op, notify):
            return False
        self.room = notify
        return True

    def forget_room(self):
        """The consumer no longer waits for room."""
        if self.room is not None and self.kept_back is not None:
            _unwatch_room(self.kept_back.core, self.room)
        self.room = None

    # -- out --------------------------------------------------------------------------------------------------------

    def wake_when(self, Py_ssize_t want, waker):
        """Calls `waker()` once `want` ended tokens are ready, or none is pending. False: that is so already."""
        with cython.critical_section(self):
            if len(self.ready) >= want or self.pending == 0:
                return False
            self.want = want
            self.waker = waker
            return True

    def forget_waker(self):
        """The consumer no longer waits."""
        with cython.critical_section(self):
            self.waker = None

    def take(self):
        """The ended tokens so far, in the order they ended."""
        cdef list ready
        with cython.critical_section(self):
            ready = self.ready
            self.ready = []
        for token in ready:
            if (<TokenBase>token).place >= 0:
                self.tokens.pop((<TokenBase>token).place, None)
        return ready

    def take_place(self, Py_ssize_t place):
        """The token submitted at that place if it has ended, else None; for consumers who want them in order."""
        cdef TokenBase token = self.tokens.get(place)
        if token is None or not tg_ended(token.look()):
            return None
        del self.tokens[place]
        return token

    def forget_ready(self):
        """Drops the list of ended tokens, for consumers who take them by place."""
        with cython.critical_section(self):
            self.ready = []

    def store(self, list results, bint return_exceptions):
        """Takes the ended tokens and puts each one's result at its place in `results`. Raises the first failure unless
        return_exceptions, which puts the exception there instead."""
        cdef TokenBase token
        cdef object value
        cdef list taken = self.take()
        cdef Py_ssize_t i
        for i in range(len(taken)):
            token = <TokenBase>taken[i]
            if tg_state_of(tg_word_load(&token.t.word)) == TG_COMPLETED:
                value = token.value
            elif return_exceptions:
                value = _exception_of(token)
            else:
                for each in taken[i + 1:]:
                    (<TokenBase>each).forgive()  # only the first failure is the consumer's
                value = token.outcome()
            while len(results) <= token.place:
                results.append(None)
            results[token.place] = value

    def unfinished(self):
        """The submitted tokens that have not been taken, oldest first."""
        return list(self.tokens.values())

    def cancel_unstarted(self):
        """Cancels the submitted tokens whose function has not started."""
        for token in self.unfinished():
            (<TokenBase>token).end(TG_CANCELLED, None, True)

    def forgive(self):
        """The consumer has gone, or has its failure: what else the tokens fail with need not be reported."""
        cdef list ready
        with cython.critical_section(self):
            self.forgiving = True
            ready = list(self.ready)
        for token in ready:
            (<TokenBase>token).forgive()

    def satisfied(self, Py_ssize_t want):
        """True if `want` ended tokens are ready, or none is pending."""
        return len(self.ready) >= want or self.pending == 0

    def help(self, Worker worker):
        """By a worker about to block for this collector: runs one token that has not started. False: there is none."""
        cdef TokenBase token
        if self.attached is not None:
            while self.helped < len(self.attached):
                token = <TokenBase>self.attached[self.helped]
                self.helped += 1
                if worker.help(token):
                    return True
        for each in self.unfinished():
            if worker.help(<TokenBase>each):
                return True
        return False

    def begin_waiting(self, Worker worker, Py_ssize_t want):
        """Before a worker blocks for `want` of this collector's tokens: TokenDeadlock if that can never be."""
        cdef bint all_of_them = want >= self.pending + len(self.ready)
        waits = [*self.unfinished(), *(self.attached or ())]
        _begin_waiting(worker, [each for each in waits if not each.done()], not all_of_them)

    def check_within(self):
        """Before a loop waits for this collector's tokens: TokenDeadlock if it is a worker's and none of them can end."""
        cdef TokenBase token
        for each in self.unfinished():
            token = <TokenBase>each
            if token.link is None or not token.link.within:
                return
            if not token.done():
                _check_within(token)
                return  # they are of one operation: what holds for one holds for all

    def end_waiting(self, Worker worker):
        """After `begin_waiting`."""
        worker.waits_for = None

    def discard(self):
        """Drops all tokens; what they failed with is of no interest any more."""
        self.forgive()
        for token in self.unfinished():
            (<TokenBase>token).forgive()
        self.tokens = {}
        self.forget_ready()


def raise_first_failure(tokens):
    """Raises what the first of these ended tokens failed with, if any did."""
    for each in tokens:
        if tg_state_of(tg_word_load(&(<TokenBase?>each).t.word)) != TG_COMPLETED:
            (<TokenBase>each).outcome()


cdef object _exception_of(TokenBase token):
    try:
        return token.exception()
    except (_LoopCancelled, _BlockedCancelled) as error:
        return error


def outcomes(tokens, bint return_exceptions):
    """The results of ended tokens, in order. Raises the first failure unless return_exceptions."""
    cdef TokenBase token
    cdef list results = []
    for each in tokens:
        token = <TokenBase?>each
        if return_exceptions and tg_state_of(tg_word_load(&token.t.word)) != TG_COMPLETED:
            results.append(_exception_of(token))
        else:
            results.append(token.outcome())
    return results
