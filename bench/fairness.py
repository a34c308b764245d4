"""The gate's promises to tokens that share a lane: fair turns, honest limits, deadlines kept.

Each section is in a module of its own; this is the command that runs them.
"""

from __future__ import annotations

import functools

import _expiry
import _features
import _light
import _limits
import _stuck
from _child import run_alone
from _cli import Run, main
from _keys import ENVIRONMENT

SECTIONS: dict[str, Run] = {
    "light": _light.run,
    "limit": _limits.run,
    "priority": _limits.run_priority,
    # Alone: a heap others have stretched would blur it.
    "keys": functools.partial(run_alone, "_keys.py", environment=ENVIRONMENT),
    "expiry": _expiry.run,
    "features": _features.run,
    "stuck": _stuck.run,
}

if __name__ == "__main__":
    raise SystemExit(main(SECTIONS))
