# References that go from the thread that calls to the worker that runs. On free-threaded builds an object counts the
# references of the thread that made it and those of all others apart, and a thread that drops the last of the others' has to
# queue the object for its maker, under a lock that is one for all that this maker has made.

cdef extern from *:
    """
    /* A reference for others, counted as theirs from the start. By the thread that made the object, or any other. */
    static inline void tg_lend(PyObject *object)
    {
    #ifdef Py_GIL_DISABLED
        _Py_atomic_add_ssize(&object->ob_ref_shared, _Py_REF_SHARED(1, 0)); /* partner: who drops it, any thread */
    #else
        Py_INCREF(object);
    #endif
    }
    /* All references to an object that nobody else knows yet are to be others': it has no maker from here on, and whoever
     * drops the last one frees it. By the thread that made it. */
    static inline void tg_give(PyObject *object)
    {
    #ifdef Py_GIL_DISABLED
        if (object->ob_tid == _Py_ThreadId() && object->ob_ref_shared == 0) {
            Py_ssize_t count = object->ob_ref_local;
            object->ob_ref_local = 0;
            object->ob_tid = 0;
            object->ob_ref_shared = _Py_REF_SHARED(count, _Py_REF_MERGED);
        }
    #else
        (void)object;
    #endif
    }
    /* Takes the reference out of a token's field; None stays. Assigning to a variable and then None to the field would count
     * up and down, for the function and the context on a line that all workers share. */
    static inline PyObject *tg_take(PyObject **field)
    {
        PyObject *object = *field;
        *field = Py_NewRef(Py_None);
        return object;
    }
    #define TG_TAKE(token, field) tg_take(&((struct __pyx_obj_9tokengate_5_core_TokenBase *)(token))->field)
    #define tg_take_fn(token) TG_TAKE(token, fn)
    #define tg_take_args(token) TG_TAKE(token, args)
    #define tg_take_kwargs(token) TG_TAKE(token, kwargs)
    #define tg_take_context(token) TG_TAKE(token, context)
    """
    void tg_lend(object o)
    void tg_give(object o)
    object tg_take_fn(object token)
    object tg_take_args(object token)
    object tg_take_kwargs(object token)
    object tg_take_context(object token)
