"""Where this cannot work, and says so: in sub-interpreters, and on threads that are none.

The compiled core keeps to one interpreter of a process. Without the check at the end of this
module, which comes before anything of the core is touched, the first interpreter to import it would
lock out all others, the main one included.
"""

import sys
from typing import Any


def refuse_greenlets() -> None:
    """Before a thread is started: RuntimeError where gevent has put greenlets in its place.

    A worker that waits would stop the one thread that all of them share.
    """
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        raise RuntimeError(
            "gevent has patched threading (monkey.patch_all()), so workers would be greenlets, and "
            "the first that waits would stop the program: leave threads out of the patching "
            "(patch_all(thread=False)), or run TokenGate in a process without gevent"
        )


def _is_main() -> bool:
    try:
        from _thread import _is_main_interpreter  # type: ignore[attr-defined]  # Python 3.13
    except ImportError:
        pass
    else:
        return bool(_is_main_interpreter())
    try:
        import _xxsubinterpreters as interpreters  # type: ignore[import-not-found]
    except ImportError:
        return True  # built without sub-interpreters
    return bool(interpreters.get_current() == interpreters.get_main())


if not _is_main():
    raise ImportError(
        "tokengate runs in the main interpreter of a process only: import it there, and call "
        "functions of sub-interpreters through their own pools"
    )
