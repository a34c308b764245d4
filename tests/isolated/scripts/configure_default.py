"""configure_default before the first use, after it, and after a stop."""

import threading
from typing import Any

import tokengate

configure: Any = tokengate.configure_default


@tokengate.task_token_guard
def name_here() -> str:
    return threading.current_thread().name


def refusal(**settings: Any) -> "Exception | None":
    try:
        configure(**settings)
    except Exception as error:
        return error
    return None


default = tokengate.get_coordinator()
assert configure(thread_workers=3, name="first") is default
assert configure(thread_workers=5, name="second", stop_timeout=7) is default
wrong: "list[dict[str, Any]]" = [
    {"thread_workers": 0},
    {"name": ""},
    {"pin": "no"},
    {"stop_timeout": -1},
]
for each in wrong:
    error = refusal(**{"thread_workers": 9, "name": "wrong", "stop_timeout": 9, **each})
    [(name, value)] = each.items()
    assert isinstance(error, ValueError), error
    assert f"{name}={value!r}" in str(error), error
assert isinstance(refusal(threads=3), TypeError)
# what was refused has changed nothing
assert default.stats().lanes["thread"].max_workers == 5
assert default.stop_timeout == 7
assert name_here().result(20).startswith("second-")

error = refusal(thread_workers=7)
assert isinstance(error, RuntimeError), error
assert "in use" in str(error), error
assert default.stats().lanes["thread"].max_workers == 5

default.stop()
assert refusal(thread_workers=7) is None
assert isinstance(name_here().exception(20), tokengate.CoordinatorStopped)
default.start()
assert name_here().result(20).startswith("tokengate-")
assert default.stats().lanes["thread"].max_workers == 7
print("configured")
