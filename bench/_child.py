"""Running a section in a process of its own, for figures that a shared process would blur."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from _figures import Section
from _harness import Options


def run_alone(
    script: str, options: Options, *, environment: Mapping[str, str] | None = None
) -> Section:
    """The only section of `script` of this folder, run with `options` by the same interpreter.

    environment: variables that the child has besides. Raises RuntimeError if the child fails; why
    is on its stderr, which is ours.
    """
    with tempfile.TemporaryDirectory(prefix="tokengate-bench-") as folder:
        path = Path(folder) / "section.json"
        command = [sys.executable, str(Path(__file__).with_name(script)), "--json", str(path)]
        command += ["--rounds", str(options.rounds), "--seed", str(options.seed)]
        command += ["--quick"] * options.quick + ["--no-collector"] * (not options.collector)
        done = subprocess.run(  # noqa: S603
            command,
            check=False,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        if done.returncode:
            raise RuntimeError(f"{script} ended with {done.returncode}")
        (section,) = json.loads(path.read_text(encoding="utf-8"))["sections"]
    return Section.from_dict(section)
