"""What calls in the interpreter lane give, and how they end early."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import sys
import threading

import pytest
from test_process import until

from tokengate import (
    Coordinator,
    Executor,
    FunctionExited,
    TokenExpired,
    TokenGateError,
    TokenKilled,
    TokenState,
    task_token_guard,
    use,
)
from tokengate.lanes.availability import check_interpreter

if not check_interpreter()[0]:
    pytest.skip(check_interpreter()[1], allow_module_level=True)

import interpreter_functions as work

WORKERS = {"interpreter_workers": 2}  # of the fixture `lanes`


async def test_a_function_runs_in_another_interpreter(lanes):
    process, interpreter = await work.where()
    assert process == os.getpid()
    assert interpreter != work.plain_where()
    assert await asyncio.gather(*[work.add(i, b=i) for i in range(300)]) == [
        2 * i for i in range(300)
    ]


async def test_interpreters_are_reused(lanes):
    found = await asyncio.gather(*[work.where() for _ in range(2_000)])
    assert 1 <= len(set(found)) <= 2
    assert lanes.stats().lanes["interpreter"].workers <= 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds to a CPU")
@pytest.mark.parametrize("pin", ["core", "none", "auto"])
async def test_pin(new_coordinator, pin):
    usable = os.sched_getaffinity(0)
    with use(new_coordinator(interpreter_workers=2, pin=pin, stop_timeout=20.0)):
        found = await asyncio.gather(*[work.cpus() for _ in range(20)])
    for cpus in found:
        assert cpus <= usable
        assert (len(cpus) == 1) if pin == "core" else (cpus == usable)
    assert os.sched_getaffinity(0) == usable  # this thread's own


def test_it_starts_nothing_before_it_is_used(lanes):
    assert "interpreter" not in lanes.stats().lanes
    assert work.add(1, 2).result() == 3
    assert list(work.add.map(range(500), b=1)) == list(range(1, 501))


async def test_options_executor_and_methods(lanes):
    assert await work.on_a_thread.options(lane="interpreter")() != work.plain_where()
    assert await work.where.options(lane="thread")() == (os.getpid(), work.plain_where())
    with Executor(2, coordinator=lanes, lane="interpreter") as executor:
        assert executor.submit(work.plain_where).result(20) != work.plain_where()
    assert await work.Counter(5).plus(2) == 7
    assert await work.Counter.twice(4) == 8
    assert await work.Counter.name() == "Counter"
    power = task_token_guard("interpreter_power", lane="interpreter")(functools.partial(pow, 2))
    assert await power(5) == 32


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        b"x" * 3_000_000,
        bytearray(b"y" * 100_000),
        [b"z" * 50_000] * 3,
        {"a": (1, 2.5)},
    ],
    ids=lambda v: type(v).__name__,
)
async def test_values_come_back_as_they_went(lanes, value):
    found = await work.echo(value)
    assert found == value
    assert type(found) is type(value)


async def test_large_values_both_ways_at_once(lanes):
    block = os.urandom(4_000_000)
    assert all(each == block for each in await asyncio.gather(*[work.echo(block)] * 12))


async def test_an_exception_brings_its_traceback(lanes):
    with pytest.raises(ZeroDivisionError, match="by what") as caught:
        await work.fail(ZeroDivisionError, "by what")
    assert "in fail" in str(caught.value.__cause__)
    with pytest.raises(FunctionExited):
        await work.fail(SystemExit, 3)
    with pytest.raises(TokenGateError, match="Unpicklable"):
        await work.fail(work.Unpicklable)
    with pytest.raises(TypeError, match="lambda_result"):
        await work.lambda_result()
    assert await work.add(1, 1) == 2


async def test_what_cannot_travel_raises_at_the_call(lanes, monkeypatch):
    monkeypatch.setattr("tokengate.lanes.wire.cloudpickle", None)
    with pytest.raises(TypeError, match=r"add: argument 2, an object of type generator"):
        work.add(1, (x for x in ()))

    @task_token_guard(lane="interpreter")
    def inner():
        pass

    with pytest.raises(TypeError, match="inner cannot be found"):
        inner()


async def test_what_is_of_the_main_module_raises_at_the_call(lanes, monkeypatch):
    def inner():
        pass

    inner.__module__, inner.__qualname__ = "__main__", "inner"
    monkeypatch.setattr(sys.modules["__main__"], "inner", inner, raising=False)
    with pytest.raises(TypeError, match=r"__main__\.inner: the function is defined in __main__"):
        task_token_guard("of_main", lane="interpreter")(inner)()

    class Point:
        pass

    Point.__module__, Point.__qualname__ = "__main__", "Point"
    monkeypatch.setattr(sys.modules["__main__"], "Point", Point, raising=False)
    with pytest.raises(TypeError, match=r"functions\.echo: Point among its arguments .*__main__"):
        work.echo([Point()])
    assert await work.echo("__main__") == "__main__"


async def test_an_import_that_refuses_is_named(lanes):
    with pytest.raises(ImportError, match=r"'_testsinglephase'|'readline'") as caught:
        await work.load("readline")
    assert caught.value.name == "readline"
    assert "lane='process'" in str(caught.value)
    assert await work.add(1, 1) == 2


async def test_the_core_is_not_there_and_says_so(lanes):
    for module in ("tokengate._core", "tokengate.coordinator"):
        with pytest.raises(ImportError, match="main interpreter"):
            await work.load(module)


async def test_the_token_and_declared_variables_are_known_inside(lanes):
    token = work.whoami.options(timeout=60)()
    number, operation, tags, remaining, told = await token
    assert (number, operation, tags) == (token.id, "interpreter_functions.whoami", {"who": "me"})
    assert 0 < remaining <= 60
    assert "in interpreter " in told
    work.tenant.set("me")
    work.unknown.set("me")
    assert await work.variables() == ("me", "nobody")


async def test_calls_inside_run_in_place(lanes):
    own, inner, mapped, other = await work.nested()
    assert own == inner == other != work.plain_where()
    assert mapped == [own, own]
    inside, late = await work.late_calls()
    assert inside is None
    assert isinstance(late, TokenExpired)


async def test_what_needs_a_coordinator_is_refused_inside(lanes):
    told = await work.use_a_coordinator()
    assert len(told) == 3
    assert "Coordinator.stats" in told[0]
    assert "gather" in told[1]
    assert "Executor.submit" in told[2]


@pytest.mark.parametrize("how", ["cancel", "kill", "run_timeout", "timeout", "kill_operation"])
async def test_ending_a_run_interrupts_it(lanes, how, tmp_path):
    started, cleaned = tmp_path / "started", tmp_path / "cleaned"
    options = {how: 1.0} if how.endswith("timeout") else {}
    token = work.clean_up.options(**options)(str(started), str(cleaned))
    await until(started.exists)
    if how == "cancel":
        token.cancel()
    elif how == "kill":
        token.kill("enough")
    elif how == "kill_operation":
        assert lanes.kill_operation(work.clean_up, "enough") == 1
    expected = {
        "cancel": asyncio.CancelledError,
        "kill": TokenKilled,
        "kill_operation": TokenKilled,
    }
    with pytest.raises(expected.get(how, TokenExpired)):
        await token
    await until(lambda: not token.abandoned)
    assert cleaned.exists()
    assert await work.add(1, 1) == 2
    assert lanes.stats().operations["interpreter_functions.clean_up"].abandoned_now == 0


async def test_a_function_that_swallows_it_is_told_again(lanes, tmp_path):
    token = work.swallow(str(tmp_path / "started"), 3)
    await until((tmp_path / "started").exists)
    token.kill("enough")
    await until(lambda: not token.abandoned)
    assert await work.add(1, 1) == 2


async def test_the_default_timeout_of_sockets_is_the_program_s(lanes):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.05)
    try:
        lanes.resize("interpreter", 1)
        first = await work.where()
        await asyncio.sleep(0.2)
        assert await work.where() == first
        assert await work.echo(bytes(1_000_000)) == bytes(1_000_000)
        spinning = work.spin()
        await until(lambda: spinning.state is TokenState.EXECUTING)
        spinning.kill("enough")  # heard on a socket of its own
        with pytest.raises(TokenKilled):
            await spinning
        assert (await work.where())[1] != first[1]
    finally:
        socket.setdefaulttimeout(before)


async def test_what_cannot_be_interrupted_is_left_behind_and_replaced(lanes, tmp_path):
    lanes.resize("interpreter", 1)
    read, write = os.pipe()
    token = work.blocked(str(tmp_path / "started"), read)
    await until((tmp_path / "started").exists)
    token.kill("enough")
    with pytest.raises(TokenKilled):
        await token
    assert await work.add(1, 1) == 2  # on another interpreter, while that one is stuck
    assert token.abandoned
    assert lanes.stats().operations["interpreter_functions.blocked"].abandoned_now == 1
    (tmp_path / "started.over").touch()
    os.close(write)
    await until(lambda: not token.abandoned)
    assert lanes.stats().operations["interpreter_functions.blocked"].abandoned_now == 0
    await until(lambda: lanes.stats().lanes["interpreter"].workers == 1)
    assert await work.add(2, 2) == 4
    os.close(read)


async def test_a_limit_counts_what_is_left_behind(lanes, tmp_path):
    read, write = os.pipe()
    one = task_token_guard("one_blocked", lane="interpreter", limit=1)(work.blocked.__wrapped__)
    token = one(str(tmp_path / "started"), read)
    await until((tmp_path / "started").exists)
    token.cancel()
    second = one(str(tmp_path / "second"), read)
    assert await work.add(1, 1) == 2
    assert second.state is TokenState.WAITING
    (tmp_path / "started.over").touch()
    os.close(write)
    assert await second == b""
    os.close(read)


async def test_cancelled_before_it_began_it_never_runs(lanes, tmp_path):
    lanes.resize("interpreter", 1)
    gate = tmp_path / "gate"
    blocker = work.hold(str(tmp_path / "s"), str(gate))
    await until((tmp_path / "s").exists)
    tokens = [work.start_thread(str(tmp_path / str(i))) for i in range(6)]
    assert all(token.cancel() for token in tokens[::2])
    gate.touch()
    await asyncio.gather(blocker, *tokens[1::2])
    await until(lambda: all((tmp_path / str(i)).exists() for i in (1, 3, 5)))
    assert not any((tmp_path / str(i)).exists() for i in (0, 2, 4))


async def test_a_slow_token_holds_nobody_up(lanes, tmp_path):
    gate = tmp_path / "gate"
    stuck = work.hold(str(tmp_path / "started"), str(gate))
    await until((tmp_path / "started").exists)
    assert await asyncio.gather(*[work.add(i) for i in range(300)]) == list(range(300))
    assert stuck.state is TokenState.EXECUTING
    gate.touch()
    await stuck


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_starting_and_closing_leaves_nothing_behind(tmp_path):
    """Descriptors and threads exactly, memory within less than one interpreter."""

    def cycle():
        with Coordinator(interpreter_workers=2) as coordinator, use(coordinator):
            assert list(work.add.map(range(20))) == list(range(20))

    def resident():
        with open("/proc/self/smaps_rollup") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))

    for _ in range(5):
        cycle()
    memory, files, threads = resident(), len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(25):
        cycle()
    assert len(os.listdir("/proc/self/fd")) == files
    assert threading.active_count() == threads
    assert resident() - memory < 2_500 * 5  # 50 interpreters of 2.5 MB were closed
