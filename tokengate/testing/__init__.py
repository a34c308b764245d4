"""For the tests of code that uses TokenGate: `inline` and the pytest fixture `fresh_coordinator`.

Importing this needs no pytest; the fixture does, and comes when it is asked for: by ``from
tokengate.testing import fresh_coordinator`` in a conftest.py, or by ``pytest_plugins =
["tokengate.testing"]`` there.
"""

from typing import TYPE_CHECKING

from tokengate.testing.inline import inline

__all__ = ["fresh_coordinator", "inline"]

if TYPE_CHECKING:
    from tokengate.testing.fixture import fresh_coordinator
else:

    def __getattr__(name: str) -> object:
        if name != "fresh_coordinator":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            from tokengate.testing.fixture import fresh_coordinator
        except ModuleNotFoundError as error:
            if error.name != "pytest":
                raise
            raise ImportError(
                "tokengate.testing.fresh_coordinator is a pytest fixture, and pytest is not "
                "installed here: pip install pytest"
            ) from error
        return fresh_coordinator

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})  # where pytest looks for a plugin's fixtures
