"""configure_default before the first use, after it, and after a stop."""

import threading

import tokengate


@tokengate.task_token_guard
def name_here() -> str:
    return threading.current_thread().name


def refused() -> "RuntimeError | None":
    try:
        tokengate.configure_default(thread_workers=7)
    except RuntimeError as error:
        return error
    return None


default = tokengate.get_coordinator()
assert tokengate.configure_default(thread_workers=3, name="first") is default
assert tokengate.configure_default(thread_workers=5, name="second") is default
for wrong in ({"thread_workers": 0}, {"name": ""}, {"pin": "no"}, {"stop_timeout": -1}):
    try:
        tokengate.configure_default(**{"thread_workers": 9, "name": "wrong", **wrong})
    except ValueError as error:
        assert f"{next(iter(wrong))}={next(iter(wrong.values()))!r}" in str(error), error
    else:
        raise AssertionError(wrong)
try:
    tokengate.configure_default(threads=3)
except TypeError as error:
    assert "threads" in str(error)
else:
    raise AssertionError("an unknown setting was taken")
assert default.stats().lanes["thread"].max_workers == 5
assert name_here().result(20).startswith("second-")

error = refused()
assert error is not None
assert "in use" in str(error), error
assert default.stats().lanes["thread"].max_workers == 5

default.stop()
assert refused() is None
assert isinstance(name_here().exception(20), tokengate.CoordinatorStopped)
default.start()
assert name_here().result(20).startswith("tokengate-")
assert default.stats().lanes["thread"].max_workers == 7
print("configured")
