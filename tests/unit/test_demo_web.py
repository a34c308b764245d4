"""demo/web.py behind uvicorn, asked by a real HTTP client over loopback."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tokengate
from tokengate import Coordinator, use

fastapi = pytest.importorskip("fastapi", reason="fastapi is not installed for this interpreter")
httpx = pytest.importorskip("httpx", reason="httpx is not installed for this interpreter")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed for this interpreter")

if TYPE_CHECKING:
    from tests.conftest import Gate, NewCoordinator, Until

DEMO = Path(__file__).parent.parent.parent / "demo" / "web.py"
PACKAGE_ROOT = Path(tokengate.__file__).parent.parent
TIMEOUT = 20.0


class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
    """uvicorn in a thread of its own, on a free port."""

    def __init__(self, app: Any, loop: str, coordinator: Coordinator) -> None:
        super().__init__(uvicorn.Config(app, loop=loop, log_config=None))
        self._up = threading.Event()
        self._coordinator = coordinator
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._run_in_thread, name="server")

    def _run_in_thread(self) -> None:
        try:
            with self._listener, use(self._coordinator):
                self.run(sockets=[self._listener])
        finally:
            self._up.set()  # where it never came up, so that the test need not wait for it

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets=sockets)
        self._up.set()

    def start(self) -> None:
        self.thread.start()
        assert self._up.wait(TIMEOUT), "the server did not start"
        assert self.started

    def stop(self) -> None:
        self.should_exit = True
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive(), "the server did not stop"


@pytest.fixture
def web() -> Any:
    """The demo as a module, fresh."""
    spec = importlib.util.spec_from_file_location("web_demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def many(new_coordinator: NewCoordinator) -> Coordinator:
    """A coordinator with room for every call of a test at once."""
    return new_coordinator(thread_workers=16, loop_lag_target=None)


@pytest.fixture(params=["asyncio", "uvloop"])
def server(
    request: pytest.FixtureRequest,
    web: Any,
    many: Coordinator,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Server]:
    """The demo, served. Afterwards it has stopped and has logged no warning."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed for this interpreter")
    one = Server(web.app, request.param, many)
    one.start()
    yield one
    one.stop()
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Any]:
    """`await client.get(path)`, with as many connections as there are requests."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=TIMEOUT) as one:
        yield one


@pytest.fixture
def held(web: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """The demo's blocking call stays inside until the test opens this, but for users."""

    def query(what: str) -> str:
        return str(what if what == "ada" else gate(what))

    monkeypatch.setattr(web, "query", query)
    return gate


def ask(client: Any, path: str) -> asyncio.Task[Any]:
    return asyncio.create_task(client.get(path))


async def hang_up(request: asyncio.Task[Any]) -> None:
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request


def figures(coordinator: Coordinator, operation: str) -> Callable[..., tuple[int, ...]]:
    """`figures(...)("waiting", "completed")`: these of that operation, now."""

    def now(*names: str) -> tuple[int, ...]:
        stats = coordinator.stats().operations.get(operation)
        return tuple(0 if stats is None else getattr(stats, name) for name in names)

    return now


ROUTES = [
    ("/price/tea", {"user": "ada", "price": "all about tea"}, {"user", "price"}),
    ("/report/2020", {"report": "all about the year 2020"}, {"report"}),
    ("/search/tea", {"found": "all about tea"}, {"search"}),
    ("/library/tea", {"library": "all about tea"}, {"web_demo.query"}),
]


@pytest.mark.parametrize(("path", "answer", "operations"), ROUTES, ids=[r[0] for r in ROUTES])
async def test_every_route_answers_and_is_counted(
    client: Any, many: Coordinator, path: str, answer: Any, operations: set[str]
) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()) == (200, answer)
    counted = {name for name, of in many.stats().operations.items() if of.completed == 1}
    assert counted == operations
    shown = (await client.get("/stats")).json()
    assert shown == json.loads(json.dumps(many.stats().as_dict())) | {
        # these two go on by themselves
        "loop_lag": shown["loop_lag"],
        "loop_busy": shown["loop_busy"],
        "lanes": shown["lanes"],
    }


async def test_a_plain_route_runs_as_a_token(
    client: Any, many: Coordinator, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "query", lambda what: threading.current_thread().name)
    response = await client.get("/plain/tea")
    assert response.status_code == 200
    assert response.json()["plain"].startswith(f"{many.name}-")
    # FastAPI may have the answer validated on a worker, too
    assert many.stats().operations["web_demo.plain"].completed == 1


async def test_what_is_too_much_is_refused_and_the_rest_is_served(
    client: Any, many: Coordinator, held: Gate, until: Until
) -> None:
    now = figures(many, "report")
    first = [ask(client, f"/report/{year}") for year in range(2)]
    await held.entered(2)
    queued = [ask(client, f"/report/{year}") for year in range(2, 6)]
    await until(lambda: now("waiting") == (4,))
    for _ in range(3):
        refused = await client.get("/report/7")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "report" in refused.json()["detail"]
    other = ask(client, "/search/tea")  # other work is not refused
    await held.entered()
    assert held.most_inside == 3
    held.open()
    answers = await asyncio.gather(*first, *queued)
    assert [a.json() for a in answers] == [{"report": f"the year {y}"} for y in range(6)]
    assert (await other).status_code == 200
    assert now("submitted", "completed", "killed", "rejected", "waiting") == (9, 6, 3, 3, 0)


async def test_what_takes_too_long_ends_with_504(
    client: Any, many: Coordinator, held: Gate, until: Until
) -> None:
    many.configure("price", timeout=0.01)
    now = figures(many, "price")
    late = await client.get("/price/tea")
    assert late.status_code == 504
    assert "price" in late.json()["detail"]
    held.open()
    await until(lambda: now("abandoned_now") == (0,))
    assert now("expired", "completed") == (1, 0)


async def test_who_hangs_up_gives_up_the_place_in_the_queue(
    client: Any, many: Coordinator, held: Gate, until: Until
) -> None:
    now = figures(many, "report")
    first = [ask(client, f"/report/{year}") for year in range(2)]
    await held.entered(2)
    waiting = ask(client, "/report/2")
    await until(lambda: now("waiting") == (1,))
    await hang_up(waiting)
    await until(lambda: now("waiting", "cancelled") == (0, 1))
    await hang_up(first[0])  # its function runs on, and keeps its place
    await until(lambda: now("executing", "cancelled", "abandoned_now") == (1, 2, 1))
    held.open()
    assert (await first[1]).json() == {"report": "the year 1"}
    await until(lambda: now("abandoned_now") == (0,))
    assert now("submitted", "completed", "cancelled") == (3, 1, 2)
    assert held.calls == 2


@pytest.mark.parametrize(
    ("path", "operation"), [("/search/tea", "search"), ("/library/tea", "web_demo.query")]
)
async def test_who_hangs_up_elsewhere_leaves_nothing_behind(
    client: Any, many: Coordinator, held: Gate, until: Until, path: str, operation: str, web: Any
) -> None:
    if operation == "web_demo.query":
        operation = f"{web.query.__module__}.{web.query.__qualname__}"
    now = figures(many, operation)
    request = ask(client, path)
    await held.entered()
    await hang_up(request)
    held.open()
    await until(lambda: now("executing", "abandoned_now", "completed") == (0, 0, 1))
    assert (await client.get(path)).status_code == 200


async def test_many_at_once_add_up(client: Any, many: Coordinator) -> None:
    many.configure("report", max_waiting=None)
    routes = [*ROUTES, ("/plain/tea", {"plain": "all about tea"}, set())] * 20
    answers = await asyncio.gather(*[client.get(path) for path, *_ in routes])
    for (_, expected, _), answer in zip(routes, answers, strict=True):
        assert (answer.status_code, answer.json()) == (200, expected)
    shown = (await client.get("/stats")).json()
    every = {name for _, _, names in ROUTES for name in names}
    assert {name: shown["operations"][name]["completed"] for name in every} == dict.fromkeys(
        every, 20
    )
    assert shown["totals"]["submitted"] == shown["totals"]["completed"] >= 20 * (len(every) + 1)
    for gauge in ("waiting", "admitted", "executing", "abandoned_now"):
        assert shown["totals"][gauge] == 0


async def test_a_server_that_stops_serves_what_it_has_begun(
    client: Any, server: Server, many: Coordinator, held: Gate
) -> None:
    begun = [ask(client, path) for path in ("/search/tea", "/report/2020", "/library/tea")]
    await held.entered(3)
    server.should_exit = True
    assert server.thread.is_alive()
    held.open()
    assert [(await each).status_code for each in begun] == [200] * 3
    await asyncio.to_thread(server.thread.join, TIMEOUT)
    assert not server.thread.is_alive()
    assert many.stats().totals.completed == 3


@pytest.mark.skipif(os.name == "nt", reason="SIGINT to a child process")
def test_as_a_user_starts_and_stops_it() -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-u", str(DEMO), "0"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"running on (http://[\d.:]+)", line):
                answer = httpx.get(f"{found[1]}/price/tea", timeout=TIMEOUT)
                assert answer.json() == {"user": "ada", "price": "all about tea"}
                process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 0, said
        assert "Application shutdown complete" in "".join(said)
        assert "Traceback" not in "".join(said)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
