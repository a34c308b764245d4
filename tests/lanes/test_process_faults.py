"""Workers that die, functions that misbehave: every token ends, once, and says truthfully how."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import lane_functions as work
import pytest
from test_process import alive, until

from tokengate import (
    Coordinator,
    CoordinatorStopped,
    OperationQuarantined,
    TokenState,
    WorkerDied,
    task_token_guard,
    use,
)
from tokengate.lanes.remote import RemoteWorker

HERE = Path(__file__).parent


@pytest.fixture
def borne(logged):
    """Takes out of the log what dying workers write there; returns the texts."""
    told = []
    yield told
    for record in list(logged):
        if "quarantined" in record.getMessage() or "could not be started" in record.getMessage():
            told.append(record.getMessage())
            logged.remove(record)


@pytest.fixture(params=["exit", "kill", "segv", "abort"])
def how(request):
    return request.param


TOLD = {"exit": "exit status 7", "kill": "SIGKILL", "segv": "SIGSEGV", "abort": "SIGABRT"}


async def test_a_worker_that_dies_fails_its_executing_token_only(lanes, how):
    tokens = [work.add(i) for i in range(50)]
    dying = work.die(how)
    tokens += [work.add(i) for i in range(50, 100)]
    with pytest.raises(WorkerDied, match=TOLD[how]):
        await dying
    assert await asyncio.gather(*tokens) == list(range(100))


async def test_it_dies_while_it_unpickles(lanes, how):
    with pytest.raises(WorkerDied, match=TOLD[how]):
        await work.echo(work.Bomb(how))
    assert await work.add(1, 1) == 2


async def test_it_dies_while_it_pickles_the_result(lanes, how):
    with pytest.raises(WorkerDied, match=TOLD[how]):
        await work.result_that_kills(how)
    assert await work.add(1, 1) == 2


async def test_it_dies_while_idle(lanes):
    process = await work.pid()
    os.kill(process, signal.SIGKILL)
    await until(lambda: not alive(process))
    found = await asyncio.gather(*[work.pid() for _ in range(50)])
    assert process not in found


async def test_it_dies_between_two_calls_without_a_look_in_between(lanes):
    """Nobody had noticed: what is sent to the dead worker runs on the next one."""
    for _ in range(20):
        process = await work.pid()
        os.kill(process, signal.SIGKILL)
        assert await work.pid() != process
    assert lanes.stats().totals.failed == 0


async def test_results_of_a_dead_worker_are_not_lost(lanes, tmp_path):
    """What returned just before its worker died has its result; it is not run again."""
    lanes.resize("process", 1)
    for _ in range(10):
        await asyncio.gather(
            *[work.nothing() for _ in range(300)]
        )  # so that many are sent at a time
        trace = tmp_path / "trace"
        tokens = [work.mark(str(trace)) for _ in range(40)]
        dying = work.die("kill")
        await asyncio.gather(*tokens)
        with pytest.raises(WorkerDied):
            await dying
        lanes.resume(work.die)  # or the third would quarantine it
        assert len(trace.read_text().splitlines()) == 40
        trace.unlink()


async def test_out_of_memory_is_an_exception_where_it_can_be(lanes):
    with pytest.raises(MemoryError):
        await work.take_memory()


async def test_three_deaths_in_a_row_quarantine_the_operation(lanes, borne):
    for _ in range(3):
        with pytest.raises(WorkerDied):
            await work.die("exit")
    lane = lanes._lanes["process"]
    await until(lambda: lane._quarantined("lane_functions.die"))
    refused = work.die("exit")
    with pytest.raises(OperationQuarantined, match=r"lane_functions.die.*resume"):
        await refused
    assert refused.state is TokenState.KILLED
    assert await work.add(1, 1) == 2  # the others are not affected
    lanes.resume(work.die)
    with pytest.raises(WorkerDied):
        await work.die("exit")


async def test_a_success_between_deaths_keeps_it_out_of_quarantine(lanes):
    for _ in range(3):
        for _ in range(2):
            with pytest.raises(WorkerDied):
                await work.fragile(True)
        assert await work.fragile(False) == "alive"


async def test_workers_that_had_finished_a_run_count_once_in_the_row(lanes, tmp_path, borne):
    """With none of them fresh, the first death begins the row; two fresh workers complete it."""
    lanes.resize("process", 4)
    folder = tmp_path / "alive"
    folder.mkdir()
    await asyncio.gather(*[work.meet(str(folder), str(i), 4, False) for i in range(4)])
    folder = tmp_path / "dead"
    folder.mkdir()
    for number in range(20):
        token = work.meet(str(folder), str(number), 1, True)
        with pytest.raises((WorkerDied, OperationQuarantined)):
            await token
        if lanes._lanes["process"]._quarantined("lane_functions.meet"):
            break
        await asyncio.sleep(0.02)  # its awaiter is told before the quarantine begins
    assert 3 <= len(list(folder.iterdir())) < 2 * 4 + 1, "or each of the four began a row anew"


async def test_names_beyond_the_most_operations_are_quarantined_as_one(lanes, borne):
    guard = functools.partial(task_token_guard, lane="process")
    add, die = work.add.__wrapped__, work.die.__wrapped__
    await asyncio.gather(*[guard(f"one of many {i}")(add)(i) for i in range(1_001)])
    for number in range(20):
        with pytest.raises((WorkerDied, OperationQuarantined)):
            await guard(f"deadly {number}")(die)("exit")
        if lanes._lanes["process"]._quarantined("other"):
            break
    with pytest.raises(OperationQuarantined, match="other"):
        await guard("deadly again")(die)("exit")
    assert await guard("one of many 1")(add)(1) == 1
    lanes.resume()
    assert await guard("one more")(add)(2) == 2


def test_a_dropped_coordinator_goes_though_its_key_function_refers_to_it():
    def called_once():
        coordinator = Coordinator(process_workers=1, name="dropped")
        guarded = task_token_guard("circle", lane="process", key=lambda n: (id(coordinator), n))
        assert guarded(work.add.__wrapped__).options(coordinator=coordinator)(1).result(60) == 1
        return weakref.ref(coordinator)

    gone = called_once()
    deadline = time.monotonic() + 60
    while gone() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)  # its carrier's thread has to let go of it, too
    assert gone() is None


async def test_workers_that_finished_a_run_and_die_at_once_are_not_deaths_in_a_row(lanes, tmp_path):
    """Whichever carrier counts first: none of the others' successes came after the first death."""
    lanes.resize("process", 4)
    for round_, last in enumerate((False, True)):
        folder = tmp_path / str(round_)
        folder.mkdir()
        tokens = [work.meet(str(folder), str(i), 4, last) for i in range(4)]
        found = await asyncio.gather(*tokens, return_exceptions=True)
        assert [type(value) for value in found] == [WorkerDied if last else type(None)] * 4
    assert await work.meet(str(folder), "again", 1, False) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: work.chatter(5),
        lambda: work.close_standard_streams(),
        lambda: work.change_folder(),
        lambda: work.start_threads(),
        lambda: work.exit_badly_later(),
    ],
    ids=["chatter", "close", "chdir", "threads", "atexit"],
)
async def test_bad_manners_hurt_nobody(lanes, call, capfd):
    for _ in range(3):
        await call()
    assert await asyncio.gather(*[work.add(i) for i in range(50)]) == list(range(50))
    await lanes.aclose(timeout=20)
    capfd.readouterr()


async def test_a_function_that_forks_is_heard_once(lanes):
    assert await asyncio.gather(*[work.fork_and_return("") for _ in range(5)]) == ["parent"] * 5
    assert await work.add(1, 1) == 2


async def test_a_grandchild_that_holds_the_pipe_hides_no_death(lanes, tmp_path):
    path = tmp_path / "grandchild"
    with pytest.raises(WorkerDied, match="SIGKILL"):
        await asyncio.wait_for(work.fork_and_stay(str(path)), 20)
    os.kill(int(path.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("function", [work.never, work.spin])
async def test_what_never_returns_is_stopped(lanes, function):
    token = function()
    await until(lambda: token.state is TokenState.EXECUTING)
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await token
    await until(lambda: not token.abandoned)
    assert await work.add(1, 1) == 2


async def test_an_import_that_fails_in_the_worker_names_itself(lanes, tmp_path, monkeypatch):
    module = tmp_path / "only_here.py"
    module.write_text("def f(): return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    f = task_token_guard("only_here", lane="process")(only_here.f)
    assert await f() == 1
    module.write_text("import os\nos._exit(3)\n")
    for each in lanes._lanes["process"].pids():
        os.kill(each, signal.SIGKILL)
        await until(lambda each=each: not alive(each))
    with pytest.raises(WorkerDied, match="exit status 3"):
        await f()
    module.write_text("raise RuntimeError('not today')\n")
    with pytest.raises(RuntimeError, match="not today") as caught:
        await f()
    assert "only_here.f" in caught.value.__notes__[0]


async def test_stop_with_all_of_it_in_flight(lanes, tmp_path, capsys):
    lanes.resize("process", 4)
    stuck = [work.never(), work.spin(), work.hold(str(tmp_path / "s"), str(tmp_path / "gate"))]
    await until(lambda: all(token.state is TokenState.EXECUTING for token in stuck))
    waiting = [
        task_token_guard("blocked", lane="process", limit=1)(work.never.__wrapped__)()
        for _ in range(2)
    ]
    processes = lanes._lanes["process"].pids()
    await lanes.aclose(timeout=0.5)
    for token in [*stuck, *waiting]:
        assert isinstance(token.exception(), CoordinatorStopped)
    await until(lambda: not any(alive(process) for process in processes))
    assert "functions still run" in capsys.readouterr().err


async def test_ten_thousand_that_kill_a_worker_at_every_hundredth(lanes):
    """Of each worker's calls the hundredth fails, and all others give their result."""
    tokens = [work.die_at_the_hundredth(n) for n in range(10_000)]
    found = await asyncio.wait_for(asyncio.gather(*tokens, return_exceptions=True), 120)
    failed = [n for n, value in enumerate(found) if isinstance(value, WorkerDied)]
    assert len(failed) in (99, 100)  # at the end two workers may be on their way to a hundred
    assert all(value == n for n, value in enumerate(found) if n not in failed)
    totals = lanes.stats().totals
    assert (totals.submitted, totals.failed) == (10_000, len(failed))
    assert totals.completed == 10_000 - len(failed)


async def test_killed_from_outside_at_random(lanes, borne):
    """Workers are killed whatever they are at: a token fails, or gives its own result, and ends once."""
    over = threading.Event()

    def killer():
        while not over.is_set():
            for process in lanes._lanes["process"].pids():
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                over.wait(0.02)

    await work.pid()
    thread = threading.Thread(target=killer)
    thread.start()
    try:
        tokens = [work.add(n) for n in range(5_000)]
        found = await asyncio.wait_for(asyncio.gather(*tokens, return_exceptions=True), 120)
    finally:
        over.set()
        thread.join()
    for n, value in enumerate(found):
        assert value == n or isinstance(value, (WorkerDied, OperationQuarantined)), (n, value)
    totals = lanes.stats().totals
    assert totals.submitted == totals.completed + totals.failed + totals.killed


def test_coordinators_in_two_threads(new_coordinator):
    failures = []

    def body():
        async def main():
            coordinator = new_coordinator(process_workers=1)
            with use(coordinator):
                assert await asyncio.gather(*[work.add(i) for i in range(500)]) == list(range(500))
                with pytest.raises(WorkerDied):
                    await work.die("exit")
                assert await work.add(1, 1) == 2
            await coordinator.aclose()

        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=body) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


SCRIPT = """
import asyncio, os, sys, time
import tokengate

@tokengate.task_token_guard(lane="process")
def pid():
    return os.getpid()

@tokengate.task_token_guard(lane="process")
def never():
    while True:
        time.sleep(3600)

def main():
{body}

{call}
"""


def script(tmp_path, body, call='if __name__ == "__main__":\n    main()'):
    path = tmp_path / "script.py"
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    path.write_text(SCRIPT.format(body=lines, call=call))
    return [sys.executable, str(path)]


def test_functions_of_the_main_module_work_under_the_usual_guard(tmp_path):
    command = script(tmp_path, "print(pid().result() != os.getpid(), __name__)")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True __main__\n", "")


def test_a_main_module_without_the_guard_is_told_so(tmp_path):
    command = script(tmp_path, "print(repr(pid().exception()))", "main()")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert "if __name__ ==" in done.stdout + done.stderr, done
    assert done.returncode == 0


def test_a_main_module_that_starts_threads_is_loaded_in_the_workers(tmp_path):
    command = script(tmp_path, "print(pid().result() != os.getpid())")
    path = Path(command[1])
    path.write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1,), daemon=True).start()\n"
        + path.read_text()
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_sockets_of_the_program_that_give_up_early_are_not_the_lane_s(tmp_path):
    """The default timeout is the program's, and what its main module sets its workers have, too."""
    body = """
first = pid().result()
time.sleep(0.5)  # its worker waits for longer than that timeout
print(pid().result() == first)
"""
    command = script(tmp_path, body)
    path = Path(command[1])
    path.write_text("import socket\nsocket.setdefaulttimeout(0.1)\n" + path.read_text())
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_killed_program_leaves_no_orphans(tmp_path):
    body = """
tokens = [never(), never()]
while sum(t.state.name == "EXECUTING" for t in tokens) < 2:
    time.sleep(0.001)
lane = tokengate.get_coordinator()._lanes["process"]
from tokengate.lanes.processes import _zygote
print(*lane.pids(), _zygote._popen.pid, flush=True)
time.sleep(60)
"""
    process = subprocess.Popen(
        script(tmp_path, body), stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    others = [int(each) for each in process.stdout.readline().split()]
    assert len(others) == 3
    assert all(alive(each) for each in others)
    process.kill()
    process.wait()
    start = time.monotonic()
    while any(alive(each) for each in others):
        assert time.monotonic() - start < 20
        time.sleep(0.005)
    process.stdout.close()


def test_the_end_of_a_program_stops_what_never_returns(tmp_path):
    body = """
tokengate.configure_default(stop_timeout=0.2)
token = never()
while token.state.name != "EXECUTING":
    time.sleep(0.001)
print(*tokengate.get_coordinator()._lanes["process"].pids(), flush=True)
"""
    done = subprocess.run(
        script(tmp_path, body), capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 0
    assert "1 functions still run" in done.stderr
    assert not any(alive(int(each)) for each in done.stdout.split())


def test_a_forked_program_has_workers_of_its_own(tmp_path):
    body = """
mine = pid().result()
child = os.fork()
if child == 0:
    theirs = pid().result()
    tokengate.get_coordinator().stop()
    os._exit(0 if theirs != mine else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), pid().result() == mine)
"""
    done = subprocess.run(
        script(tmp_path, body),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.stdout == "0 True\n", done


async def test_the_path_and_the_environment_of_the_moment_are_handed_over(
    new_coordinator, monkeypatch, tmp_path
):
    monkeypatch.setenv("TOKENGATE_TEST_VALUE", "seen")
    monkeypatch.chdir(tmp_path)
    coordinator = new_coordinator(process_workers=1)
    assert (
        await coordinator.submit(
            task_token_guard("env", lane="process")(os.getenv), "TOKENGATE_TEST_VALUE"
        )
        == "seen"
    )
    assert await coordinator.submit(task_token_guard("cwd", lane="process")(os.getcwd)) == str(
        tmp_path
    )
    await coordinator.aclose()


def test_nothing_is_said_at_exit(tmp_path):
    """Also where every warning is shown, in the program and in what it starts."""
    program, path = script(tmp_path, "print(pid().result() != os.getpid())")
    done = subprocess.run(
        [program, "-W", "error", "-X", "dev", path],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


async def test_what_was_finished_is_told_though_its_worker_died(lanes, tmp_path, monkeypatch):
    """Its reply lies in the pipe still when the death is known."""
    lanes.resize("process", 1)
    blocks = [os.urandom(100_000) for _ in range(3)]
    assert [await work.echo(each) for each in blocks] == blocks  # known to be short
    gate = tmp_path / "gate"
    holding = work.hold(str(tmp_path / "started"), str(gate))
    await until((tmp_path / "started").exists)
    tokens = [work.echo(each) for each in blocks]
    last = work.die("exit")
    receive, seen = RemoteWorker._receive, []

    def late(self):
        if seen:
            select.select([self._running.sentinel], [], [], 20)
        seen.append(self)
        return receive(self)

    monkeypatch.setattr(RemoteWorker, "_receive", late)
    gate.touch()
    assert (await asyncio.gather(holding, *tokens))[1:] == blocks
    with pytest.raises(WorkerDied):
        await last
