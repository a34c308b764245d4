"""What the types cost and allow at run time."""

from __future__ import annotations

from typing import Any, get_args, get_origin, get_type_hints

import pytest

from tokengate import Coordinator, GuardedFunction, Token


def annotated(token: Token[int], guarded: GuardedFunction[[int], str]) -> None:
    """Carries annotations for frameworks to evaluate."""


def test_annotations_can_be_evaluated() -> None:
    hints = get_type_hints(annotated)
    assert get_origin(hints["token"]) is Token
    assert get_args(hints["token"]) == (int,)
    assert get_origin(hints["guarded"]) is GuardedFunction


def test_a_token_takes_no_attributes(coordinator: Coordinator) -> None:
    token: Any = coordinator.submit(int)
    assert token.result(20) == 0
    with pytest.raises(AttributeError):
        token.note = "kept where?"
    assert not hasattr(token, "__dict__")
