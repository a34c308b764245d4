"""``python -m tokengate doctor``: options, output, exit status."""

from __future__ import annotations

import argparse
import json
import sys

from tokengate.doctor.examine import examine
from tokengate.doctor.report import lines

__all__ = ["add_command"]

EXIT_WRONG = 1


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``doctor`` to the command line."""
    parser = commands.add_parser(
        "doctor",
        help="what works here and what does not, and why: lanes, CPUs, GIL, versions",
        description=(
            "Looks at this machine and this Python as TokenGate sees them. Changes nothing. Exit "
            "status: 0, everything works (there may be warnings); 1, something does not, or with "
            "--strict there are warnings; 2, wrong options."
        ),
    )
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 where there are warnings, too"
    )
    parser.add_argument(
        "--import",
        action="append",
        default=[],
        metavar="MODULE",
        dest="modules",
        help="import this first, as your application does, and tell what it changes: whether it "
        "switches the GIL on, say (may be given several times)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine and print; the exit status."""
    found = examine(arguments.modules)
    as_json: bool = arguments.json
    text = json.dumps(found.as_dict(), indent=2) if as_json else "\n".join(lines(found))
    sys.stdout.write(f"{text}\n")
    wrong = bool(found.findings) if arguments.strict else not found.healthy
    return EXIT_WRONG if wrong else 0
