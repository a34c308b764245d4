"""For the tests of code that uses TokenGate: `inline` and the fixture `fresh_coordinator`.

Importing this needs no pytest; asking for the fixture does.
"""

from tokengate.testing.inline import inline

__all__ = ["inline"]
