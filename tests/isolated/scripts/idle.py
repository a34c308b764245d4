"""32 started workers with nothing to do: no CPU time, no wake-ups. Linux: reads /proc."""

import threading
from pathlib import Path

import tokengate

WORKERS = 32
SECONDS = 2.0
together = threading.Barrier(WORKERS + 1)


@tokengate.task_token_guard
def meet() -> None:
    together.wait(30)


def look(thread: Path) -> "tuple[str, int, int]":
    status = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines())
    times = (thread / "stat").read_text().rpartition(")")[2].split()
    voluntary, involuntary = status["voluntary_ctxt_switches"], status["nonvoluntary_ctxt_switches"]
    return times[0], int(voluntary) + int(involuntary), int(times[11]) + int(times[12])


tokengate.configure_default(thread_workers=2 * WORKERS)  # one operation does not get all
tokens = [meet() for _ in range(WORKERS)]
together.wait(30)
for token in tokens:
    token.result(20)
own = f"/proc/self/task/{threading.get_native_id()}"
workers = [path for path in Path("/proc/self/task").iterdir() if str(path) != own]
assert len(workers) == WORKERS + 1, workers  # with the keeper of the active limit
pause = threading.Event()
while {look(worker)[0] for worker in workers} != {"S"}:  # until the last has parked
    pause.wait(0.01)
lane = tokengate.get_coordinator().stats().lanes["thread"]
while (
    lane.last_reason != "idle: back to the initial limit"
):  # the keeper's last look, after a second
    pause.wait(0.01)
    lane = tokengate.get_coordinator().stats().lanes["thread"]
before = [look(worker) for worker in workers]
pause.wait(SECONDS)  # nothing is waited for: this is the time that is measured
after = [look(worker) for worker in workers]
print("switches", sum(b[1] - a[1] for a, b in zip(before, after, strict=True)))
print("ticks", sum(b[2] - a[2] for a, b in zip(before, after, strict=True)))
tokengate.get_coordinator().stop()
