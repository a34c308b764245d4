# Operations: a name, its policy, its keys.

from types import MappingProxyType as _frozen

cdef enum:
    SAMPLES = 32           # runs remembered of which it is known what CPU time they took
    MAX_OPERATIONS = 1000  # beyond it, names share one queue and one set of figures, called "other"

OTHER = "other"


cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define TG_KEYS_NEED_LOCK 1
    #else
    #define TG_KEYS_NEED_LOCK 0
    #endif
    """
    const bint _keys_need_lock "TG_KEYS_NEED_LOCK"  # the GIL is not enough


cdef inline bint _found_at_once(object value):
    """Whether no code of anybody's runs when it is looked up among others of which that is true."""
    # not bytes: compared with a str, they warn under `python -b`
    cdef object kind = type(value)
    return kind is int or kind is str or kind is float or kind is bool or value is None


_renew_lock = threading.Lock()  # one thread of a forked child renews a core, the others wait

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock._at_fork_reinit)

# How long a token is expected to run, in ns, until its operation has been measured.
_HINTS = {"light": 200_000, "medium": 2_000_000, "heavy": 20_000_000}


@cython.final
cdef class Operation:
    """A name, its tags, and the native record with its queue and counters, in one coordinator."""

    cdef readonly str name
    cdef readonly object tags
    cdef tg_op *ptr         # belongs to the pool, which outlives every token of it
    cdef Operation shared   # not None: one name too many, which shares this one's record
    cdef Policy policy       # this and what follows from it: replaced under the critical section
    cdef Terms terms        # what the policy asks of each token, or None; replaced as a whole
    cdef bint bounded       # only so many may wait
    cdef dict keys          # value -> Key of those in use
    cdef Ref ref            # in a remote lane: of the function called last
    cdef object quarantine  # in a remote lane: what its calls end with until it is resumed, or None
    cdef int deaths         # in a remote lane: workers in a row that died of it; of no consequence if a count is lost
    # Of runs that a worker has measured for `lane="auto"`: ns by the clock and of CPU, and how many tokens lived then, on
    # average. Written by workers under a GIL; without one nothing is measured.
    cdef int64_t walls[SAMPLES]
    cdef int64_t cpus[SAMPLES]
    cdef uint64_t sampled
    cdef double crowd
    cdef Seat seat          # of operations called with lane="auto": where their calls go; else None
    # keys_lock: guards `keys` and what is in them once `odd`, and always without a GIL; reentrant, for a value's __eq__ is
    # the user's own code. Before that they are the GIL's, which nothing that looks at them lets go of.
    cdef object keys_lock
    cdef bint odd           # a value that can run code when it is looked up has been among `keys`

    cdef inline tg_op *record(self):
        return self.ptr if self.shared is None else self.shared.ptr

    cdef inline Operation books(self):
        """Whose deaths and quarantine are this one's."""
        return self if self.shared is None else self.shared

    cdef void adopt(self, Policy policy) except *:
        cdef Terms terms = policy.terms()
        cdef Policy old_policy
        cdef Terms old_terms
        with cython.critical_section(self):  # partners: `asks` and `rules`
            old_policy, self.policy = self.policy, policy
            old_terms, self.terms = self.terms, terms
            self.bounded = policy.max_waiting is not None

    cdef inline Terms asks(self):
        with cython.critical_section(self):
            return self.terms

    cdef void sample(self, int64_t wall, int64_t cpu) noexcept:
        cdef double lives = <double>tg_op_live(self.record())
        self.walls[self.sampled % SAMPLES] = wall
        self.cpus[self.sampled % SAMPLES] = cpu
        self.sampled += 1
        self.crowd += (lives - self.crowd) / min(self.sampled, <uint64_t>SAMPLES)

    cdef Policy rules(self):
        """The policy in force."""
        if self.shared is not None:
            return self.shared.rules()
        with cython.critical_section(self):
            return self.policy

    cdef Key acquire_key(self, object value):
        """The key of that value, with one more user. Raises what hashing and comparing the value raise."""
        cdef Key key
        cdef dict spare
        cdef bint at_once = not _keys_need_lock and _found_at_once(value)
        if self.shared is not None:
            return self.shared.acquire_key((self.name, value))
        if at_once and not self.odd and self.keys is not None:
            key = <Key>self.keys.get(value)
            if key is not None:
                key.users += 1
                return key
        key = Key()
        key.value = value
        spare = {} if at_once and self.keys is None else None
        if at_once and not self.odd:  # nothing that lets go of the GIL from here on: what is needed has been made
            return self.acquire_now(key, spare)
        with self.keys_lock:
            if not self.odd:
                self.odd = True  # before it is among them
            return self.acquire_now(key, spare)

    cdef Key acquire_now(self, Key new, dict spare):
        cdef Key key
        cdef dict keys
        while True:
            keys = self.keys
            if keys is None:
                if spare is None:
                    spare = {}  # which may run anything, as looking up does
                    continue
                self.keys = keys = spare
            key = keys.setdefault(new.value, new)
            if self.keys is keys:  # or, meanwhile, its last key has been released
                key.users += 1
                return key

    cdef void release_key(self, Key key):
        if self.shared is not None:
            self.shared.release_key(key)
        elif _keys_need_lock or self.odd:
            with self.keys_lock:
                self.release_now(key)
        else:
            self.release_now(key)

    cdef void release_now(self, Key key):
        cdef dict keys = self.keys
        key.users -= 1
        if key.users > 0:
            return
        try:
            del keys[key.value]
            if not keys and self.keys is keys:
                self.keys = None  # a dictionary keeps the room of all it ever held
        except Exception:
            _log.error("operation %r: the key %r can no longer be found among those in use; it must not change",
                       self.name, key.value, exc_info=True)
