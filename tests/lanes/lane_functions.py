"""Functions that tests run in workers: importable there by this name."""

import contextvars
import ctypes
import hashlib
import os
import resource
import signal
import threading
import time

import tokengate
from tokengate import task_token_guard, travels

tenant = travels(contextvars.ContextVar("tenant", default="nobody"))
unknown = contextvars.ContextVar("unknown", default="nobody")


def plain_pid():
    return os.getpid()


@task_token_guard(lane="process")
def pid():
    return os.getpid()


@task_token_guard(lane="process")
def add(a, b=0):
    return a + b


@task_token_guard(lane="process")
def nothing():
    pass


@task_token_guard(lane="process")
def echo(value):
    return value


@task_token_guard(lane="process", tags={"who": "me"})
def whoami():
    token = tokengate.current_token()
    tokengate.checkpoint()
    return token.id, token.operation_type, dict(token.tags), token.remaining()


@task_token_guard
def on_a_thread():
    return os.getpid(), threading.current_thread().name


@task_token_guard(lane="process")
def nested():
    return os.getpid(), on_a_thread().result(), pid().result()


@task_token_guard(lane="process")
def inherited():
    token = on_a_thread()
    token.result()
    return token.remaining()


@task_token_guard(lane="process")
def variables():
    return tenant.get(), unknown.get()


@task_token_guard(lane="process")
def mark(path):
    """Leaves a trace that it ran."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


@task_token_guard(lane="process")
def hold(started, gate):
    """Runs until the file `gate` exists; makes the file `started` first."""
    with open(started, "w") as file:
        file.write(str(os.getpid()))
    while not os.path.exists(gate):
        time.sleep(0.002)
    return os.getpid()


heard = threading.Event()


def wait_until_heard():
    return heard.wait(20)


def fail_when_heard():
    return ValueError(heard.wait(20))


class Waits:
    """Unpickled, it is whether `heard` has been set."""

    def __reduce__(self):
        return wait_until_heard, ()


class Fails(Exception):
    def __reduce__(self):
        return fail_when_heard, ()


@task_token_guard(lane="process")
def waits_in_the_parent(waits, fails):
    if waits and fails:
        heard.set()  # here it is unpickled, too, to see whether it can be
        raise Fails
    return Waits() if waits else None


SLOW_ONE = 5_000


@task_token_guard(lane="process")
def mostly_short(number, started, gate):
    """Number 5,000 returns once `gate` is there, where it is named at all."""
    if gate and number == SLOW_ONE:
        hold.__wrapped__(started, gate)


@task_token_guard(lane="process")
def fail(kind, *args):
    raise kind(*args)


class Stubborn(Exception):
    """Pickles, and does not come out of it."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


class Unpicklable(Exception):
    def __reduce__(self):
        raise RuntimeError("not me")


class Bomb:
    """Goes off while it is unpickled, in the worker."""

    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        return explode, (self.how,)


def explode(how):
    die_of(how)


class BombResult:
    """Goes off while it is pickled, in the worker."""

    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        die_of(self.how)
        raise AssertionError("unreachable")


@task_token_guard(lane="process")
def result_that_kills(how):
    return BombResult(how)


def die_of(how):
    if how == "exit":
        os._exit(7)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segv":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        import faulthandler

        faulthandler.disable()
        ctypes.string_at(0)
    elif how == "abort":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.abort()
    time.sleep(60)


@task_token_guard(lane="process")
def die(how):
    die_of(how)


@task_token_guard(lane="process")
def take_memory():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 28, resource.RLIM_INFINITY))
    return len(bytearray(1 << 30))


@task_token_guard(lane="process")
def eat(megabytes):
    """Takes memory and uses it."""
    return len([b"m" * (1 << 20) for _ in range(megabytes)])


@task_token_guard(lane="process")
def spin_for(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@task_token_guard(lane="process")
def lambda_result():
    return lambda: None


@task_token_guard(lane="process")
def generator_result():
    return (each for each in ())


@task_token_guard(lane="process")
def chatter(megabytes):
    for _ in range(megabytes):
        os.write(1, b"x" * (1 << 20))
    return megabytes


@task_token_guard(lane="process")
def close_standard_streams():
    for fd in (0, 1, 2):
        try:
            os.close(fd)
        except OSError:
            pass


@task_token_guard(lane="process")
def change_folder():
    os.chdir("/")


@task_token_guard(lane="process")
def fork_and_return(path):
    """Both sides return from here; the child's return must not be heard."""
    child = os.fork()
    if child == 0:
        return "child"
    os.waitpid(child, 0)
    return "parent"


@task_token_guard(lane="process")
def fork_and_stay(path):
    """Leaves a child behind that holds the pipe open, and dies."""
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    with open(path, "w") as file:
        file.write(str(child))
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


@task_token_guard(lane="process")
def start_threads():
    threading.Thread(target=time.sleep, args=(60,)).start()
    return threading.active_count()


@task_token_guard(lane="process")
def exit_badly_later():
    import atexit

    atexit.register(lambda: 1 / 0)


@task_token_guard(lane="process")
def never():
    while True:
        time.sleep(3600)


@task_token_guard(lane="process")
def spin():
    while True:
        pass


lives = 100


@task_token_guard(lane="process")
def die_at_the_hundredth(n):
    """Kills the worker that runs it for the hundredth time."""
    global lives
    lives -= 1
    if not lives:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    return n


@task_token_guard(lane="process")
def meet(folder, name, others, last):
    """Returns, or kills its worker, when as many runs are at it in as many workers."""
    open(os.path.join(folder, name), "w").close()
    while len(os.listdir(folder)) < others:
        time.sleep(0.001)  # they are in other processes, which share nothing but the folder
    if last:
        os._exit(7)


class Counter:
    def __init__(self, value):
        self.value = value

    @task_token_guard(lane="process")
    def plus(self, n):
        return self.value + n

    @task_token_guard(lane="process")
    @classmethod
    def name(cls):
        return cls.__name__

    @task_token_guard(lane="process")
    @staticmethod
    def twice(n):
        return 2 * n


@task_token_guard(lane="process")
def fragile(dies):
    if dies:
        os._exit(9)
    return "alive"


@task_token_guard(lane="process")
def surroundings():
    """Its BLAS budget and its CPUs."""
    return int(os.environ["OPENBLAS_NUM_THREADS"]), os.sched_getaffinity(0)


def whose(value):
    return value, os.getpid()


_inside = [0, 0]  # now, and at most
_counting = threading.Lock()


def whose_limited(value):
    with _counting:
        _inside[0] += 1
        _inside[1] = max(_inside)
    total = sum(range(2_000))
    with _counting:
        _inside[0] -= 1
    return total, os.getpid()


def most_at_once():
    return _inside[1]


def burn_a_little(turns):
    total = 0
    for i in range(turns * 20):
        total += i * i
    return os.getpid()


def burn_by_hand(turns):
    total = 0
    for i in range(turns * 20):
        total += i * i
    return os.getpid()


def nap_a_little():
    time.sleep(0.003)
    return os.getpid()


_block = bytes(4_000_000)


def hash_much(size):
    return hashlib.sha256(memoryview(_block)[:size]).hexdigest()


@task_token_guard(lane="auto")
def automatic_pid():
    return os.getpid()


@task_token_guard(lane="process")
def calls_auto():
    return os.getpid(), automatic_pid().result()
