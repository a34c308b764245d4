"""What the interpreter lane runs, and its peer; from Python 3.14 on."""

from __future__ import annotations

from _lane_work import echo, noop
from _work import burn
from tokengate import task_token_guard

interpreter_noop = task_token_guard("bench.interpreter.noop", lane="interpreter")(noop)
interpreter_burn = task_token_guard("bench.interpreter.burn", lane="interpreter")(burn)
interpreter_echo = task_token_guard("bench.interpreter.echo", lane="interpreter")(echo)
