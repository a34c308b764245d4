/* The worker's side of the board (tg_board.h), for the loop in tokengate/lanes/child.py.
 *
 * By hand and in C: it must load in a sub-interpreter with a GIL of its own, and without the rest of the package. The board
 * is any writable buffer of at least `size` bytes.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "tg_board.h"

#if !defined(_WIN32)
#  include <errno.h>
#  include <poll.h>
#  include <pthread.h>
#  include <sys/socket.h>
#  include <time.h>
#  include <unistd.h>
#endif
#if defined(__linux__)
#  include <signal.h>
#  include <sys/mman.h>
#  include <sys/prctl.h>
#endif

static tg_board *board_of(PyObject *object, Py_buffer *view)
{
    if (PyObject_GetBuffer(object, view, PyBUF_WRITABLE) < 0)
        return NULL;
    if (view->len >= (Py_ssize_t)sizeof(tg_board))
        return (tg_board *)view->buf;
    PyErr_Format(PyExc_ValueError, "a board needs %zu bytes, this buffer has %zd", sizeof(tg_board), view->len);
    PyBuffer_Release(view);
    return NULL;
}

static bool wants(const char *name, Py_ssize_t count, Py_ssize_t expected)
{
    if (count == expected)
        return true;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, got %zd", name, expected, count);
    return false;
}

PyDoc_STRVAR(begin_doc, "begin(board, number, /)\n--\n\n"
                        "True: the token of that number is the worker's to run. False: it was taken back.");

static PyObject *begin(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    Py_buffer view;
    if (!wants("begin", count, 2))
        return NULL;
    unsigned long long number = PyLong_AsUnsignedLongLong(args[1]);
    if (number == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    tg_board *board = board_of(args[0], &view);
    if (board == NULL)
        return NULL;
    bool ours = tg_board_begin(board, number);
    PyBuffer_Release(&view);
    return PyBool_FromLong(ours);
}

PyDoc_STRVAR(post_doc, "post(board, number, started, run, kind, payload, /)\n--\n\n"
                       "Posts a reply; False where it does not fit.\n\n"
                       "started: monotonic ns; run: ns; payload: bytes or None.");

static PyObject *post(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    Py_buffer view;
    tg_reply reply;
    char *payload = NULL;
    Py_ssize_t size = 0;
    if (!wants("post", count, 6))
        return NULL;
    reply.number = PyLong_AsUnsignedLongLong(args[1]);
    reply.started = PyLong_AsLongLong(args[2]);
    reply.run = PyLong_AsLongLong(args[3]);
    reply.kind = (uint32_t)PyLong_AsUnsignedLong(args[4]);
    if (PyErr_Occurred())
        return NULL;
    if (args[5] != Py_None && PyBytes_AsStringAndSize(args[5], &payload, &size) < 0)
        return NULL;
    if (size > TG_BOARD_RING)
        Py_RETURN_FALSE;
    reply.size = (uint32_t)size;
    tg_board *board = board_of(args[0], &view);
    if (board == NULL)
        return NULL;
    bool done = tg_board_post(board, &reply, payload);
    PyBuffer_Release(&view);
    return PyBool_FromLong(done);
}

PyDoc_STRVAR(die_with_parent_doc, "die_with_parent()\n--\n\n"
                                  "Asks the system to kill this process when its parent ends. False where it cannot.");

static PyObject *die_with_parent(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
#if defined(__linux__)
    return PyBool_FromLong(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
#else
    Py_RETURN_FALSE;
#endif
}

PyDoc_STRVAR(interrupt_doc, "interrupt(thread, error, /)\n--\n\n"
                            "Raises an exception class in another thread of this interpreter, once that runs Python code.\n\n"
                            "False: there is no such thread.");

static PyObject *interrupt(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (!wants("interrupt", count, 2))
        return NULL;
    unsigned long thread = PyLong_AsUnsignedLong(args[0]);
    if (PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(PyThreadState_SetAsyncExc(thread, args[1]) > 0);
}

#if !defined(_WIN32)
/* Large new memory that is about to be filled: in large pages, where the system gives those on request, which spares a
 * fault for each of the small ones - a third of what it takes to receive it. */
static void fill_soon(char *start, Py_ssize_t size)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    uintptr_t mask = (2u << 20) - 1, first = ((uintptr_t)start + mask) & ~mask, end = ((uintptr_t)start + (size_t)size) & ~mask;
    if (first < end)
        (void)madvise((void *)first, end - first, MADV_HUGEPAGE); /* a hint: it may be refused */
#else
    (void)start, (void)size;
#endif
}

/* A bytearray or a bytes object that the caller is about to fill. */
static PyObject *unfilled(Py_ssize_t size, int mutable, char **into)
{
    PyObject *whole = mutable ? PyByteArray_FromStringAndSize(NULL, size) : PyBytes_FromStringAndSize(NULL, size);
    if (whole == NULL)
        return NULL;
    *into = mutable ? PyByteArray_AS_STRING(whole) : PyBytes_AS_STRING(whole);
    fill_soon(*into, size);
    return whole;
}

PyDoc_STRVAR(receive_doc, "receive(fd, size, head, mutable, /)\n--\n\n"
                          "Exactly `size` bytes of a stream socket, of which `head` has been read already.\n\n"
                          "As bytes or, `mutable`, a bytearray. Copied once. Blocks; fewer where the stream ends. OSError where reading fails.");

static PyObject *receive(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    char *head;
    Py_ssize_t have;
    if (!wants("receive", count, 4) || PyBytes_AsStringAndSize(args[2], &head, &have) < 0)
        return NULL;
    int fd = (int)PyLong_AsLong(args[0]);
    Py_ssize_t size = PyLong_AsSsize_t(args[1]);
    int mutable = PyObject_IsTrue(args[3]);
    if (PyErr_Occurred())
        return NULL;
    if (have > size) {
        PyErr_SetString(PyExc_ValueError, "receive(): the head is longer than the whole");
        return NULL;
    }
    char *into;
    PyObject *whole = unfilled(size, mutable, &into);
    if (whole == NULL)
        return NULL;
    memcpy(into, head, (size_t)have);
    while (have < size) {
        ssize_t got;
        Py_BEGIN_ALLOW_THREADS
        got = recv(fd, into + have, (size_t)(size - have), MSG_WAITALL);
        Py_END_ALLOW_THREADS
        if (got < 0 && errno == EINTR && PyErr_CheckSignals() == 0)
            continue;
        if (got < 0) {
            Py_DECREF(whole);
            return PyErr_Occurred() ? NULL : PyErr_SetFromErrno(PyExc_OSError);
        }
        if (got == 0)
            break;
        have += got;
    }
    if (have < size && mutable && PyByteArray_Resize(whole, have) < 0)
        Py_CLEAR(whole);
    if (have < size && !mutable)
        _PyBytes_Resize(&whole, have); /* NULL, with an exception, where it fails */
    return whole;
}

PyDoc_STRVAR(address_doc, "address(buffer, /)\n--\n\n"
                          "Where it lies. It stays there while somebody holds the buffer.");

static PyObject *address(PyObject *module, PyObject *buffer)
{
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *found = PyLong_FromVoidPtr(view.buf);
    PyBuffer_Release(&view);
    return found;
}

PyDoc_STRVAR(copied_doc, "copied(address, size, mutable, /)\n--\n\n"
                         "What lies there, in this process, as bytes or, `mutable`, a bytearray. Somebody must hold it meanwhile.");

static PyObject *copied(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    char *into;
    if (!wants("copied", count, 3))
        return NULL;
    const void *from = PyLong_AsVoidPtr(args[0]);
    Py_ssize_t size = PyLong_AsSsize_t(args[1]);
    int mutable = PyObject_IsTrue(args[2]);
    if (PyErr_Occurred())
        return NULL;
    PyObject *whole = unfilled(size, mutable, &into);
    if (whole == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    memcpy(into, from, (size_t)size);
    Py_END_ALLOW_THREADS
    return whole;
}

/* After a call on a socket that failed: whether to make it again, at once or once it can be made. */
static bool come_round(int fd, short event)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return poll(&(struct pollfd){fd, event, 0}, 1, -1) >= 0 || errno == EINTR;
    return errno == EINTR;
}

PyDoc_STRVAR(lend_doc, "lend(fd, message, settled, /)\n--\n\n"
                       "Sends a message that says where buffers lie, and returns once they have been read.\n\n"
                       "fd: a stream socket. settled: another one, on which a byte then comes. True: it has. False: that\n"
                       "socket's other end is closed, or the message could not be sent, and nobody reads them any more.\n"
                       "Blocks; no exception that another thread raises here gets in between.");

static PyObject *lend(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    char *message;
    Py_ssize_t size;
    if (!wants("lend", count, 3) || PyBytes_AsStringAndSize(args[1], &message, &size) < 0)
        return NULL;
    int fd = (int)PyLong_AsLong(args[0]), settled = (int)PyLong_AsLong(args[2]), flags = 0;
    if (PyErr_Occurred())
        return NULL;
#  if defined(MSG_NOSIGNAL)
    flags = MSG_NOSIGNAL;
#  endif
    ssize_t done = 0, got = 0;
    char byte;
    Py_BEGIN_ALLOW_THREADS
    while (done < size) {
        ssize_t sent = send(fd, message + done, (size_t)(size - done), flags);
        if (sent >= 0)
            done += sent;
        else if (!come_round(fd, POLLOUT))
            break;
    }
    if (done == size)
        do
            got = recv(settled, &byte, 1, 0);
        while (got < 0 && come_round(settled, POLLIN));
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(got == 1);
}
#endif

#if !defined(_WIN32)
typedef struct {
    struct timespec after;
    size_t size;
    char message[];
} last_word;

static void *wait_and_end(void *what)
{
    last_word *word = what;
    while (nanosleep(&word->after, &word->after) < 0 && errno == EINTR)
        ;
    if (write(STDERR_FILENO, word->message, word->size) < 0)
        errno = 0; /* nobody listens */
    _exit(1);
}

PyDoc_STRVAR(halt_doc, "halt(fd, byte, /)\n--\n\n"
                       "Never returns, and never comes back to its interpreter, which may be taken down meanwhile.\n\n"
                       "Writes `byte`, if there is one, to the descriptor once it has left. Other threads of the\n"
                       "interpreter go on.");

static PyObject *halt(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    char *byte;
    Py_ssize_t size;
    if (!wants("halt", count, 2) || PyBytes_AsStringAndSize(args[1], &byte, &size) < 0)
        return NULL;
    int fd = (int)PyLong_AsLong(args[0]);
    if (PyErr_Occurred())
        return NULL;
    char told[1] = {size > 0 ? *byte : 0};
    Py_BEGIN_ALLOW_THREADS
    if (write(fd, told, size > 0) < 0)
        errno = 0; /* nobody listens */
    for (;;)
        pause();
    Py_END_ALLOW_THREADS /* not reached */
}

PyDoc_STRVAR(end_within_doc, "end_within(seconds, message, /)\n--\n\n"
                             "Ends the process with status 1 if it has not ended by itself, without any interpreter's help.\n\n"
                             "message: bytes, written to standard error then. OSError where there can be no thread for it.");

static PyObject *end_within(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    char *message;
    Py_ssize_t size;
    pthread_t thread;
    if (!wants("end_within", count, 2) || PyBytes_AsStringAndSize(args[1], &message, &size) < 0)
        return NULL;
    long seconds = PyLong_AsLong(args[0]);
    if (seconds == -1 && PyErr_Occurred())
        return NULL;
    last_word *word = malloc(sizeof *word + (size_t)size);
    if (word == NULL)
        return PyErr_NoMemory();
    word->after = (struct timespec){.tv_sec = seconds};
    word->size = (size_t)size;
    memcpy(word->message, message, (size_t)size);
    int failed = pthread_create(&thread, NULL, wait_and_end, word);
    if (failed) {
        free(word);
        errno = failed;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    pthread_detach(thread);
    Py_RETURN_NONE;
}
#endif

static PyMethodDef methods[] = {
#if !defined(_WIN32)
    {"halt", (PyCFunction)(void (*)(void))halt, METH_FASTCALL, halt_doc},
    {"end_within", (PyCFunction)(void (*)(void))end_within, METH_FASTCALL, end_within_doc},
    {"address", address, METH_O, address_doc},
    {"copied", (PyCFunction)(void (*)(void))copied, METH_FASTCALL, copied_doc},
    {"lend", (PyCFunction)(void (*)(void))lend, METH_FASTCALL, lend_doc},
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL, receive_doc},
#endif
    {"begin", (PyCFunction)(void (*)(void))begin, METH_FASTCALL, begin_doc},
    {"interrupt", (PyCFunction)(void (*)(void))interrupt, METH_FASTCALL, interrupt_doc},
    {"post", (PyCFunction)(void (*)(void))post, METH_FASTCALL, post_doc},
    {"die_with_parent", die_with_parent, METH_NOARGS, die_with_parent_doc},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module) { return PyModule_AddIntConstant(module, "size", (long)sizeof(tg_board)); }

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)fill},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_board",
    .m_doc = "The worker's side of the memory it shares with its parent.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__board(void) { return PyModuleDef_Init(&definition); }
