"""Refuses to be imported in a sub-interpreter, cleanly and before anything of the core is touched.

The compiled core keeps to one interpreter of a process. Without this check the first interpreter
to import it would lock out all others, the main one included.
"""


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
