"""The command line every section and `peers.py` share."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import _report
from _figures import Section
from _harness import FULL_ROUNDS, QUICK_ROUNDS, Missing, Options

Run = Callable[[Options], Section]


def main(sections: Mapping[str, Run], arguments: list[str] | None = None) -> int:
    """Run the chosen sections, print each as it is done, write the JSON; the exit status.

    0 when every section ran or was skipped, whatever its figures; 1 when one broke off, by a
    wrong result for instance, which the others don't suffer from; 130 after Ctrl-C, which keeps
    what was measured.
    """
    chosen, path, options = parse(sections, arguments)
    say(_report.heading(options) + "\n")
    done: list[Section] = []
    status = 0
    for name in chosen:
        try:
            section = sections[name](options)
        except Missing as missing:
            section = Section(name, "", skipped=[str(missing)])
        except KeyboardInterrupt:
            say(f"interrupted in {name!r}; what was measured before it is kept")
            status = 130
            break
        except Exception:
            traceback.print_exc()
            section = Section(name, "", skipped=["it broke off with an error, shown on stderr"])
            status = 1
        done.append(section)
        say(_report.render(section))
    if path is not None:
        _report.write_json(path, options, done)
    return status


def say(text: str) -> None:
    """One piece of the report, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def parse(
    sections: Mapping[str, Run], arguments: list[str] | None
) -> tuple[list[str], Path | None, Options]:
    """The sections to run, the JSON file to write, and the options, from the command line."""
    parser = argparse.ArgumentParser(
        description="Figures of TokenGate next to its peers, measured in one run.",
        epilog="sections: " + ", ".join(sections),
    )
    parser.add_argument("--only", metavar="A,B", help="these sections only, by name")
    parser.add_argument("--rounds", type=positive, help=f"rounds (default {FULL_ROUNDS})")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"smaller counts and {QUICK_ROUNDS} rounds: a look, not for quoting",
    )
    parser.add_argument("--burst", type=positive, help="calls in a burst of TokenGate's")
    parser.add_argument("--peer-burst", type=positive, help="calls in a burst of a peer's")
    parser.add_argument("--no-collector", action="store_true", help="garbage collector off for all")
    parser.add_argument("--seed", type=int, default=1, help="of the random order of trials")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as JSON")
    given = parser.parse_args(arguments)

    chosen = given.only.split(",") if given.only else list(sections)
    unknown = [name for name in chosen if name not in sections]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(sections)}")
    options = Options(
        rounds=given.rounds or (QUICK_ROUNDS if given.quick else FULL_ROUNDS),
        quick=given.quick,
        collector=not given.no_collector,
        seed=given.seed,
        burst=given.burst or 65_536,
        peer_burst=given.peer_burst or (2_048 if given.quick else 8_192),
    )
    return chosen, given.json, options


def positive(text: str) -> int:
    """A whole number of at least one, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a whole number of at least 1")
    return value
