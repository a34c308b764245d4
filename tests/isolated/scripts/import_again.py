"""Forgets the package and imports it again: works, or is refused with an ImportError."""

import sys

import tokengate

assert tokengate.task_token_guard(len)([1]).result(20) == 1
first = tokengate
for name in [name for name in sys.modules if name.partition(".")[0] == "tokengate"]:
    del sys.modules[name]
try:
    import tokengate
except ImportError:
    print("refused")
else:
    assert tokengate is not first
    assert tokengate.task_token_guard(len)([1]).result(20) == 1
    print("works")
assert first.task_token_guard(len)([1, 2]).result(20) == 2
