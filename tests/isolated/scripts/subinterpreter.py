"""Imports the package in two sub-interpreters of one kind, one after the other.

Arguments: "legacy" (shares the GIL) or "isolated" (its own, where the system has that), and whether
the main interpreter imports it "before" or "after". Prints what each import came to.
"""

import importlib
import sys
from typing import Any

interpreters: Any = importlib.import_module(
    "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
)

IMPORT = """
try:
    import tokengate
except ImportError as error:
    print("refused" if "interpreter" in str(error) else repr(error), flush=True)
else:
    assert tokengate.task_token_guard(len)([1]).result(20) == 1
    tokengate.get_coordinator().stop()
    print("works", flush=True)
"""


def create(kind: str) -> Any:
    if hasattr(interpreters, "new_config"):
        return interpreters.create(kind)
    return interpreters.create(isolated=kind == "isolated")


def run(interpreter: Any) -> None:
    run_text = getattr(interpreters, "exec", None) or interpreters.run_string
    failure = run_text(interpreter, IMPORT)
    assert failure is None, failure


def use_here() -> None:
    import tokengate

    print("main", tokengate.task_token_guard(len)([1, 2]).result(20), flush=True)


kind, order = sys.argv[1:]
if order == "before":
    use_here()
for _ in range(2):
    interpreter = create(kind)
    run(interpreter)
    interpreters.destroy(interpreter)
use_here()
