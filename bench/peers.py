"""One command compares: every figure TokenGate promises, next to its peers and floors.

`python bench/peers.py` from a checkout; README.md beside this file says what is measured and how.
"""

from __future__ import annotations

import functools

import bursts
import executor
import latency
import scale
import subclass
import wave_ratio
from _child import run_alone
from _cli import Run, main

SECTIONS: dict[str, Run] = {
    "burst": bursts.run,
    "latency": latency.run,
    # Alone: a heap others have stretched, or their idle threads, would blur these two.
    "memory": functools.partial(run_alone, "memory.py"),
    "scale": scale.run,
    "idle": functools.partial(run_alone, "idle.py"),
    "wave": wave_ratio.run,
    "subclass": subclass.run,
    "executor": executor.run,
}

if __name__ == "__main__":
    raise SystemExit(main(SECTIONS))
