"""`async with TokenGroup()`: the first failure cancels the rest, leaving waits until nothing runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

import tokengate
from tokengate import (
    Coordinator,
    CoordinatorStopped,
    FunctionExited,
    GateFull,
    Token,
    TokenExpired,
    TokenGroup,
    TokenKilled,
    TokenState,
    task_token_guard,
    use,
)

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator, NewGate, Until

TIMEOUT = 20.0


class Wrong(Exception):
    pass


def fail(text: str = "wrong") -> None:
    raise Wrong(text)


def told(group: BaseExceptionGroup[BaseException]) -> list[str]:
    return sorted(f"{type(each).__name__}: {each}" for each in group.exceptions)


# -- what goes well --------------------------------------------------------------------------------


async def test_all_have_ended_when_it_is_left(coordinator: Coordinator) -> None:
    async with TokenGroup() as group:
        tokens = [group.start(divmod, number, 7) for number in range(100)]
        assert await tokens[5] == (0, 5)
    assert [token.result() for token in tokens] == [divmod(number, 7) for number in range(100)]


async def test_an_empty_group(coordinator: Coordinator) -> None:
    async with TokenGroup():
        pass


async def test_start_keeps_what_the_guard_says(coordinator: Coordinator, gate: Gate) -> None:
    guarded = task_token_guard("of a group", {"team": "blue"}, limit=1)(gate)
    group = TokenGroup()
    async with group:
        one = group.start(guarded, 1)
        two = group.start(guarded.options(timeout=1000, tags={"team": "red"}), value=2)
        await gate.entered()
        gate.open()
    assert (one.result(), two.result()) == (1, 2)
    assert gate.most_inside == 1
    assert one.operation_type == two.operation_type == "of a group"
    assert (one.tags["team"], two.tags["team"]) == ("blue", "red")
    assert one.deadline is None
    assert two.deadline is not None


async def test_it_runs_where_it_is_told(new_coordinator: NewCoordinator) -> None:
    mine, other = new_coordinator(), new_coordinator()
    guarded = task_token_guard("told where")(len)
    with use(other):
        async with TokenGroup(coordinator=mine) as group:
            tokens = [group.start(guarded, "x"), group.start(len, "xy")]
        async with TokenGroup() as group:
            tokens.append(group.start(guarded, "x"))
    assert [token.core for token in tokens] == [mine, mine, other]


async def test_a_method_and_an_object(coordinator: Coordinator) -> None:
    class Service:
        @task_token_guard
        def double(self, number: int) -> int:
            return 2 * number

        def __call__(self) -> str:
            return "called"

    async with TokenGroup() as group:
        one, two = group.start(Service().double, 4), group.start(Service())
    assert (one.result(), two.result()) == (8, "called")


async def test_functions_may_start_siblings(coordinator: Coordinator) -> None:
    async with TokenGroup() as group:

        def count_down(number: int) -> None:
            if number:
                tokens.append(group.start(count_down, number - 1))

        tokens = [group.start(count_down, 20)]
    assert len(tokens) == 21
    assert all(token.state is TokenState.COMPLETED for token in tokens)


async def test_a_cancelled_token_is_no_failure(coordinator: Coordinator, gate: Gate) -> None:
    async with TokenGroup() as group:
        one, two = group.start(gate), group.start(gate)
        await gate.entered(2)
        one.cancel()
        gate.open()
    assert two.state is TokenState.COMPLETED
    assert not one.abandoned


# -- failures --------------------------------------------------------------------------------------


async def test_the_first_failure_cancels_the_rest(
    coordinator: Coordinator, new_gate: NewGate
) -> None:
    holding, failing = new_gate(), new_gate()
    all_there, left = asyncio.Event(), asyncio.Event()

    async def parent() -> None:
        try:
            async with TokenGroup() as group:
                tokens.extend(group.start(holding) for _ in range(3))

                def fails() -> None:
                    failing()
                    fail()

                tokens.append(group.start(fails))
                await holding.entered(3)
                await failing.entered()
                tokens.append(group.start(int))  # there are four workers: it waits
                all_there.set()
                await asyncio.Event().wait()
        finally:
            left.set()

    tokens: list[Token[Any]] = []
    running = asyncio.ensure_future(parent())
    await all_there.wait()
    failing.open()
    await asyncio.wait(tokens)
    assert [token.state.name for token in tokens] == [*["CANCELLED"] * 3, "FAILED", "CANCELLED"]
    assert all(token.abandoned for token in tokens[:3])
    for _ in range(5):
        await asyncio.sleep(0)
    assert not left.is_set()  # three functions still run
    holding.open()
    with pytest.raises(ExceptionGroup, match="TokenGroup") as caught:
        await running
    assert told(caught.value) == ["Wrong: wrong"]
    assert not any(token.abandoned for token in tokens)
    assert running.cancelling() == 0


async def test_abandon_does_not_wait_for_functions(coordinator: Coordinator, gate: Gate) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with TokenGroup(abandon=True) as group:
            token = group.start(gate)
            await gate.entered()
            group.start(fail)
            await asyncio.Event().wait()
    assert told(caught.value) == ["Wrong: wrong"]
    assert token.abandoned
    gate.open()


async def test_abandon_waits_for_the_ends(coordinator: Coordinator, gate: Gate) -> None:
    async with TokenGroup(abandon=True) as group:
        token = group.start(gate, 1)
        asyncio.get_running_loop().call_soon(gate.open)
    assert token.result() == 1


async def test_a_failure_while_it_is_left(coordinator: Coordinator, gate: Gate) -> None:
    """The body has ended: its task is not cancelled, and goes on as if it never had been."""

    def fails() -> None:
        gate()
        fail()

    with pytest.raises(ExceptionGroup) as caught:
        async with TokenGroup() as group:
            group.start(fails)
            asyncio.get_running_loop().call_soon(gate.open)
    assert told(caught.value) == ["Wrong: wrong"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_body_that_awaits_the_token_that_fails(coordinator: Coordinator) -> None:
    """Whether it gets the failure or is cancelled first: the group has that failure, once."""
    for _ in range(50):
        with pytest.raises(ExceptionGroup) as caught:
            async with TokenGroup() as group:
                await group.start(fail)
        assert told(caught.value) == ["Wrong: wrong"]
        await asyncio.sleep(0)


async def test_several_failures(coordinator: Coordinator, gate: Gate) -> None:
    barrier = threading.Barrier(3)

    def fails(number: int) -> None:
        barrier.wait(TIMEOUT)
        fail(str(number))

    with pytest.raises(ExceptionGroup) as caught:
        async with TokenGroup() as group:
            tokens = [group.start(fails, number) for number in range(3)]
    failed = [token for token in tokens if token.state is TokenState.FAILED]
    assert failed
    assert [token.state for token in tokens if token not in failed] == [TokenState.CANCELLED] * (
        3 - len(failed)
    )
    assert len(caught.value.exceptions) == len(failed)
    assert {id(each) for each in caught.value.exceptions} == {
        id(each.exception()) for each in failed
    }


async def test_what_a_function_must_not_raise(coordinator: Coordinator) -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(ExceptionGroup) as caught:
        async with TokenGroup() as group:
            group.start(leave)
    (failure,) = caught.value.exceptions
    assert isinstance(failure, FunctionExited)
    assert isinstance(failure.__cause__, SystemExit)


async def test_refused_expired_killed_and_stopped_are_failures(
    coordinator: Coordinator, new_coordinator: NewCoordinator, new_gate: NewGate
) -> None:
    gate, late = new_gate(), new_gate()
    full = task_token_guard("full of a group", max_waiting=1, limit=1)(gate)
    first, second = full(), full()
    await gate.entered()
    with pytest.raises(ExceptionGroup) as caught:
        async with TokenGroup() as group:
            group.start(full)
    assert isinstance(caught.value.exceptions[0], GateFull)
    gate.open()
    await asyncio.gather(first, second)

    slow = task_token_guard("slow of a group", run_timeout=0.01)(late)
    with pytest.raises(ExceptionGroup) as caught:
        async with TokenGroup() as group:
            expiring = group.start(slow)
            try:
                await asyncio.wait([expiring])
            finally:
                late.open()
    assert isinstance(caught.value.exceptions[0], TokenExpired)

    with pytest.raises(ExceptionGroup) as caught:
        async with TokenGroup() as group:
            coordinator.pause()
            token = group.start(int)
            token.kill("enough")
    assert [type(each) for each in caught.value.exceptions] == [TokenKilled]
    coordinator.resume()

    stopped = new_coordinator()
    stopped.start()
    await stopped.aclose()
    with pytest.raises(ExceptionGroup) as caught:
        async with TokenGroup(coordinator=stopped) as group:
            group.start(int)
    assert isinstance(caught.value.exceptions[0], CoordinatorStopped)


async def test_start_while_it_cancels(coordinator: Coordinator, gate: Gate) -> None:
    """The call does not run, and its token is cancelled: a list of starts loses no sibling."""
    guarded = task_token_guard("too late for a group")(gate)
    with pytest.raises(ExceptionGroup):
        async with TokenGroup() as group:
            group.start(fail)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                late = [group.start(gate, 1), group.start(guarded, 1)]
                raise
    for token in late:
        assert token.cancelled()
        with pytest.raises(asyncio.CancelledError, match="shutting down"):
            await token
        assert token.run_time == 0
    assert gate.calls == 0
    counted = coordinator.stats().operations["too late for a group"]
    assert (counted.submitted, counted.cancelled) == (1, 1)


async def test_start_on_its_way_while_the_group_aborts(coordinator: Coordinator) -> None:
    """A function starts a sibling at the moment another fails: the sibling ends all the same."""
    for _ in range(100):
        started: list[Token[Any]] = []
        with pytest.raises(ExceptionGroup):
            async with TokenGroup() as group:

                def starts(started: list[Any] = started, group: TokenGroup = group) -> None:
                    started.append(group.start(int))

                group.start(starts)
                group.start(fail)
        assert all(token.done() and not token.abandoned for token in started)


# -- the body --------------------------------------------------------------------------------------


async def test_a_body_that_raises(coordinator: Coordinator, gate: Gate) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with TokenGroup() as group:
            token = group.start(gate)
            await gate.entered()
            asyncio.get_running_loop().call_soon(gate.open)
            raise LookupError("the body's own")
    assert told(caught.value) == ["LookupError: the body's own"]
    assert token.cancelled()
    assert not token.abandoned


async def test_a_body_that_raises_while_a_token_fails(coordinator: Coordinator) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with TokenGroup() as group:
            token = group.start(fail)
            try:
                await asyncio.wait([token])
            finally:
                raise LookupError("the body's own")
    assert told(caught.value) == ["LookupError: the body's own", "Wrong: wrong"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_body_that_returns_early(coordinator: Coordinator, gate: Gate) -> None:
    async def parent() -> str:
        async with TokenGroup() as group:
            tokens.append(group.start(gate, 1))
            return "early"

    tokens: list[Token[Any]] = []
    running = asyncio.ensure_future(parent())
    await gate.entered()
    assert not running.done()
    gate.open()
    assert await running == "early"
    assert tokens[0].result() == 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_leaving_for_good(coordinator: Coordinator, gate: Gate, kind: type[BaseException]) -> None:
    """Raised as it is, once nothing runs any more, also where a token has failed."""
    tokens: list[Token[Any]] = []

    async def main() -> None:
        async with TokenGroup() as group:
            tokens.append(group.start(gate))
            await gate.entered()
            failing = group.start(fail)
            try:
                await asyncio.wait([failing])
            finally:
                gate.open()
                raise kind("now")

    with pytest.raises(kind, match="now"):
        asyncio.run(main())
    assert not tokens[0].abandoned


async def test_a_generator_that_is_closed(coordinator: Coordinator) -> None:
    async def generate() -> Any:
        async with TokenGroup() as group:
            group.start(int)
            yield 1

    generator = generate()
    assert await anext(generator) == 1
    await generator.aclose()


async def test_it_swallows_what_it_likes(coordinator: Coordinator) -> None:
    """A body may ignore that it was interrupted; the group still tells what failed."""
    with pytest.raises(ExceptionGroup):
        async with TokenGroup() as group:
            group.start(fail)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


# -- cancelled from outside ------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["body", "exit"])
async def test_the_parent_is_cancelled(coordinator: Coordinator, gate: Gate, where: str) -> None:
    tokens: list[Token[Any]] = []

    async def parent() -> None:
        async with TokenGroup() as group:
            tokens.append(group.start(gate))
            if where == "body":
                await asyncio.Event().wait()

    running = asyncio.ensure_future(parent())
    await gate.entered()
    running.cancel("go")
    await asyncio.wait([tokens[0]])
    assert tokens[0].cancelled()
    running.cancel("again")  # it waits all the same
    for _ in range(5):
        await asyncio.sleep(0)
    assert not running.done()
    gate.open()
    with pytest.raises(asyncio.CancelledError, match="go"):
        await running
    assert not tokens[0].abandoned


async def test_a_timeout_around_it(coordinator: Coordinator, gate: Gate) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit, TokenGroup() as group:
            token = group.start(gate)
            await gate.entered()
            asyncio.get_running_loop().call_later(0.05, gate.open)
            limit.reschedule(asyncio.get_running_loop().time())
    assert token.cancelled()
    assert not token.abandoned


async def test_a_failure_and_a_cancellation(coordinator: Coordinator, gate: Gate) -> None:
    """The failure is raised, and the cancellation is not lost: it comes at the next await."""
    after: list[str] = []

    async def parent() -> None:
        try:
            async with TokenGroup() as group:
                group.start(gate)
                await gate.entered()
                group.start(fail)
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    interrupted.set()
                    await asyncio.Event().wait()
        except* Wrong:
            after.append("failed")
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                after.append("cancelled")
                raise

    interrupted = asyncio.Event()
    running = asyncio.ensure_future(parent())
    await interrupted.wait()
    running.cancel()
    await asyncio.sleep(0)
    gate.open()
    await asyncio.wait([running])
    assert running.cancelled()
    assert after == ["failed", "cancelled"]


async def test_cancelled_before_it_began(coordinator: Coordinator, gate: Gate) -> None:
    async def parent() -> None:
        async with TokenGroup() as group:
            tokens.append(group.start(int))
            await asyncio.sleep(0)

    tokens: list[Token[Any]] = []
    running = asyncio.ensure_future(parent())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert tokens == []


async def test_awaiting_a_cancelled_token(coordinator: Coordinator, gate: Gate) -> None:
    """As with a task that was cancelled: the cancellation is the body's, and goes on."""
    with pytest.raises(asyncio.CancelledError):
        async with TokenGroup() as group:
            one, two = group.start(gate), group.start(gate)
            await gate.entered(2)
            gate.open()
            one.cancel()
            await one
    assert two.done()


# -- nested ----------------------------------------------------------------------------------------


async def test_nested_groups(coordinator: Coordinator, gate: Gate) -> None:
    """An inner failure is one exception for the outer group, whose tokens are cancelled."""
    with pytest.raises(ExceptionGroup) as caught:
        async with TokenGroup() as outer:
            token = outer.start(gate)
            await gate.entered()
            asyncio.get_running_loop().call_later(0.05, gate.open)
            async with TokenGroup() as inner:
                inner.start(fail, "inner")
    (failure,) = caught.value.exceptions
    assert isinstance(failure, ExceptionGroup)
    assert told(failure) == ["Wrong: inner"]
    assert token.cancelled()


async def test_an_outer_failure_ends_the_inner_group(
    coordinator: Coordinator, new_gate: NewGate
) -> None:
    holding, failing = new_gate(), new_gate()
    inner_left: list[bool] = []

    def fails() -> None:
        failing()
        fail("outer")

    with pytest.raises(ExceptionGroup) as caught:
        async with TokenGroup() as outer:
            outer.start(fails)
            try:
                async with TokenGroup() as inner:
                    token = inner.start(holding)
                    await holding.entered()
                    failing.open()
                    asyncio.get_running_loop().call_later(0.05, holding.open)
            finally:
                inner_left.append(token.done() and not token.abandoned)
    assert told(caught.value) == ["Wrong: outer"]
    assert inner_left == [True]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_inside_a_task_group(coordinator: Coordinator, gate: Gate) -> None:
    async def child() -> None:
        async with TokenGroup() as group:
            group.start(fail)
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child())
    assert isinstance(caught.value.exceptions[0], ExceptionGroup)


# -- misuse ----------------------------------------------------------------------------------------


async def test_misuse(coordinator: Coordinator) -> None:
    group = TokenGroup()
    with pytest.raises(RuntimeError, match="has not been entered"):
        group.start(int)
    with pytest.raises(RuntimeError, match="use `async with`"), group:
        pass
    async with group:
        with pytest.raises(RuntimeError, match="entered before"):
            async with group:
                pass
        with pytest.raises(TypeError, match="start\\(\\) needs a callable, got 7"):
            group.start(7)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="async"):
            group.start(asyncio.sleep, 1)
        with pytest.raises(TypeError):
            group.start()  # type: ignore[call-overload]
    with pytest.raises(RuntimeError, match="<TokenGroup left tokens=0 failed=0> has been left"):
        group.start(int)
    with pytest.raises(RuntimeError, match="entered before"):
        async with group:
            pass
    with pytest.raises(TypeError, match="abandon=1: expected True or False"):
        TokenGroup(abandon=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="coordinator='x': expected a Coordinator"):
        TokenGroup(coordinator="x")  # type: ignore[arg-type]


async def test_outside_of_a_task(coordinator: Coordinator) -> None:
    entering = TokenGroup().__aenter__()
    failed: concurrent.futures.Future[None] = concurrent.futures.Future()

    def step() -> None:
        try:
            entering.send(None)
        except BaseException as error:
            failed.set_exception(error)

    asyncio.get_running_loop().call_soon(step)
    with pytest.raises(RuntimeError, match="within a task"):
        await asyncio.wrap_future(failed)


def test_async_with_where_no_asyncio_loop_runs() -> None:
    entering = TokenGroup().__aenter__()
    with pytest.raises(RuntimeError, match="no asyncio event loop runs. Under trio"):
        entering.send(None)


def test_it_is_public() -> None:
    assert "TokenGroup" in tokengate.__all__
    assert "TokenGroup" in repr(TokenGroup())


async def test_the_loop_turns_while_it_waits(
    coordinator: Coordinator, gate: Gate, until: Until
) -> None:
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.ensure_future(tick())

    async def opener() -> None:
        before = turns
        await until(lambda: turns > before + 10)
        gate.open()

    opening = asyncio.ensure_future(opener())
    async with TokenGroup() as group:
        group.start(gate)
    await opening
    ticking.cancel()


def test_a_loop_that_is_closed_while_it_waits(coordinator: Coordinator, gate: Gate) -> None:
    """Nobody is left to interrupt; the tokens still end, and nothing is logged."""
    tokens: list[Token[Any]] = []

    def fails() -> None:
        gate()
        fail()

    async def parent() -> None:
        async with TokenGroup() as group:
            tokens.append(group.start(fails))
            tokens.append(group.start(gate))

    loop = asyncio.new_event_loop()
    coroutine = parent()
    task = loop.create_task(coroutine)
    loop.call_soon(loop.stop)
    loop.run_forever()
    gate.wait_entered(2)
    task.cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert all(token.cancelled() for token in tokens)
    gate.open()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    assert task.cancelled()
