import pytest

from tokengate.wave.mix import ReferenceTask, TaskMix, pick

DOUBLE = ReferenceTask("double", lambda n: f"token of {n}", lambda n: 2 * n, lambda i: (i + 100,))
JOIN = ReferenceTask("join", lambda a, b: f"token of {a},{b}", lambda a, b: a + b, lambda i: (i, i))


def test_tasks_take_turns_with_the_arguments_of_the_index() -> None:
    mix = TaskMix([DOUBLE, JOIN])
    assert [mix.submit(i) for i in range(4)] == [
        "token of 100",
        "token of 1,1",
        "token of 102",
        "token of 3,3",
    ]
    assert [mix.call_plain(i) for i in range(4)] == [200, 2, 204, 6]
    assert mix.call(3) == (JOIN, (3, 3))


def test_picking_by_name_keeps_the_order_given() -> None:
    assert pick([DOUBLE, JOIN], ["join", "double", "join"]).names == ("join", "double", "join")


def test_an_unknown_task_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="unknown task 'triple'; there are double, join"):
        pick([DOUBLE, JOIN], ["join", "triple"])


def test_an_empty_mix_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        pick([DOUBLE], [])
