"""The process lane where the system has no safe fork: workers are started afresh."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import lane_functions as work
import pytest
from test_process import alive, until

from tokengate import Coordinator, CoordinatorStopped, TokenKilled, WorkerDied
from tokengate.lanes import processes

# what other systems do not have
BARE = """
import os, subprocess
from tokengate.lanes import processes
processes.FORKS = False
subprocess._CAN_USE_PIDFD_OPEN = False
for name in ("eventfd", "memfd_create", "pidfd_open"):
    if hasattr(os, name):
        delattr(os, name)
"""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This system, without what only some have."""
    monkeypatch.setattr(processes, "FORKS", False)
    monkeypatch.setattr(subprocess, "_CAN_USE_PIDFD_OPEN", False, raising=False)  # since 3.15
    for name in ("eventfd", "memfd_create", "pidfd_open"):
        monkeypatch.delattr(os, name, raising=False)


async def test_results_arguments_and_exceptions(lanes: Coordinator) -> None:
    assert await asyncio.gather(*[work.add(n, 1) for n in range(2_000)]) == list(range(1, 2_001))
    block = os.urandom(3_000_000)
    assert await work.echo(block) == block
    with pytest.raises(LookupError, match="nowhere") as caught:
        await work.fail(LookupError, "nowhere")
    assert "lane_functions.py" in str(caught.value.__cause__)
    assert await work.pid() != os.getpid()


@pytest.mark.parametrize(("how", "told"), [("exit", "exit status 7"), ("kill", "SIGKILL")])
async def test_a_worker_that_dies_fails_its_executing_token_only(
    lanes: Coordinator, how: str, told: str
) -> None:
    tokens = [work.add(i) for i in range(50)]
    dying = work.die(how)
    tokens += [work.add(i) for i in range(50, 100)]
    with pytest.raises(WorkerDied, match=told):
        await dying
    assert await asyncio.gather(*tokens) == list(range(100))


async def test_it_dies_while_idle(lanes: Coordinator) -> None:
    process = await work.pid()
    os.kill(process, signal.SIGKILL)
    await until(lambda: not alive(process))
    assert await work.pid() != process


async def test_kill_stops_the_run_for_real(lanes: Coordinator) -> None:
    token = work.spin()
    await until(lambda: token.state.name == "EXECUTING")
    token.kill("enough")
    with pytest.raises(TokenKilled, match="enough"):
        await token
    await until(lambda: not token.abandoned)
    assert await work.add(1, 1) == 2


async def test_stop_with_a_function_that_never_returns(
    lanes: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck = work.never()
    await until(lambda: stuck.state.name == "EXECUTING")
    running = lanes._lanes["process"].pids()
    await lanes.aclose(timeout=0.5)
    assert isinstance(stuck.exception(), CoordinatorStopped)
    await until(lambda: not any(alive(process) for process in running))
    assert "functions still run" in capsys.readouterr().err


PROGRAM = BARE + textwrap.dedent(
    """
    import sys, time
    from tokengate import task_token_guard

    @task_token_guard(lane="process")
    def here(path):
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        while path.endswith("stuck"):
            pass
        return __name__

    if __name__ == "__main__":
        print(here(sys.argv[1]).result(60))
    """
)


def test_functions_of_the_main_module(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "free")],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("__mp_main__\n", "")


async def test_a_killed_program_leaves_no_orphan(tmp_path: Path) -> None:
    """Though its function never comes back to see that the pipe has been closed."""
    script, path = tmp_path / "program.py", tmp_path / "stuck"
    script.write_text(PROGRAM)
    with subprocess.Popen([sys.executable, str(script), str(path)]) as program:
        await until(lambda: path.exists() and path.read_text(), 60)
        worker = int(path.read_text())
        program.kill()
    await until(lambda: not alive(worker), 10)
