"""The command line: ``python -m tokengate <command>``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

from .doctor.command import add_command as add_doctor
from .sweep.command import add_command as add_sweep
from .wave.command import add_command as add_wave

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

# One entry per command. Each adds a subparser and sets its default `run`, a function from the
# parsed arguments to the exit status.
COMMANDS: tuple[Callable[[Commands], None], ...] = (add_wave, add_sweep, add_doctor)


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="tokengate", description="Tools that come with TokenGate."
    )
    commands = parser.add_subparsers(title="commands", metavar="command", required=True)
    for add_command in COMMANDS:
        add_command(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` default to those of the process. Returns the exit status."""
    parsed = build_parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = parsed.run
    try:
        return run(parsed)
    except BrokenPipeError:
        # The reader has gone (`| head`). The interpreter would flush stdout once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
