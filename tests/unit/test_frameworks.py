"""Where guarded functions meet other people's code: web frameworks, other loops, other runtimes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import sys
import threading
import unittest
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from tokengate import Coordinator, as_completed, gather, task_token_guard, use

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Gate


@task_token_guard
def double(x: int) -> int:
    return 2 * x


# -- FastAPI ---------------------------------------------------------------------------------------


@task_token_guard
def route(number: int, text: str = "none") -> dict[str, Any]:
    """A route."""
    return {"number": number, "text": text, "thread": threading.current_thread().name}


class Service:
    def __init__(self, base: int) -> None:
        self.base = base
        self.calls = 0

    @task_token_guard
    def route(self, number: int) -> dict[str, int]:
        return {"sum": self.base + number}

    @task_token_guard
    def dependency(self, number: int) -> int:
        self.calls += 1
        return self.base + number

    @task_token_guard
    @classmethod
    def class_route(cls, number: int) -> dict[str, Any]:
        return {"name": cls.__name__, "number": number}

    @classmethod
    @task_token_guard
    def class_route_inside(cls, number: int) -> dict[str, Any]:
        return {"name": cls.__name__, "number": number}

    @task_token_guard
    @staticmethod
    def static_route(number: int) -> dict[str, int]:
        return {"number": number}


class CallableRoute:
    def __call__(self, number: int) -> dict[str, int]:
        return {"number": number}


@task_token_guard
def dependency(number: int) -> int:
    return number * 100


@task_token_guard
def failing_dependency() -> int:
    raise LookupError("not found")


@pytest.fixture
def get(coordinator: Coordinator) -> Callable[..., Any]:
    """`get(app, path)`: the status and body of one request, on a loop of this test's own."""
    httpx = pytest.importorskip("httpx", reason="httpx is not installed for this interpreter")

    def request(app: Any, path: str) -> tuple[int, Any]:
        async def main() -> tuple[int, Any]:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                response = await client.get(path)
                return response.status_code, response.json()

        return asyncio.run(main())

    return request


@pytest.fixture
def app() -> Any:
    fastapi = pytest.importorskip("fastapi", reason="fastapi is not installed for this interpreter")
    return fastapi.FastAPI()


def test_a_guarded_function_as_a_route(
    app: Any, get: Callable[..., Any], coordinator: Coordinator
) -> None:
    app.get("/route")(route)
    status, body = get(app, "/route?number=5&text=a")
    assert status == 200
    assert body["number"] == 5
    assert body["text"] == "a"
    assert body["thread"].startswith(coordinator.name)  # on a worker, not in a pool of its own
    status, body = get(app, "/route?number=five")
    assert status == 422
    assert coordinator.stats().totals.completed == 1


SERVICE = Service(10)
ROUTES = [
    ("bound method", SERVICE.route, {"sum": 15}),
    ("class method", Service.class_route, {"name": "Service", "number": 5}),
    ("class method of an instance", SERVICE.class_route, {"name": "Service", "number": 5}),
    ("class method, other order", Service.class_route_inside, {"name": "Service", "number": 5}),
    ("static method", Service.static_route, {"number": 5}),
    ("options", double.options(tags={"weight": "light"}), None),
    ("method with options", SERVICE.route.options(tags={"weight": "light"}), {"sum": 15}),
    ("callable object", task_token_guard(CallableRoute()), {"number": 5}),
    ("partial", task_token_guard(functools.partial(route.__wrapped__, text="fixed")), None),
]


@pytest.mark.parametrize(
    ("endpoint", "expected"), [row[1:] for row in ROUTES], ids=[row[0] for row in ROUTES]
)
def test_routes_of_every_kind(
    app: Any, get: Callable[..., Any], coordinator: Coordinator, endpoint: Any, expected: Any
) -> None:
    app.get("/route")(endpoint)
    status, body = get(app, "/route?number=5&x=5")
    assert status == 200, body
    if expected is not None:
        assert body == expected
    assert coordinator.stats().totals.completed == 1
    schema = app.openapi()["paths"]["/route"]["get"]
    names = {parameter["name"] for parameter in schema["parameters"]}
    assert not names & {"self", "cls", "args", "kwargs"}


def test_guarded_functions_as_dependencies(
    app: Any, get: Callable[..., Any], coordinator: Coordinator
) -> None:
    import fastapi

    service = Service(1)

    async def endpoint(
        one: int = fastapi.Depends(dependency),
        two: int = fastapi.Depends(service.dependency),
        three: int = fastapi.Depends(service.dependency),
    ) -> list[int]:
        return [one, two, three]

    app.get("/route")(endpoint)
    assert get(app, "/route?number=5") == (200, [500, 6, 6])
    assert service.calls == 1  # one request asks the same dependency once
    assert coordinator.stats().totals.completed == 2


def test_a_dependency_is_overridden(app: Any, get: Callable[..., Any]) -> None:
    import fastapi

    service = Service(1)

    async def endpoint(value: int = fastapi.Depends(service.dependency)) -> int:
        return value

    app.get("/route")(endpoint)
    app.dependency_overrides[service.dependency] = lambda: -1
    assert get(app, "/route?number=5") == (200, -1)


def test_a_dependency_of_a_guarded_route(
    app: Any, get: Callable[..., Any], coordinator: Coordinator
) -> None:
    import fastapi

    @task_token_guard
    def endpoint(value: int = fastapi.Depends(dependency)) -> int:
        return value + 1

    app.get("/route")(endpoint)
    assert get(app, "/route?number=5") == (200, 501)
    assert coordinator.stats().totals.completed == 2


def test_what_a_guarded_route_or_dependency_raises(app: Any, get: Callable[..., Any]) -> None:
    import fastapi

    async def not_found(_: Any, error: LookupError) -> Any:
        return fastapi.responses.JSONResponse({"error": str(error)}, 404)

    async def endpoint(value: int = fastapi.Depends(failing_dependency)) -> int:
        return value

    @task_token_guard
    def failing() -> int:
        raise fastapi.HTTPException(418, "a teapot")

    app.exception_handler(LookupError)(not_found)
    app.get("/dependency")(endpoint)
    app.get("/route")(failing)
    assert get(app, "/dependency") == (404, {"error": "not found"})
    assert get(app, "/route") == (418, {"detail": "a teapot"})


def test_many_requests_at_once(app: Any, coordinator: Coordinator) -> None:
    httpx = pytest.importorskip("httpx", reason="httpx is not installed for this interpreter")
    app.get("/route")(route)

    async def main() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            responses = await asyncio.gather(*[client.get(f"/route?number={i}") for i in range(50)])
            return [response.json()["number"] for response in responses]

    assert asyncio.run(main()) == list(range(50))
    assert coordinator.stats().totals.completed == 50


# -- other loops -----------------------------------------------------------------------------------


async def all_ways(coordinator: Coordinator) -> None:
    """What a program does with tokens, all of it, on whatever loop runs this."""
    assert await double(1) == 2
    assert await asyncio.gather(*[double(i) for i in range(200)]) == [2 * i for i in range(200)]
    assert await double.map(range(200)) == [2 * i for i in range(200)]
    assert [v async for v in double.map(range(200), in_flight=7)] == [2 * i for i in range(200)]
    assert await gather(double(1), double(2)) == [2, 4]  # type: ignore[comparison-overlap]
    assert len([t async for t in as_completed([double(i) for i in range(50)])]) == 50
    done, left = await asyncio.wait([asyncio.ensure_future(double(i)) for i in range(20)])
    assert (len(done), len(left)) == (20, 0)
    assert await asyncio.wait_for(double(1), 20) == 2
    assert await asyncio.shield(double(1)) == 2

    stuck, release = threading.Event(), threading.Event()

    def hold() -> None:
        stuck.set()
        assert release.wait(20)

    token = coordinator.submit(hold)
    assert stuck.wait(20)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(token, 0.01)
    assert token.abandoned
    gathered = asyncio.gather(token, double(1), return_exceptions=True)
    error, value = await gathered
    assert isinstance(error, asyncio.CancelledError)
    assert value == 2
    release.set()

    with pytest.raises(ValueError, match="no number"):
        await coordinator.submit(int, "no number")
    heard: asyncio.Queue[int] = asyncio.Queue()
    for i in range(20):
        double(i).add_done_callback(lambda t: heard.put_nowait(t.result()))
    assert {await heard.get() for _ in range(20)} == {2 * i for i in range(20)}
    await coordinator.drain()


def test_uvloop(coordinator: Coordinator) -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed for this interpreter")
    for debug in (False, True):
        with asyncio.Runner(debug=debug, loop_factory=uvloop.new_event_loop) as runner:
            runner.run(all_ways(coordinator))


def test_uvloop_one_after_another(coordinator: Coordinator) -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed for this interpreter")

    async def one() -> int:
        return await double(1)

    for _ in range(20):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert runner.run(one()) == 2


def test_uvloop_closed_with_tokens_in_flight(coordinator: Coordinator, gate: Gate) -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed for this interpreter")
    made: list[Any] = []

    async def begin() -> None:
        made.extend(coordinator.submit(gate, i) for i in range(20))
        for token in made:
            token.add_done_callback(lambda _: None)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(begin())
    gate.open()
    assert [token.result(20) for token in made] == list(range(20))


def test_the_plain_loop_in_debug_mode(coordinator: Coordinator) -> None:
    asyncio.run(all_ways(coordinator), debug=True)


def test_a_loop_that_watches_no_descriptors(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the proactor loop of Windows.
    def refuse(*_: Any) -> None:
        raise NotImplementedError

    def make() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        monkeypatch.setattr(loop, "add_reader", refuse)
        return loop

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(all_ways(coordinator))


def test_a_loop_of_eager_tasks(coordinator: Coordinator) -> None:
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("eager tasks came with Python 3.12")

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await all_ways(coordinator)

        async def one(i: int) -> int:
            return await double(i)

        assert await asyncio.gather(*[one(i) for i in range(100)]) == [2 * i for i in range(100)]
        done = double(1)
        await done
        assert await asyncio.create_task(one(2)) == 4

    asyncio.run(main())


@pytest.mark.skipif(
    sys.version_info >= (3, 14),
    reason="asyncio's own current_task() does not know them from 3.14 on",
)
def test_tasks_in_pure_python(coordinator: Coordinator) -> None:
    # asyncio's own fallback classes, which some debuggers and loops use, ask more of a future.
    task_class: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]

    def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
        return task_class(coroutine, loop=loop, **options)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)

        async def inside() -> None:
            assert type(asyncio.current_task()) is task_class
            await all_ways(coordinator)

        await asyncio.create_task(inside())

    asyncio.run(main())


def test_anyio_on_asyncio(coordinator: Coordinator, gate: Gate) -> None:
    anyio = pytest.importorskip("anyio", reason="anyio is not installed for this interpreter")

    async def main() -> None:
        await all_ways(coordinator)
        results = []

        async def one(i: int) -> None:
            results.append(await double(i))

        async with anyio.create_task_group() as group:
            for i in range(20):
                group.start_soon(one, i)
        assert sorted(results) == [2 * i for i in range(20)]
        token = coordinator.submit(gate)
        await gate.entered()
        with anyio.move_on_after(0.01) as scope:
            await token
        assert scope.cancelled_caught
        assert token.cancelled()
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await coordinator.submit(gate)

    anyio.run(main)
    gate.open()


def test_under_trio_it_says_what_to_do_and_nothing_hangs(
    coordinator: Coordinator, gate: Gate
) -> None:
    trio = pytest.importorskip("trio", reason="trio is not installed for this interpreter")

    async def main() -> str:
        token = coordinator.submit(gate, "value")
        with pytest.raises(RuntimeError, match="trio"):
            await token
        with pytest.raises(RuntimeError):
            await gather(token, coordinator.submit(int))
        with pytest.raises(RuntimeError):
            await double.map([1, 2])
        with pytest.raises(RuntimeError):
            async for _ in double.map([1, 2]):
                pass
        with pytest.raises(RuntimeError):
            async for _ in as_completed([token]):
                pass
        with pytest.raises(RuntimeError):
            await coordinator.drain()
        gate.open()
        result: str = await trio.to_thread.run_sync(token.result)
        return result

    with use(coordinator):
        assert trio.run(main) == "value"


# -- the standard library --------------------------------------------------------------------------


async def test_to_thread_and_executors_beside_it(coordinator: Coordinator) -> None:
    def blocking() -> int:
        return double(4).result(20)

    assert await asyncio.to_thread(blocking) == 8
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        loop = asyncio.get_running_loop()
        calls = [
            loop.run_in_executor(pool, coordinator.submit(abs, -i).result, 20) for i in range(20)
        ]
        assert await asyncio.gather(*calls) == list(range(20))


async def test_queues_locks_and_semaphores_around_it(coordinator: Coordinator) -> None:
    semaphore = asyncio.Semaphore(3)
    results: asyncio.Queue[int] = asyncio.Queue()

    async def one(i: int) -> None:
        async with semaphore:
            await results.put(await double(i))

    async with asyncio.TaskGroup() as group:
        for i in range(50):
            group.create_task(one(i))
    assert sorted([results.get_nowait() for _ in range(50)]) == [2 * i for i in range(50)]


def test_isolated_asyncio_test_case(coordinator: Coordinator) -> None:
    class Case(unittest.IsolatedAsyncioTestCase):
        async def test_it(self) -> None:
            assert await coordinator.submit(int, "5") == 5

    result = unittest.TestResult()
    Case("test_it").run(result)
    assert result.wasSuccessful(), result.errors


async def test_mocks_of_guarded_functions(coordinator: Coordinator) -> None:
    # A mock of it is awaited as it is, and keeps its parameters.
    for guarded, arguments in ((double, {"x": 1}), (SERVICE.route, {"number": 1})):
        fake: Any = mock.create_autospec(guarded, return_value=5)
        assert await fake(**arguments) == 5
        with pytest.raises(TypeError):
            await fake(wrong=1)


async def test_functools_wraps_around_it(coordinator: Coordinator) -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        async def inner(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return inner

    wrapped = logged(double)
    assert wrapped.__name__ == "double"
    assert inspect.signature(wrapped) == inspect.signature(double)
    assert await wrapped(3) == 6
