"""The same tokens from plain synchronous code: no event loop, no `await`.

Usage: python demo/synchronous.py [directory, default: Python's own library]
"""

import os
import sys
from pathlib import Path

from tokengate import Coordinator, task_token_guard


@task_token_guard(operation_type="count_lines")
def count_lines(path: Path) -> int:
    """An ordinary blocking function."""
    with path.open("rb") as file:
        return sum(1 for _ in file)


def main(directory: Path) -> None:
    """Count the lines of all Python files in `directory`."""
    paths = sorted(directory.glob("*.py"))

    # A call returns a token at once; result() waits for it, as with concurrent.futures.
    token = count_lines(paths[0])
    print(f"{paths[0].name}: {token.result(timeout=30)} lines, ran {token.run_time * 1e3:.2f} ms")

    # Off the loop, .map is a plain iterator: results come in the order of the items.
    lines = dict(zip(paths, count_lines.map(paths), strict=True))
    longest = max(lines, key=lines.__getitem__)
    print(f"{len(lines)} files, {sum(lines.values()):,} lines; the longest is {longest.name}")

    # An exception is raised where the result is asked for.
    try:
        count_lines(directory / "no such file").result()
    except FileNotFoundError as error:
        print(f"as expected: {type(error).__name__}")

    # Own workers, gone at the end of the block; submit() takes undecorated functions too.
    with Coordinator(thread_workers=2) as coordinator:
        sizes = [coordinator.submit(os.path.getsize, path) for path in paths]
        print(f"{sum(size.result() for size in sizes):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(os.__file__).parent)
