"""Which call is token i of a wave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

TokenT = TypeVar("TokenT")
Arguments = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ReferenceTask(Generic[TokenT]):
    """One kind of work in a wave: how to submit it, how to call it plainly, with what."""

    name: str
    submit: Callable[..., TokenT]
    """The guarded function: a call returns a token at once."""
    plain: Callable[..., object]
    """The function beneath it: a call computes the result here and now."""
    arguments: Callable[[int], Arguments]
    """The positional arguments of token i; they must be hashable."""


class TaskMix(Generic[TokenT]):
    """Tasks taken in turn: token i of a wave is task ``i % len(tasks)`` with its arguments for i.

    The same i is the same call in every wave, so waves differ in size alone.
    """

    def __init__(self, tasks: Sequence[ReferenceTask[TokenT]]) -> None:
        """Raises ValueError if there are no tasks."""
        if not tasks:
            raise ValueError("a task mix needs at least one task")
        self.tasks: tuple[ReferenceTask[TokenT], ...] = tuple(tasks)

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks' names in the order of their turns."""
        return tuple(task.name for task in self.tasks)

    def call(self, index: int) -> tuple[ReferenceTask[TokenT], Arguments]:
        """The task and the arguments of token `index`."""
        task = self.tasks[index % len(self.tasks)]
        return task, task.arguments(index)

    def submit(self, index: int) -> TokenT:
        """Create token `index`. Does not block."""
        task = self.tasks[index % len(self.tasks)]
        return task.submit(*task.arguments(index))

    def call_plain(self, index: int) -> object:
        """Compute the result of token `index` here and now, without a token."""
        task = self.tasks[index % len(self.tasks)]
        return task.plain(*task.arguments(index))


def pick(tasks: Iterable[ReferenceTask[TokenT]], names: Sequence[str]) -> TaskMix[TokenT]:
    """A mix of the tasks called `names`, in that order; a name may come more than once.

    Raises ValueError for a name that no task has, naming those there are.
    """
    by_name = {task.name: task for task in tasks}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ValueError(f"unknown task {unknown[0]!r}; there are {', '.join(by_name)}")
    return TaskMix([by_name[name] for name in names])
