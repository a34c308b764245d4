"""What type checkers and editors see of the compiled core; the tests hold it to the truth.

Tokens are made by `Runtime.token_class`, which is `tokengate.Token`: that is what comes out here.
What users see of a token or a coordinator has its docstring here too, for editors to show.
"""
# ruff: noqa: D205 - the docstrings are the core's own, whose lines are longer

from asyncio import AbstractEventLoop, CancelledError
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Context, ContextVar
from threading import Condition, Lock
from typing import Any, Literal, Never, Self, TypeVar, final

from typing_extensions import disjoint_base

from tokengate.errors import TokenKilled
from tokengate.token import Token

_R = TypeVar("_R")

def build_info() -> dict[str, str]: ...
def current_token() -> Token[Any] | None:
    """The token whose function runs on this thread, or None outside a worker. Does not block."""

def stand_in(current: Callable[[], Any]) -> None: ...
def current_worker() -> Worker | None: ...

OTHER: str
_deadline_var: ContextVar[int]
_inline_var: ContextVar[InlineBlock]

def edges() -> list[tuple[int, int, str]]: ...
def generation() -> int: ...
def gil_enabled() -> bool: ...
def require_loop(what: object) -> AbstractEventLoop: ...
def links() -> list[Link]: ...
def outcomes(tokens: Iterable[TokenBase], return_exceptions: bool) -> list[Any]: ...
def raise_first_failure(tokens: Iterable[TokenBase]) -> None: ...
def submit(
    runtime: Runtime,
    core: Core,
    operation: str,
    tags: Mapping[str, Any],
    fn: Callable[..., _R],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Token[_R]: ...
def cancelled_call(
    guard: GuardBase, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Token[Any]: ...
def cancelled_submit(
    runtime: Runtime,
    core: Core,
    operation: str,
    tags: Mapping[str, Any],
    fn: Callable[..., _R],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Token[_R]: ...

@final
class Runtime:
    def __init__(
        self, token_class: type[TokenBase], current: ContextVar[Any], default: Core
    ) -> None: ...
    @property
    def token_class(self) -> type[TokenBase]: ...
    @property
    def current(self) -> ContextVar[Any]: ...
    @property
    def default(self) -> Core: ...

@final
class Link:
    def __new__(cls, loop: AbstractEventLoop) -> Self: ...
    def drain(self) -> None: ...
    def busy(self) -> float: ...
    def lag_view(self) -> tuple[int, float, float, float, float]: ...

@disjoint_base
class TokenBase:
    """The compiled half of `tokengate.Token`."""

    _asyncio_future_blocking: bool

    # Refuses: guarded functions make tokens, past it.
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def core(self) -> Core: ...
    @property
    def id(self) -> int:
        """Number of the token within its coordinator, from 1."""

    @property
    def operation_type(self) -> str:
        """Name of the operation."""

    @property
    def tags(self) -> Mapping[str, Any]:
        """The tags of the guarded function, or of the `.options` view, it came from; read-only."""

    @property
    def index(self) -> int | None:
        """Position in the iterable of the `.map` call it came from, or None."""

    @property
    def caller(self) -> str | None:
        """Name of the asyncio task that made the token, or None where none did."""

    @property
    def deadline(self) -> float | None:
        """When the token expires if it has not ended by then, in seconds of `time.monotonic`, or
        None. Any thread.
        """

    def remaining(self) -> float | None:
        """Seconds until the deadline, 0.0 where it has passed, or None without one. Any thread."""

    @property
    def args(self) -> tuple[Any, ...] | None:
        """The positional arguments, where `.map(tokens=True)` kept them, else None."""

    @property
    def state_code(self) -> int:
        """The state as the core's number."""

    @property
    def abandoned(self) -> bool:
        """True while the function still runs although the token has ended (cancelled, expired or
        killed).
        """

    @property
    def wait_time(self) -> float:
        """Seconds from creation to start; up to now, or to its end, where it has not started.
        Any thread.
        """

    @property
    def run_time(self) -> float:
        """Seconds from start to finish; up to now while executing, up to its end where it ended
        before the function returned; 0.0 where it never started. Any thread.
        """

    @property
    def timestamps(self) -> tuple[int, int, int, int]:
        """Monotonic ns of (created, admitted, started, finished); 0 where it has not happened."""

    def watch_return(self, notify: Callable[[], object]) -> bool:
        """Call `notify()` once, as soon as the token has ended and its function, if it ever
        started, has returned.

        False: that is so already, and `notify` is not called. Unlike the end of a token that was
        cancelled while it executed, this says that nothing of it runs any more. `notify` is called
        on the thread that learns of it, most often a worker; it must not block, and what it raises
        is logged. Any thread; does not block.
        """

    def unwatch_return(self, notify: Callable[[], object]) -> None:
        """Undoes one `watch_return`; `notify` may be being called at this moment. Any thread; does
        not block.
        """

    @property
    def failed(self) -> bool:
        """True if it ended in any way but with a result.

        Does not count as asking for the exception.
        """

    def done(self) -> bool:
        """True once the token has ended, however.

        Turns true when the worker finishes; callbacks follow on the loop.
        """

    def cancelled(self) -> bool:
        """True if the caller cancelled it."""

    def cancel(self, msg: object = None) -> bool:
        """Cancel the token; returns False if it had already ended.

        Its awaiters get `asyncio.CancelledError` (threads blocked in `result`:
        `concurrent.futures.CancelledError`). A function that has not started never runs. One that
        is executing in the thread lane runs on, `abandoned`; its result is dropped. Any thread;
        does not block; callbacks run on the token's loop.
        """

    def kill(self, reason: str = "killed") -> bool:
        """End the token for everybody with `TokenKilled(reason)`; returns False if it had already
        ended.

        Like `cancel`, but says that it was not the caller's wish. Any thread; does not block.
        TypeError for a reason that is not a string.
        """

    def result(self, timeout: float | None = None) -> Any:
        """The function's result, or raises what the token ended with.

        timeout: seconds, None: for ever. On a thread without a running event loop this blocks
        until the token has ended (`TimeoutError` when the timeout passes first; Ctrl-C works on
        the main thread); a worker that blocks here runs the token itself if it has not started.
        On a thread with a running loop a token that has not ended raises
        `asyncio.InvalidStateError`: await it instead.
        """

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception the token ended with, or None if it completed.

        Blocks, and raises, like `result`; a cancelled token raises the cancellation.
        """

    def get_loop(self) -> AbstractEventLoop:
        """The event loop the token belongs to.

        RuntimeError where it has none, or the loop is gone.
        """

    def add_done_callback(
        self, callback: Callable[[Self], object], *, context: Context | None = None
    ) -> None:
        """Call `callback(token)` on the token's loop once it has ended; at the loop's next turn if
        it already has.

        context: the `contextvars.Context` to call it in, by default a copy of the current one.
        RuntimeError where the token belongs to no loop. Any thread; does not block.
        """

    def remove_done_callback(self, callback: Callable[[Self], object]) -> int:
        """Remove all instances of a callback; returns how many there were. Any thread."""

    @property
    def _cancel_message(self) -> object: ...
    def _make_cancelled_error(self) -> CancelledError: ...
    def _begin_await(self) -> None: ...
    def _kill_with(self, error: TokenKilled) -> bool: ...
    def forgive(self) -> None: ...

@final
class Terms:
    def __new__(
        cls,
        timeout: int,
        run_timeout: int,
        key: Callable[..., Any] | None,
        says_key: bool,
        priority: int,
        says_priority: bool,
    ) -> Self: ...

@final
class Policy:
    """What an operation may do; made, and its values checked, by tokengate.policy. Immutable."""

    def __new__(
        cls,
        *,
        limit: int | None = None,
        max_waiting: int | None = None,
        overflow: Literal["reject", "shed_oldest", "block"] = "reject",
        priority: int = 0,
        timeout: float | None = None,
        run_timeout: float | None = None,
        key: Callable[..., Any] | None = None,
        key_limit: int = 1,
    ) -> Self: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def max_waiting(self) -> int | None: ...
    @property
    def overflow(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def timeout(self) -> float | None: ...
    @property
    def run_timeout(self) -> float | None: ...
    @property
    def key(self) -> Callable[..., Any] | None: ...
    @property
    def key_limit(self) -> int: ...
    def as_dict(self) -> dict[str, Any]: ...

@final
class Key: ...

@final
class Operation:
    @property
    def name(self) -> str: ...
    @property
    def tags(self) -> Mapping[str, Any]: ...

@disjoint_base
class Core:
    """The compiled half of `tokengate.Coordinator`."""

    @property
    def stopped(self) -> bool:
        """True from the beginning of stop() or aclose() until start()."""

    @property
    def in_use(self) -> bool:
        """True if tokens have been submitted to it in this process and it has not been stopped
        since.
        """

    def _open_pool(self, max_workers: int) -> None: ...
    def _set_steering(self, lag_target: float, cpus: int, reserves: bool) -> None: ...
    def _stand_on(self, files: list[bytes]) -> None: ...
    def _cpus_changed(self) -> None: ...
    def _set_cpus(self, cpus: int) -> None: ...
    @property
    def _cpus(self) -> int: ...
    def _resize_pool(self, max_workers: int) -> None: ...
    def _restart_pool(self, max_workers: int) -> None: ...
    def _reopen_pool(self) -> None: ...
    def _refuse_new(self) -> None: ...
    def _close_pool(self) -> None: ...
    def _check_fork(self) -> None: ...
    def _forked(self) -> None: ...
    def _attach_lane(
        self,
        workers: list[Worker | Carrier | Keeper | Timekeeper],
        on_start: Callable[[Worker | Carrier | Keeper | Timekeeper], object],
        on_exit: Callable[[Worker | Carrier | Keeper | Timekeeper], object],
        on_fork: Callable[[], object] | None,
    ) -> None: ...
    def _lane_core(self, name: str) -> Core: ...
    @property
    def _lanes(self) -> dict[str, Core]: ...
    def _review(self, seat: Seat, fn: Any, args: Any, kwargs: Any) -> None: ...
    def _seat_of(self, name: str) -> Seat | None: ...
    def _measured(self, name: str) -> tuple[list[tuple[int, int]], int, int, float]: ...
    def _is_quiet(self, name: str) -> bool: ...
    def _open_lane(self, name: str) -> Core: ...
    def _start_failed(self, why: str) -> None: ...
    def _kill_waiting(
        self, error: type[TokenKilled], reason: str, name: str | None = None
    ) -> int: ...
    def _find(self, number: int) -> Token[Any] | None: ...
    def _waiting_tokens(self) -> list[Token[Any]]: ...
    def _pause(self, name: str | None, paused: bool) -> None: ...
    def _tags_of(self, name: str) -> Mapping[str, Any]: ...
    def _policy(self, name: str) -> Policy: ...
    def _introduce(self, name: str, tags: Mapping[str, Any], policy: Policy) -> None: ...
    def _set_policy(self, name: str, policy: Policy) -> None: ...
    def _watch(self, name: str | None, notify: Callable[[], object]) -> object: ...
    def _unwatch(self, watch: object) -> bool: ...
    def _operation_names(self) -> list[str]: ...
    def _knows(self, name: str) -> bool: ...
    def _look(self) -> tuple[int, int, int, int, int, int, int, float, int, str]: ...
    def _look_operation(self, name: str) -> dict[str, Any]: ...

DEADLY_RUNS: int

@final
class Ref:
    """What a remote worker must know of the calls of one function: sent to it once, then named by
    its number.
    """

    def __new__(
        cls, fn: Callable[..., Any], labels: Mapping[str, Any], number: int, definition: bytes
    ) -> Self: ...
    @property
    def fn(self) -> Callable[..., Any]: ...
    @property
    def labels(self) -> Mapping[str, Any]: ...
    @property
    def number(self) -> int: ...
    @property
    def definition(self) -> bytes: ...

@final
class Packed:
    """A call as it travels; stands for its function in the token. Called, it runs here
    (tokengate.testing.inline).
    """

    def __new__(cls, ref: Ref, payload: object, size: int) -> Self: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    @property
    def ref(self) -> Ref: ...
    @property
    def payload(self) -> Any: ...

@disjoint_base
class RemoteCore(Core):
    """The compiled half of `tokengate.lanes.remote.RemoteLane`."""

    def _share_ids(self, home: Core) -> None: ...
    def _set_travelling(self, travelling: dict[str, ContextVar[Any]]) -> None: ...
    def _known_ref(
        self, fn: Callable[..., Any], operation: str, tags: Mapping[str, Any]
    ) -> Ref | None: ...
    def _keep_ref(self, ref: Ref, operation: str) -> None: ...
    def _recall(self, name: str | None = None) -> None: ...
    def _quarantine(self, name: str, error: BaseException | None) -> None: ...
    def _quarantined(self, name: str) -> BaseException | None: ...

@disjoint_base
class Debtor:
    """A thread that ends tokens and wakes the loops they are awaited on a little later."""

@disjoint_base
class Carrier(Debtor):
    """The compiled half of `tokengate.lanes.remote.RemoteWorker`: one thread, one worker elsewhere.
    It holds the pool, never the core: a lane nobody holds can go.
    """

    def __new__(cls, core: Any) -> Self: ...
    @property
    def drive(self) -> Lock: ...
    @property
    def sent_lock(self) -> Any: ...
    @property
    def index(self) -> int: ...
    @property
    def left(self) -> bool: ...
    @property
    def ready(self) -> bool: ...
    @property
    def pending(self) -> int: ...
    @property
    def thread_ident(self) -> int | None: ...
    @property
    def handle(self) -> Any: ...
    @property
    def tokens(self) -> list[Token[Any]]: ...
    @property
    def place(self) -> str: ...
    def _attach(self, memory: object) -> None: ...
    def _enter(self, wake_fd: int) -> None: ...
    def _gather(self, most: int = ...) -> tuple[Any, ...] | None: ...
    def _look(self) -> None: ...
    def _listen(self, pipe: int, end: int, bell: int, timeout: int) -> tuple[bool, bool]: ...
    def _send_now(self, pipe: int, data: bytes | memoryview) -> int: ...
    def _hear_now(self, pipe: int) -> bytes | None: ...
    def _tell_loops(self) -> None: ...
    def _take_replies(self) -> int: ...
    def _reply(
        self,
        number: int,
        started: int,
        run: int,
        kind: int,
        value: bytes | None,
        buffers: list[Any] | None,
    ) -> None: ...
    def _lost(self) -> tuple[Any, str] | None: ...
    def _fail_again(self, error: BaseException) -> None: ...
    def _give_way(self) -> None: ...
    def _takes_back(self) -> bool: ...
    def _leave_if_closing(self) -> bool: ...
    def _patience(self) -> bool: ...

@final
class Worker(Debtor):
    def __new__(
        cls,
        core: Core,
        on_start: Callable[[Worker], object],
        on_exit: Callable[[Worker], object],
        on_fork: Callable[[], object],
    ) -> Self: ...
    @property
    def thread_ident(self) -> int | None: ...
    @property
    def handle(self) -> Any: ...
    @property
    def token(self) -> Token[Any] | None: ...
    @property
    def tokens(self) -> list[Token[Any]]: ...
    @property
    def visits(self) -> bool: ...
    @property
    def index(self) -> int: ...
    def step_aside(self) -> None: ...
    def step_back(self) -> None: ...
    def run(self) -> None: ...

@final
class InlineBlock:
    def leave(self) -> None: ...

@final
class Timekeeper:
    def __new__(
        cls,
        core: Core,
        on_start: Callable[[Worker | Carrier | Keeper | Timekeeper], object],
        on_exit: Callable[[Worker | Carrier | Keeper | Timekeeper], object],
    ) -> Self: ...
    @property
    def thread_ident(self) -> int | None: ...
    @property
    def handle(self) -> Any: ...
    @property
    def token(self) -> None: ...
    @property
    def tokens(self) -> list[Token[Any]]: ...
    def run(self) -> None: ...

@final
class Keeper:
    def __new__(
        cls,
        core: Core,
        on_start: Callable[[Worker | Carrier | Keeper | Timekeeper], object],
        on_exit: Callable[[Worker | Carrier | Keeper | Timekeeper], object],
    ) -> Self: ...
    @property
    def thread_ident(self) -> int | None: ...
    @property
    def handle(self) -> Any: ...
    @property
    def token(self) -> None: ...
    @property
    def tokens(self) -> list[Token[Any]]: ...
    def run(self) -> None: ...

@final
class Seat:
    """Of one operation in one coordinator: the lane of its calls, and what is known for choosing
    it.
    """

    def __new__(cls, home: Core, operation: Operation) -> Self: ...
    reason: str
    notes: Any
    @property
    def name(self) -> str: ...
    @property
    def lane(self) -> str: ...
    @property
    def curious(self) -> bool: ...
    @property
    def size(self) -> int: ...
    @property
    def pickling(self) -> float: ...
    @property
    def unfit(self) -> str | None: ...
    @property
    def refused(self) -> str | None: ...
    def ask(self, args: Any, kwargs: Any) -> None:
        """Pickle the arguments of this call, and the result of one that ends soon, to know what
        they would cost to send. What pickling raises comes out.
        """

    def go(self, lane: str) -> None:
        """From now on calls go to that lane; `LaneUnavailable` if it cannot be had. What has been
        called stays.
        """

    @property
    def strict(self) -> bool:
        """Whether the operation's policy holds for all its calls together, which two lanes at a
        time could break.
        """

@disjoint_base
class GuardBase:
    def __call__(self, *args: Any, **kwargs: Any) -> Token[Any]: ...
    @property
    def operation(self) -> str:
        """Name of the operation."""

    @property
    def lane(self) -> str:
        """Name of the lane its tokens run in, or "auto"."""

    @property
    def _coordinator(self) -> Core: ...
    @property
    def _tags(self) -> Mapping[str, Any]: ...
    @property
    def _policy(self) -> Policy: ...
    def _lay(self, lane: str) -> None: ...
    def _ask(self, terms: Terms) -> None: ...
    def _declared(self) -> tuple[Mapping[str, Any], Policy]: ...
    def _receive(self, receiver: object) -> None: ...
    def _set_up(
        self,
        runtime: Runtime,
        fn: Callable[..., Any],
        operation: str,
        tags: Mapping[str, Any],
        policy: Policy,
        home: Core | None = None,
    ) -> None: ...
    def _copy(self, other: GuardBase, fn: Callable[..., Any]) -> None: ...
    def _move(self, home: Core | None) -> None: ...
    def _retag(self, labels: Mapping[str, Any]) -> None: ...

@final
class Collector:
    def __new__(cls, on_loop: bool) -> Self: ...
    @property
    def pending(self) -> int: ...
    @property
    def ready_count(self) -> int: ...
    @property
    def submitted(self) -> int: ...
    @property
    def held(self) -> int: ...
    def attach(self, token: TokenBase) -> None: ...
    def submit_many(
        self,
        guard: GuardBase,
        iterator: Iterator[Any],
        count: int,
        star: bool,
        constants: dict[str, Any] | None,
        keep: bool,
        budget: int,
    ) -> bool: ...
    @property
    def full(self) -> bool: ...
    def watch_room(self, notify: Callable[[], object]) -> bool: ...
    def forget_room(self) -> None: ...
    def begin_waiting(self, worker: Worker, want: int) -> None: ...
    def check_within(self) -> None: ...
    def end_waiting(self, worker: Worker) -> None: ...
    def satisfied(self, want: int) -> bool: ...
    def help(self, worker: Worker) -> bool: ...
    def wake_when(self, want: int, waker: Callable[[], object]) -> bool: ...
    def forget_waker(self) -> None: ...
    def take(self) -> list[Token[Any]]: ...
    def take_place(self, place: int) -> Token[Any] | None: ...
    def forget_ready(self) -> None: ...
    def store(self, results: list[Any], return_exceptions: bool) -> None: ...
    def unfinished(self) -> list[Token[Any]]: ...
    def cancel_unstarted(self) -> None: ...
    def forgive(self) -> None: ...
    def discard(self) -> None: ...

@final
class Roster:
    def __new__(
        cls, until_return: bool, on_failure: Callable[[Token[Any]], object] | None = None
    ) -> Self: ...
    @property
    def until_return(self) -> bool: ...
    def __len__(self) -> int: ...
    def reserve(self) -> bool: ...
    def unreserve(self) -> None: ...
    def close_if_empty(self) -> bool: ...
    def add(self, token: TokenBase) -> None: ...
    def cancel(self) -> None: ...
    def tokens(self) -> list[Token[Any]]: ...
    def wake_when_empty(self, waker: Callable[[], object]) -> bool: ...
    def forget_waker(self) -> None: ...
    def clear(self) -> None: ...
    def help(self, worker: Worker) -> None: ...
    def begin_waiting(self, worker: Worker) -> None: ...
    def end_waiting(self, worker: Worker) -> None: ...
    def check_within(self) -> None: ...

@disjoint_base
class FutureBase(TokenBase):
    """A token that conducts itself like a `concurrent.futures.Future`; made by an executor."""

    _state: str
    _condition: Condition
    _waiters: list[Any]
    _result: Any
    _exception: BaseException | None

    def _leave(self) -> None: ...
    def cancel(self) -> bool:  # type: ignore[override]
        """Cancel the call if its function has not started.

        False: it has, or has ended otherwise. Any thread.
        """

    def running(self) -> bool:
        """True while the function executes for somebody."""

    def result(self, timeout: float | None = None) -> Any:
        """What the function returned; raises what it raised, or CancelledError.

        Blocks, on any thread, up to `timeout` seconds (None: for ever), then TimeoutError. A worker
        that blocks here runs the call itself if it has not started.
        """

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the function raised, or None. Blocks, and raises CancelledError and TimeoutError,
        like `result`.
        """

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:  # type: ignore[override]
        """Call `fn(future)` when it has ended: on the thread that ends it, or here and now if it
        has.
        """

    def set_running_or_notify_cancel(self) -> Never:
        """Refuses: the coordinator runs the call. InvalidStateError."""

    def set_result(self, result: object) -> Never:
        """Refuses: the function's result is the only one. InvalidStateError."""

    def set_exception(self, exception: object) -> Never:
        """Refuses, as `set_result`. InvalidStateError."""

    def __reduce__(self) -> Never: ...

@disjoint_base
class ExecutorBase:
    """The compiled half of `tokengate.Executor`: from `submit` to a future."""

    def _set_up(
        self,
        core: Core,
        coordinator: Core,
        plain_class: type[FutureBase],
        loop_class: type[FutureBase],
        name_of: Callable[[Any], str],
        known: dict[str, tuple[str, Policy]],
        operation: str | None,
        auto: bool = False,
    ) -> None: ...
    @property
    def coordinator(self) -> Core:
        """The coordinator that runs the calls."""

    _shutdown: bool
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run `fn(*args, **kwargs)` on the coordinator; returns a `concurrent.futures.Future`.

        On a thread with a running event loop the future can be awaited there, too. RuntimeError
        after `shutdown`, and where the coordinator has been stopped. Any thread; does not block.
        """

    def _serve(self, loop: AbstractEventLoop) -> None: ...
    def _close(self) -> list[Any]: ...
    def _await_callbacks(self, futures: Iterable[Any]) -> None: ...
    def __reduce__(self) -> Never: ...

@final
class Failure:
    def __new__(
        cls,
        exception: BaseException,
        loop_ref: Callable[[], AbstractEventLoop | None] | None,
        what: str,
    ) -> Self: ...
    @property
    def exception(self) -> BaseException: ...
    def __del__(self) -> None: ...
