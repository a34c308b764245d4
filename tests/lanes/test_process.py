"""What calls in the process lane give: results, exceptions, contexts, policies."""

from __future__ import annotations

import asyncio
import functools
import os
import pickle
import time

import lane_functions as work
import pytest

import tokengate
from tokengate import (
    Executor,
    FunctionExited,
    LaneUnavailable,
    TokenExpired,
    TokenGateError,
    TokenKilled,
    TokenState,
    task_token_guard,
    travels,
)


async def until(condition, timeout=20.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.001)


async def test_a_function_runs_in_another_process(lanes):
    assert await work.pid() != os.getpid()
    assert await work.add(2, b=3) == 5
    assert await asyncio.gather(*[work.add(i, i) for i in range(300)]) == [
        2 * i for i in range(300)
    ]


async def test_many_calls_share_the_workers(lanes):
    pids = await asyncio.gather(*[work.pid() for _ in range(2_000)])
    assert 1 <= len(set(pids)) <= 2


def test_without_a_loop(lanes):
    assert work.add(1, 2).result() == 3
    assert list(work.add.map(range(500), b=1)) == list(range(1, 501))


async def test_map_and_executor(lanes):
    assert await work.add.map(range(1_000), b=2) == list(range(2, 1_002))
    with Executor(2, coordinator=lanes, lane="process") as executor:
        assert executor.submit(work.plain_pid).result(20) != os.getpid()
        assert executor.coordinator is lanes
        assert list(executor.map(abs, [-1, -2])) == [1, 2]
        found = await asyncio.get_running_loop().run_in_executor(executor, work.plain_pid)
        assert found != os.getpid()


async def test_options_choose_the_lane(lanes):
    assert await work.pid.options(lane="thread")() == os.getpid()
    other = await work.on_a_thread.options(lane="process")()
    assert other[0] != os.getpid()
    assert work.pid.lane == "process"
    assert work.on_a_thread.lane == "thread"


async def test_methods(lanes):
    assert await work.Counter(5).plus(2) == 7
    assert await work.Counter.twice(4) == 8
    assert await work.Counter.name() == "Counter"
    assert await task_token_guard("power", lane="process")(functools.partial(pow, 2))(5) == 32


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        "text",
        b"small",
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
    found = await asyncio.gather(*[work.echo(block) for _ in range(12)])
    assert all(each == block for each in found)


async def test_a_memoryview_arrives_as_what_it_views(lanes):
    assert await work.echo(memoryview(b"m" * 50_000)) == b"m" * 50_000


async def test_arrays_travel_out_of_band(lanes):
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(1_000_000)
    found = await work.echo(array)
    assert (found == array).all()
    found[0] = 7  # it may be written to, as after any pickle


async def test_an_exception_brings_its_traceback(lanes):
    with pytest.raises(ZeroDivisionError, match="by what") as caught:
        await work.fail(ZeroDivisionError, "by what")
    told = str(caught.value.__cause__)
    assert "lane_functions.py" in told
    assert "in fail" in told


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
async def test_what_must_not_act_on_the_loop_arrives_wrapped(lanes, kind):
    with pytest.raises(FunctionExited) as caught:
        await work.fail(kind, 3)
    assert type(caught.value.__cause__) is kind


async def test_exceptions_that_cannot_travel_are_named(lanes):
    with pytest.raises(TokenGateError, match="Stubborn: one two"):
        await work.fail(work.Stubborn, "one", "two")
    with pytest.raises(TokenGateError, match="Unpicklable"):
        await work.fail(work.Unpicklable)
    assert await work.add(1, 1) == 2


async def test_results_that_cannot_travel_fail_their_token_only(lanes):
    tokens = [work.lambda_result(), work.add(1, 1), work.generator_result(), work.add(2, 2)]
    found = await asyncio.gather(*tokens, return_exceptions=True)
    assert found[1::2] == [2, 4]
    assert isinstance(found[0], TypeError)
    assert "lambda_result" in str(found[0])
    assert "generator" in str(found[2])


async def test_arguments_that_cannot_be_pickled_raise_at_the_call(lanes):
    with pytest.raises(TypeError, match=r"add: argument 2, an object of type generator"):
        work.add(1, (x for x in ()))
    with pytest.raises(TypeError, match=r"argument 'b', an object of type lock"):
        work.add(1, b=__import__("threading").Lock())
    with open(os.devnull) as file, pytest.raises(TypeError, match="argument 1"):
        work.add.options(key=lambda *_: 1)(file)
    assert await work.add(1, 1) == 2
    assert lanes.stats().totals.submitted == 1


async def test_functions_without_a_name_raise_at_the_call(lanes, monkeypatch):
    monkeypatch.setattr("tokengate.lanes.wire.cloudpickle", None)

    @task_token_guard(lane="process")
    def inner():
        pass

    with pytest.raises(TypeError, match=r"inner cannot be found .*cloudpickle"):
        inner()
    with pytest.raises(TypeError, match="lambda"):
        lanes.submit(task_token_guard("an_anonymous_one", lane="process")(lambda: None))


async def test_cloudpickle_carries_them_where_it_is_installed(lanes):
    pytest.importorskip("cloudpickle")
    offset = 3

    @task_token_guard(lane="process")
    def inner(n):
        return n + offset

    assert await inner(4) == 7


async def test_the_token_is_known_inside(lanes):
    token = work.whoami.options(timeout=60)()
    number, operation, tags, remaining = await token
    assert (number, operation, tags) == (token.id, "lane_functions.whoami", {"who": "me"})
    assert 0 < remaining <= 60


async def test_calls_inside_a_worker_run_on_its_own_threads(lanes):
    own, (inner, thread), again = await work.nested()
    assert own == inner == again != os.getpid()
    assert thread.startswith("tokengate-")


async def test_deadlines_are_inherited_in_the_worker(lanes):
    assert 0 < await work.inherited.options(timeout=30)() <= 30
    assert await work.inherited() is None


async def test_declared_context_variables_travel(lanes):
    work.tenant.set("me")
    work.unknown.set("me")
    assert await work.variables() == ("me", "nobody")
    work.tenant.set("you")
    assert await work.variables() == ("you", "nobody")
    with pytest.raises(TypeError, match="ContextVar"):
        travels("tenant")
    with pytest.raises(ValueError, match="named 'tenant' travels already"):
        travels(__import__("contextvars").ContextVar("tenant"))


async def test_a_context_variable_that_cannot_be_pickled_is_named(lanes):
    work.tenant.set(iter(()).__iter__ and (x for x in ()))
    with pytest.raises(TypeError, match="context variable 'tenant'"):
        work.add(1)


async def test_limits_and_keys_hold(lanes, tmp_path):
    limited = task_token_guard("limited_hold", lane="process", limit=1)(work.hold.__wrapped__)
    gate = tmp_path / "gate"
    first, second = (limited(str(tmp_path / f"s{i}"), str(gate)) for i in (1, 2))
    await until((tmp_path / "s1").exists)
    assert await work.add(1, 1) == 2  # the other worker is free
    assert not (tmp_path / "s2").exists()
    assert second.state is TokenState.WAITING
    gate.touch()
    await asyncio.gather(first, second)


async def test_what_is_queued_behind_a_slow_token_runs_elsewhere(lanes, tmp_path):
    await asyncio.gather(*[work.nothing() for _ in range(3_000)])  # expected to be short
    gate = tmp_path / "gate"
    slow = task_token_guard("nothing_slow", lane="process")(work.hold.__wrapped__)
    stuck = slow(str(tmp_path / "started"), str(gate))
    await until((tmp_path / "started").exists)
    assert await asyncio.wait_for(asyncio.gather(*[work.add(i) for i in range(500)]), 20) == list(
        range(500)
    )
    assert stuck.state is TokenState.EXECUTING
    gate.touch()
    await stuck


async def test_a_slow_token_of_many_short_ones_holds_nobody_up(lanes, tmp_path):
    gate, started = tmp_path / "gate", tmp_path / "started"
    await asyncio.gather(*[work.mostly_short(i, "", "") for i in range(3_000)])
    tokens = [work.mostly_short(i, str(started), str(gate)) for i in range(20_000)]
    slow = tokens[work.SLOW_ONE]
    others = [token for token in tokens if token is not slow]
    assert len(await asyncio.wait_for(asyncio.gather(*others), 30)) == len(others)
    assert slow.state is TokenState.EXECUTING
    gate.touch()
    await slow


async def test_two_slow_ones_do_not_share_a_worker(lanes, tmp_path):
    gate = tmp_path / "gate"
    tokens = [work.hold(str(tmp_path / f"s{i}"), str(gate)) for i in range(2)]
    await until(lambda: all((tmp_path / f"s{i}").exists() for i in range(2)))
    gate.touch()
    assert len(set(await asyncio.gather(*tokens))) == 2


async def test_pause_takes_back_what_has_not_begun(lanes, tmp_path):
    lanes.resize("process", 1)
    gate, trace = tmp_path / "gate", tmp_path / "trace"
    blocker = work.hold(str(tmp_path / "s"), str(gate))
    await until((tmp_path / "s").exists)
    tokens = [work.mark(str(trace)) for _ in range(5)]
    lanes.pause("lane_functions.mark")
    gate.touch()
    await blocker
    assert await work.add(1, 1) == 2
    assert not trace.exists()
    assert {token.state for token in tokens} == {TokenState.WAITING}
    lanes.resume("lane_functions.mark")
    await asyncio.gather(*tokens)
    assert len(trace.read_text().splitlines()) == 5


async def test_cancelled_before_it_began_it_never_runs(lanes, tmp_path):
    lanes.resize("process", 1)
    gate, trace = tmp_path / "gate", tmp_path / "trace"
    blocker = work.hold(str(tmp_path / "s"), str(gate))
    await until((tmp_path / "s").exists)
    tokens = [work.mark(str(trace)) for _ in range(10)]
    assert all(token.cancel() for token in tokens[::2])
    gate.touch()
    await asyncio.gather(blocker, *tokens[1::2])
    assert len(trace.read_text().splitlines()) == 5
    assert lanes.stats().totals.abandoned_total == 0


async def test_cancelling_at_random_tells_the_truth(lanes, tmp_path):
    """Each token ran exactly as often as its state says."""
    trace = [tmp_path / str(i) for i in range(400)]
    tokens = [work.mark(str(path)) for path in trace]
    for i, token in enumerate(tokens):
        if i % 3 == 0:
            token.cancel()
        if i % 20 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*tokens, return_exceptions=True)
    for token, path in zip(tokens, trace):
        ran = len(path.read_text().splitlines()) if path.exists() else 0
        if token.cancelled():
            assert ran <= 1
            assert ran == 0 or token.timestamps[2] > 0, "it ran, and says it never started"
        else:
            assert ran == 1


@pytest.mark.parametrize(
    "how", ["cancel", "kill", "run_timeout", "timeout", "kill_operation", "kill_id"]
)
async def test_ending_a_run_stops_it_for_real(lanes, how, tmp_path):
    started = tmp_path / "started"
    options = (
        {"run_timeout": 0.3}
        if how == "run_timeout"
        else {"timeout": 1.5}
        if how == "timeout"
        else {}
    )
    await work.pid()
    token = work.hold.options(**options)(str(started), str(tmp_path / "never"))
    await until(lambda: started.exists() and started.read_text())
    process = int(started.read_text())
    if how == "cancel":
        token.cancel()
    elif how == "kill":
        token.kill("enough")
    elif how == "kill_operation":
        assert lanes.kill_operation("lane_functions.hold", "enough") == 1
    elif how == "kill_id":
        assert lanes.kill(token.id, "enough")
    expected = {
        "cancel": asyncio.CancelledError,
        "run_timeout": TokenExpired,
        "timeout": TokenExpired,
    }
    with pytest.raises(expected.get(how, TokenKilled)):
        await token
    await until(lambda: not alive(process))
    await until(lambda: not token.abandoned)
    assert await work.add(1, 1) == 2
    assert lanes.stats().operations["lane_functions.hold"].abandoned_now == 0


def alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_administration_covers_the_lane(lanes, tmp_path):
    lanes.pause()
    tokens = [work.add(i) for i in range(5)]
    assert lanes.stats().lanes["process"].queue_depth == 5
    assert lanes.discard("lane_functions.add") == 5
    assert all(isinstance(token.exception(), TokenKilled) for token in tokens)
    lanes.resume()
    lanes.configure("lane_functions.add", limit=1)
    assert await work.add(1, 2) == 3
    await lanes.drain()
    figures = lanes.stats().operations["lane_functions.add"]
    assert (figures.submitted, figures.completed, figures.killed) == (6, 1, 5)
    with pytest.raises(ValueError, match="expected 'thread' or 'process'"):
        lanes.resize("cluster", 2)


async def test_an_operation_in_two_lanes_is_counted_together(lanes):
    await work.add(1)
    await work.add.options(lane="thread")(1)
    assert lanes.stats().operations["lane_functions.add"].completed == 2
    assert len({work.add(1).id, work.add.options(lane="thread")(1).id}) == 2
    await lanes.drain()


async def test_a_pause_made_before_the_lane_is_used_holds(lanes):
    lanes.pause(work.add)
    token = work.add(1)
    assert await work.pid()
    assert token.state is TokenState.WAITING
    lanes.resume(work.add)
    assert await token == 1


async def test_dump_names_the_process(lanes, tmp_path):
    token = work.hold(str(tmp_path / "s"), str(tmp_path / "gate"))
    await until(lambda: (tmp_path / "s").exists() and (tmp_path / "s").read_text())
    out = __import__("io").StringIO()
    lanes.dump(out)
    assert f"in process {(tmp_path / 's').read_text()}" in out.getvalue()
    (tmp_path / "gate").touch()
    await token


async def test_the_stopped_lane_refuses_and_starts_again(lanes):
    assert await work.add(1) == 1
    await lanes.aclose()
    token = work.add(1)
    assert isinstance(token.exception(), tokengate.CoordinatorStopped)
    lanes.start()
    assert await work.add(1) == 1


async def test_inline_runs_here(lanes):
    with tokengate.testing.inline():
        assert await work.pid() == os.getpid()


def test_unknown_lanes_are_refused():
    with pytest.raises(LaneUnavailable, match="'cluster'.*expected 'thread' or 'process'"):
        task_token_guard("x", lane="cluster")
    with pytest.raises(ValueError, match="process_workers=0"):
        tokengate.Coordinator(process_workers=0)


def test_errors_can_be_pickled():
    for error in (tokengate.WorkerDied("x"), tokengate.OperationQuarantined("x")):
        assert str(pickle.loads(pickle.dumps(error))) == "x"
