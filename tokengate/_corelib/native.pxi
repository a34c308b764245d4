# What the core uses of the native headers and of CPython's C API.

cdef extern from "tg_word.h" nogil:
    enum:
        TG_CREATED
        TG_WAITING
        TG_ADMITTED
        TG_EXECUTING
        TG_COMPLETED
        TG_FAILED
        TG_CANCELLED
        TG_EXPIRED
        TG_KILLED
        TG_WAITER
        TG_BLOCKED
        TG_RUNNING
        TG_WATCHED
    ctypedef struct tg_word:
        pass
    ctypedef struct tg_step:
        bint moved
        uint32_t old
    ctypedef struct tg_edge:
        uint8_t from_ "from"
        uint8_t to
        const char *by
    const tg_edge *tg_edges(size_t *count)
    uint32_t tg_word_load(tg_word *w)
    uint32_t tg_state_of(uint32_t word)
    bint tg_ended(uint32_t word)
    bint tg_abandoned(uint32_t word)
    bint tg_over(uint32_t word)
    tg_step tg_word_submit(tg_word *w)
    tg_step tg_word_try_start(tg_word *w)
    tg_step tg_word_finish(tg_word *w, uint32_t to)
    tg_step tg_word_fail_unrun(tg_word *w)
    tg_step tg_word_end(tg_word *w, uint32_t to)
    tg_step tg_word_end_unstarted(tg_word *w, uint32_t to)
    uint32_t tg_word_returned(tg_word *w)
    uint32_t tg_word_announce(tg_word *w, uint32_t flag)

cdef extern from "tg_hist.h" nogil:
    enum:
        TG_HIST_BOUNDS
    ctypedef struct tg_hist:
        pass
    ctypedef struct tg_hist_view:
        uint64_t count
        double mean
        double max
        double p50
        double p99
        uint64_t total_count
        double total_sum
        uint64_t total_max
        uint64_t *le
    uint64_t tg_hist_bound_ns(uint32_t i)
    void tg_hist_record(tg_hist *h, uint64_t ns, uint64_t now)
    void tg_hist_snapshot(tg_hist *h, uint64_t now, tg_hist_view *view)

cdef extern from "tg_token.h" nogil:
    ctypedef struct tg_counter "_Atomic(uint64_t)":
        pass
    ctypedef struct tg_moment "_Atomic(int64_t)":
        pass
    ctypedef struct tg_times:
        tg_hist wait
        tg_hist run
    ctypedef struct tg_key:
        pass
    ctypedef struct tg_queue:
        pass
    ctypedef struct tg_extra:
        tg_queue *queue
        tg_key *key
        int32_t priority
        int64_t run_timeout
        void *key_owner
        tg_moment deadline
        tg_token *token
    ctypedef struct tg_policy:
        uint32_t limit
        uint32_t key_limit
        uint64_t max_waiting
        int32_t priority
        uint8_t overflow
    cdef enum:
        TG_REJECT
        TG_SHED_OLDEST
        TG_BLOCK
    ctypedef struct tg_op:
        tg_counter shed
        tg_counter submitted
        tg_counter admitted
        tg_counter started
        tg_counter returned
        tg_counter dropped
        tg_counter rejected
        tg_counter abandoned_total
        tg_counter *ended
        tg_times times
    ctypedef struct tg_token:
        tg_word word
        uint32_t generation
        tg_token *next
        tg_token *prev
        tg_op *op
        tg_extra *extra
        void *owner
        int64_t charge
        uint64_t id
        int64_t created
        tg_moment admitted
        tg_moment started
        int64_t finished
        int64_t ended
    void tg_stamp(tg_moment *field, int64_t now)
    int64_t tg_stamped(tg_moment *field)
    void tg_count(tg_counter *counter)
    uint64_t tg_counted(tg_counter *counter)
    void tg_op_ended(tg_op *op, uint32_t state)
    uint64_t tg_op_live(tg_op *op)
    void tg_op_abandoned_add(tg_op *op, int64_t n)
    int64_t tg_op_abandoned_now(tg_op *op)
    bint tg_op_give_place(tg_op *op, tg_counter *counter)
    bint tg_op_gated(tg_op *op)
    bint tg_op_barred(tg_op *op)
    void tg_token_init(tg_token *t, tg_op *op, void *owner, uint64_t id, uint32_t generation)

cdef extern from "tg_inbox.h" nogil:
    ctypedef struct tg_inbox:
        pass
    bint tg_inbox_push(tg_inbox *box, tg_token *token, int64_t now)
    tg_token *tg_inbox_take(tg_inbox *box)
    bint tg_inbox_arm(tg_inbox *box, int64_t now)
    int64_t tg_inbox_armed_at(tg_inbox *box)

cdef extern from "tg_port.h" nogil:
    ctypedef struct tg_port:
        tg_inbox box
        tg_hist lag
        tg_bell *bell
    tg_port *tg_port_new(tg_bell *bell)
    tg_port *tg_port_retain(tg_port *p)
    void tg_port_release(tg_port *p)
    void tg_port_close(tg_port *p)
    void tg_port_mute(tg_port *p)
    void tg_port_adopt(tg_port *p)
    void tg_port_answer(tg_port *p, int64_t now)
    bint tg_port_due(tg_port *p, int64_t now, int64_t waited, uint32_t *seen)
    bint tg_port_late(tg_port *p, int64_t now)
    void tg_port_await(tg_port *p, uint32_t seen)
    double tg_port_busy(tg_port *p, int64_t now)

cdef extern from "tg_bell.h" nogil:
    ctypedef struct tg_bell:
        int fd
    tg_bell *tg_bell_new()
    tg_bell *tg_bell_retain(tg_bell *bell)
    void tg_bell_release(tg_bell *bell)
    void tg_bell_ring(tg_bell *bell)
    void tg_bell_clear(tg_bell *bell)

cdef extern from "tg_law.h" nogil:
    enum:
        TG_LAW_HELD
    ctypedef int tg_reason

cdef extern from "tg_pool.h" nogil:
    enum:
        TG_POOL_CHANGES
    ctypedef struct tg_parker:
        pass
    ctypedef struct tg_worker:
        tg_parker parker
        uint32_t index
        int wake_fd
        int32_t clock
    ctypedef struct tg_pool:
        pass
    ctypedef struct tg_summons:
        tg_worker *wake
        bint start
        bint room
        bint keeper
    ctypedef struct tg_receipt:
        size_t taken
        bint closed
        tg_token *shed
        tg_summons summons
    ctypedef struct tg_change:
        uint32_t from_ "from"
        uint32_t to
        tg_reason reason
        double busy
        double level
    ctypedef struct tg_pool_view:
        uint32_t workers
        uint32_t idle
        uint32_t max_workers
        uint32_t limit
        uint64_t queued
        uint64_t admitted
        uint64_t wakes
        uint64_t cuts
        tg_reason reason
        double cpu_seconds
    ctypedef struct tg_op_view:
        uint64_t waiting
        bint paused
        tg_policy policy
        int64_t oldest
        uint32_t looks
        uint32_t held
    tg_pool *tg_pool_new(uint32_t max_workers, uint32_t limit)
    tg_pool *tg_pool_retain(tg_pool *p)
    void tg_pool_release(tg_pool *p)
    tg_op *tg_pool_add_op(tg_pool *p, uint64_t hint, const tg_policy *policy)
    tg_queue *tg_pool_key_queue(tg_pool *p, tg_op *op)
    uint64_t tg_pool_new_id(tg_pool *p)
    uint64_t tg_pool_new_ids(tg_pool *p)
    void tg_pool_watch(tg_pool *p, bint on)
    bint tg_pool_watched(tg_pool *p)
    tg_receipt tg_pool_submit(tg_pool *p, tg_op *op, tg_token **tokens, size_t count, bint patient, int64_t now)
    tg_summons tg_pool_freed(tg_pool *p, tg_op *op, int64_t now)
    void tg_pool_freed_quietly(tg_pool *p, tg_op *op)
    void tg_pool_give_key(tg_pool *p, tg_token *t)
    bint tg_pool_unlink(tg_pool *p, tg_token *t)
    tg_worker *tg_pool_enter(tg_pool *p)
    void tg_worker_runs(tg_worker *w, tg_op *op)
    tg_op *tg_worker_running(tg_worker *w)
    uint32_t tg_pool_start_failed(tg_pool *p)
    tg_token *tg_pool_wait(tg_pool *p, tg_worker *w)
    tg_summons tg_pool_claimed(tg_pool *p, tg_worker *w)
    tg_token *tg_pool_next(tg_pool *p, tg_worker *w, tg_op *op, int64_t charge, int64_t run, bint late, int64_t now,
                           tg_summons *out)
    tg_token *tg_pool_skip(tg_pool *p, tg_worker *w, tg_op *op, int64_t charge, int64_t now, tg_summons *out)
    cdef enum tg_start:
        TG_STARTED
        TG_PUT_BACK
        TG_NOT_STARTED
    tg_start tg_pool_start(tg_pool *p, tg_token *t)
    tg_summons tg_pool_aside(tg_pool *p, tg_op *op, int64_t now)
    bint tg_pool_replaceable(tg_pool *p)
    void tg_pool_back(tg_pool *p, tg_op *op)
    size_t tg_pool_recall(tg_pool *p, tg_token **out, size_t most)
    tg_token *tg_pool_again(tg_pool *p, tg_worker *w, int64_t now, tg_summons *out)
    bint tg_pool_help(tg_pool *p, tg_token *t, int64_t now, uint32_t *was, tg_summons *out)
    bint tg_pool_start_here(tg_pool *p, tg_token *t, int64_t now)
    tg_summons tg_pool_abandon(tg_pool *p, tg_op *op, int64_t now)
    void tg_pool_abandon_quietly(tg_pool *p, tg_op *op)
    tg_summons tg_pool_nudge(tg_pool *p, int64_t now)
    void tg_pool_unabandon(tg_pool *p)
    void tg_pool_refuse(tg_pool *p)
    void tg_pool_close(tg_pool *p)
    void tg_pool_open(tg_pool *p)
    size_t tg_pool_unstarted(tg_pool *p, tg_op *only)
    size_t tg_pool_detach(tg_pool *p, tg_op *only, tg_token **out, size_t most)
    tg_token *tg_pool_find(tg_pool *p, uint64_t id, void (*hold)(void *) noexcept nogil)
    size_t tg_pool_list(tg_pool *p, tg_token **out, size_t most, void (*hold)(void *) noexcept nogil)
    tg_token *tg_pool_first(tg_pool *p, tg_op *op, void (*hold)(void *) noexcept nogil)
    tg_summons tg_pool_pause(tg_pool *p, tg_op *only, bint paused)
    void tg_pool_pause_quietly(tg_pool *p, tg_op *only, bint paused)
    tg_summons tg_pool_configure(tg_pool *p, tg_op *op, const tg_policy *policy)
    void tg_pool_configure_quietly(tg_pool *p, tg_op *op, const tg_policy *policy)
    bint tg_pool_want_room(tg_pool *p, tg_op *op, bint wanted)
    void tg_pool_reserve(tg_pool *p, bint on)
    void tg_pool_resize(tg_pool *p, uint32_t max_workers, uint32_t limit, tg_summons *out)
    void tg_pool_steer(tg_pool *p, int64_t target, uint32_t initial, uint32_t cpus, bint gil)
    void tg_pool_cpus(tg_pool *p, uint32_t cpus, uint32_t initial)
    uint32_t tg_pool_cpus_now(tg_pool *p)
    void tg_pool_meet(tg_pool *p, tg_port *port)
    bint tg_pool_alone(tg_pool *p)
    void tg_pool_attached(tg_pool *p, int64_t ns)
    size_t tg_pool_changes(tg_pool *p, uint64_t *seen, tg_change *out)
    void tg_pool_look(tg_pool *p, tg_pool_view *view)
    void tg_pool_look_op(tg_pool *p, tg_op *op, tg_op_view *view)
    void tg_unpark(tg_parker *p)

    void tg_worker_wake(tg_worker *w)
    void tg_pool_book(tg_pool *p, tg_worker *w, tg_op *op, int64_t charge, int64_t run)
    tg_token *tg_pool_poll(tg_pool *p, tg_worker *w, bint *left)

cdef extern from "tg_carry.h" nogil:
    tg_start tg_pool_keep(tg_pool *p, tg_token *t)
    void tg_pool_uncharge(tg_pool *p, tg_op *op, int64_t charge)
    bint tg_pool_give_back(tg_pool *p, tg_token *t)
    tg_token *tg_pool_fetch(tg_pool *p, tg_worker *w, int64_t now, tg_summons *out)
    int64_t tg_pool_backlog(tg_pool *p, int64_t unknown, int64_t enough)
    int64_t tg_pool_expected(tg_pool *p, tg_op *op, int64_t unknown)

cdef extern from "tg_wire.h" nogil:
    int TG_WIRE_FULL
    unsigned int tg_wire_listen(int first, int second, int third, int timeout_ms)
    int64_t tg_wire_send(int socket, const void *data, size_t size)
    int64_t tg_wire_receive(int socket, void *data, size_t size)
    void tg_wire_clear(int bell)

cdef extern from "tg_plain.h" nogil:
    bint tg_plain(const unsigned char *pickle, size_t size)

cdef extern from "tg_board.h" nogil:
    enum:
        TG_BOARD_SLOTS
    cdef enum tg_slot:
        TG_SLOT_SENT
        TG_SLOT_BEGUN
        TG_SLOT_DECLARED
    ctypedef struct tg_board:
        pass
    ctypedef struct tg_reply:
        uint64_t number
        int64_t started
        int64_t run
        uint32_t size
        uint32_t kind
    void tg_board_send(tg_board *b, uint64_t number, tg_slot state)
    bint tg_board_revoke(tg_board *b, uint64_t number)
    bint tg_board_is(tg_board *b, uint64_t number, tg_slot state)
    bint tg_board_look(tg_board *b, tg_reply *reply, const unsigned char **payload)
    bint tg_board_has_news(tg_board *b)
    void tg_board_took(tg_board *b, const tg_reply *reply)

cdef extern from "tg_timer.h" nogil:
    ctypedef struct tg_timers:
        pass
    cdef enum:
        TG_TIMERS_NOTHING
        TG_TIMERS_WAKE
        TG_TIMERS_START
        TG_TIMERS_NO_MEMORY
    tg_timers *tg_timers_new()
    tg_timers *tg_timers_retain(tg_timers *s)
    void tg_timers_release(tg_timers *s)
    int tg_timers_arm(tg_timers *s, tg_extra *x, int64_t deadline)
    void tg_timers_disarm(tg_timers *s, tg_extra *x)
    size_t tg_timers_due(tg_timers *s, int64_t now, tg_token **out, size_t most, void (*hold)(void *) noexcept nogil)
    bint tg_timers_wait(tg_timers *s)
    void tg_timers_start_failed(tg_timers *s)
    void tg_timers_close(tg_timers *s)
    void tg_timers_open(tg_timers *s)
    void tg_timers_wake(tg_timers *s)
cdef extern from "tg_keeper.h" nogil:
    ctypedef enum tg_errand:
        TG_KEEPER_LEAVE
        TG_KEEPER_ACT
        TG_KEEPER_LOG
        TG_KEEPER_CPUS
    ctypedef struct tg_keeper:
        pass
    tg_keeper *tg_keeper_new(tg_pool *p)
    void tg_keeper_free(tg_keeper *k)
    bint tg_keeper_call(tg_pool *p)
    void tg_keeper_gone(tg_pool *p)
    void tg_keeper_stand(tg_keeper *k, const char *ground, uint64_t print)
    void tg_keeper_want_log(tg_keeper *k, bint on)
    tg_errand tg_keeper_run(tg_keeper *k, tg_summons *out)

cdef extern from *:
    """
    #if defined(__clang__)
    #  define TG_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #  define TG_COMPILER "gcc " __VERSION__
    #elif defined(_MSC_VER)
    #  define TG_COMPILER "MSVC"
    #else
    #  define TG_COMPILER "unknown"
    #endif
    #if defined(TG_DEBUG) && TG_DEBUG
    #  define TG_BUILD "debug: without optimisation, figures mean nothing"
    #elif defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    #  define TG_BUILD "with a sanitizer: figures mean nothing"
    #else
    #  define TG_BUILD "release"
    #endif
    """
    int CYTHON_HEX_VERSION
    const char *TG_COMPILER
    const char *TG_BUILD

cdef extern from *:
    """
    /* Whether the thread of that PyThreadState is attached to the interpreter, asked from any thread while that one lives.
     * What is read is CPython's own; tg_gil_is_seen tries it first. Nothing is ordered by it: it samples. */
    static bool tg_holds_gil(void *state)
    {
    #if PY_VERSION_HEX >= 0x030d0000
        return ((volatile PyThreadState *)state)->state == 1;
    #elif PY_VERSION_HEX >= 0x030c0000
        return ((volatile PyThreadState *)state)->_status.active;
    #else
        return (void *)_PyThreadState_UncheckedGet() == state;
    #endif
    }
    static bool tg_gil_is_seen(void)
    {
        void *state = PyThreadState_Get();
        bool attached = tg_holds_gil(state), detached;
        Py_BEGIN_ALLOW_THREADS
        detached = !tg_holds_gil(state);
        Py_END_ALLOW_THREADS
        return attached && detached;
    }
    static void tg_watch_own_gil(tg_pool *p, tg_worker *w)
    {
        if (tg_gil_is_seen())
            tg_pool_watch_gil(p, w, tg_holds_gil, PyThreadState_Get());
    }
    """
    void tg_watch_own_gil(tg_pool *p, tg_worker *w)

cdef extern from "tg_port.h" nogil:
    int64_t tg_clock_cpu(int32_t clock)
    int32_t tg_own_clock()

cdef extern from "tg_ground.h" nogil:
    uint64_t tg_ground_print(const char *paths)

cdef extern from "tg_base.h" nogil:
    int64_t tg_now()

cdef extern from "tg_fork.h" nogil:
    uint32_t tg_generation()
    bint tg_fork_watch()

cdef extern from "tg_inline.h" nogil:
    bint tg_inline_open()
    void tg_inline_count(bint entered)

cdef extern from "Python.h":
    int PyContextVar_Get(object var, PyObject *default_value, PyObject **value) except -1
    PyObject *PyThreadState_GetDict()
    PyObject *PyDict_GetItemWithError(object d, object key) except? NULL
    bint PyFunction_Check(object o)
    bint PyCFunction_Check(object o)
    ctypedef struct PyTypeObject:
        object (*tp_new)(type, object, PyObject *)
    object PyObject_GenericGetAttr(object o, object name)
    void PyObject_GC_UnTrack(object o)
    void PyObject_GC_Track(object o)
    bint PyObject_GC_IsTracked(object o)
    bint PyObject_IS_GC(object o)
    bint PyMethod_Check(object o)
