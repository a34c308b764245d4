# What calls and callbacks run in: a copy of the context they were made in, so that what they set stays with them.
#
# Many are made in a row, on one loop and in one context. These share one copy, a _Snapshot, which nobody ever enters;
# whoever runs them enters a copy of that, and the same one again as long as nobody has set anything in it. So of a
# thousand calls not each needs contexts of its own, of which the garbage collector would have to hear as well.

cdef enum:
    ALIKE = 8  # calls and callbacks made in a row before they share

cdef extern from *:
    """
    /* How CPython's own contexts begin. The mapping of a context is never changed, only replaced, so two contexts with the
     * same one hold the same values. Whether contexts do begin like this is looked at before it is relied on. */
    typedef struct { PyObject_HEAD void *before; void *vars; } tg_context;
    static void *tg_vars_of(PyObject *context) { return ((tg_context *)context)->vars; }
    static void *tg_vars_now(void)
    {
        PyObject *context = PyThreadState_Get()->context;
        return context == NULL ? NULL : tg_vars_of(context);
    }
    """
    void *tg_vars_of(object context)
    void *tg_vars_now()  # NULL: this thread has entered no context

cdef extern from "Python.h":
    object PyContext_CopyCurrent()
    object PyContext_Copy(object context)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    Py_ssize_t Py_REFCNT(object o) noexcept


@cython.final
cdef class _Snapshot:
    """A copy of a context that several calls and callbacks share. Nobody enters it."""

    cdef object context

    def __cinit__(self):
        self.context = PyContext_CopyCurrent()


cdef bint _vars_are_seen() except -1:
    """Whether a context begins as tg_context says."""
    var = contextvars.ContextVar("tokengate.probe")
    one = contextvars.Context()
    same = one.copy()
    other = one.copy()
    other.run(var.set, 1)
    PyContext_Enter(other)
    try:
        now = tg_vars_now() == tg_vars_of(other)
    finally:
        PyContext_Exit(other)
    return (now and tg_vars_of(one) is not NULL and tg_vars_of(one) == tg_vars_of(same) and
            tg_vars_of(other) != tg_vars_of(one) and tg_vars_of(other) == tg_vars_of(other.copy()))

cdef bint _can_share = _vars_are_seen()  # the same in every interpreter


cdef object _own_context():
    """A copy of the current context for a token's own use. Untracked: nothing can refer to it but its token and the
    thread that runs in it. `_disown` before it is dropped or handed out."""
    context = PyContext_CopyCurrent()
    PyObject_GC_UnTrack(context)
    tg_give(context)  # the thread that runs in it drops it
    return context


cdef inline void _disown(object context) noexcept:
    # CPython's deallocator of contexts takes it for granted that they are tracked. Snapshots are.
    if context is not None and not PyObject_GC_IsTracked(context):
        PyObject_GC_Track(context)


cdef object _given_out(object context):
    """For somebody else to run something in: of what is shared, a copy."""
    return PyContext_Copy((<_Snapshot>context).context) if type(context) is _Snapshot else context


@cython.final
cdef class _Wardrobe:
    """Contexts of one thread for what it runs: the copy of the _Snapshot it has used last."""

    cdef _Snapshot of
    cdef object context

    cdef inline object take(self, object context):
        """What to enter for it. Empties the wardrobe: what that held is not kept while something else runs."""
        cdef object kept
        if type(context) is not _Snapshot:
            self.clear()
            return context
        if self.of is context:
            kept = self.context
            self.context = None
            if kept is not None:
                return kept
        self.clear()
        return PyContext_Copy((<_Snapshot>context).context)

    cdef inline void put(self, object context, object used) noexcept:
        """`used`, which was entered for it, has been left."""
        # Somebody who still refers to it (what ContextVar.set returns does) could tell that it is not his alone.
        if type(context) is _Snapshot and tg_vars_of(used) == tg_vars_of((<_Snapshot>context).context):
            if self.of is not context:
                self.clear()
                if self.of is None:  # it is: but for what a finalizer may have run just now
                    self.of = <_Snapshot>context
            if self.of is context and self.context is None:  # what ran meanwhile may have put one here
                self.context = used

    cdef inline void clear(self) noexcept:
        cdef object of, kept
        if self.of is not None:
            of = self.of  # both are dropped last: values may have finalizers, which run anything
            kept = self.context
            self.of = None
            self.context = None
