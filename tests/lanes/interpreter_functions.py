"""Functions that tests run in interpreters: importable there by this name. Python 3.14 and newer."""

import contextvars
import os
import threading
import time

import tokengate
from tokengate import Coordinator, LaneUnavailable, Token, task_token_guard, travels

tenant = travels(contextvars.ContextVar("interpreter_tenant", default="nobody"))
unknown = contextvars.ContextVar("interpreter_unknown", default="nobody")
named_at_import: Coordinator = Coordinator(thread_workers=1)


def plain_where():
    from concurrent import interpreters

    return interpreters.get_current().id


@task_token_guard(lane="interpreter")
def where():
    return os.getpid(), plain_where()


@task_token_guard(lane="interpreter")
def cpus():
    return os.sched_getaffinity(threading.get_native_id())


@task_token_guard(lane="interpreter")
def add(a, b=0):
    return a + b


@task_token_guard(lane="interpreter")
def echo(value):
    return value


@task_token_guard(lane="interpreter", tags={"who": "me"})
def whoami():
    token = tokengate.current_token()
    tokengate.checkpoint()
    return token.id, token.operation_type, dict(token.tags), token.remaining(), repr(token)


@task_token_guard
def on_a_thread(n=1) -> Token[int]:
    return plain_where() + 0 * n


@task_token_guard(lane="interpreter")
def nested():
    return (
        plain_where(),
        on_a_thread().result(),
        list(on_a_thread.map([1, 2])),
        on_a_thread.options(lane="process")().result(),
    )


@task_token_guard(lane="interpreter")
def use_a_coordinator():
    told = []
    for attempt in (
        lambda: named_at_import.stats(),
        lambda: tokengate.gather(),
        lambda: tokengate.Executor().submit(abs, 1),
    ):
        try:
            attempt()
        except LaneUnavailable as error:
            told.append(str(error))
    return told


@task_token_guard(lane="interpreter")
def late_calls():
    with tokengate.deadline(60):
        inside = on_a_thread().exception()
    with tokengate.deadline(0):
        late = on_a_thread().exception()
    return inside, late


@task_token_guard(lane="interpreter")
def variables():
    return tenant.get(), unknown.get()


@task_token_guard(lane="interpreter")
def fail(kind, *args):
    raise kind(*args)


class Unpicklable(Exception):
    def __reduce__(self):
        raise RuntimeError("not me")


@task_token_guard(lane="interpreter")
def lambda_result():
    return lambda: None


@task_token_guard(lane="interpreter")
def load(module):
    __import__(module)


@task_token_guard(lane="interpreter")
def hold(started, gate):
    """Blocks in short sleeps until the file `gate` exists; makes the file `started` first."""
    with open(started, "w") as file:
        file.write("x")
    while not os.path.exists(gate):
        time.sleep(0.002)


@task_token_guard(lane="interpreter")
def blocked(started, read_end):
    """One C call, which returns when the other end of the pipe is closed.

    Told to end before it has got there, it goes on: tests want it stuck.
    """
    while True:
        try:
            with open(started, "w") as file:
                file.write("x")
            return os.read(read_end, 1)
        except tokengate.TokenCancelled:
            if os.path.exists(started + ".over"):
                raise


@task_token_guard(lane="interpreter")
def clean_up(started, cleaned):
    try:
        with open(started, "w") as file:
            file.write("x")
        while True:
            pass
    except tokengate.TokenCancelled:
        with open(cleaned, "w") as file:
            file.write("x")
        raise


@task_token_guard(lane="interpreter")
def swallow(started, times):
    with open(started, "w") as file:
        file.write("x")
    seen = 0
    while seen < times:
        try:
            while True:
                pass
        except BaseException:
            seen += 1


@task_token_guard(lane="interpreter")
def answer_all_the_same(started, blocks, size):
    """A large result, when it is told to end."""
    try:
        with open(started, "w") as file:
            file.write("x")
        while True:
            pass
    except tokengate.TokenCancelled:
        return [os.urandom(size) for _ in range(blocks)]


@task_token_guard(lane="interpreter")
def start_thread(path, seconds=0.0):
    def body():
        time.sleep(seconds)
        with open(path, "w") as file:
            file.write("x")

    threading.Thread(target=body).start()


@task_token_guard(lane="interpreter")
def say(text):
    print(text, flush=True)  # noqa: T201


@task_token_guard(lane="interpreter")
def spin():
    while True:
        pass


@task_token_guard(lane="interpreter")
def sleep(seconds):
    time.sleep(seconds)


@task_token_guard(lane="interpreter")
def count_in_c(n):
    return sum(range(n))


class Counter:
    def __init__(self, value):
        self.value = value

    @task_token_guard(lane="interpreter")
    def plus(self, n):
        return self.value + n

    @task_token_guard(lane="interpreter")
    @classmethod
    def name(cls):
        return cls.__name__

    @task_token_guard(lane="interpreter")
    @staticmethod
    def twice(n):
        return 2 * n
