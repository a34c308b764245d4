"""The peer on several CPUs: two bare processes that share calls out, without any library."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

WORKERS = 2
BARE = "two bare processes"


@contextlib.contextmanager
def bare_processes(work: Callable[[Connection], None]) -> Iterator[list[Connection]]:
    """Processes that run `work` with a pipe each, until they are sent None; the pipes to them."""
    context = multiprocessing.get_context("forkserver")
    pipes = [context.Pipe() for _ in range(WORKERS)]
    processes = [context.Process(target=work, args=(far,)) for _, far in pipes]
    for process in processes:
        process.start()
    near = [pipe for pipe, _ in pipes]
    try:
        yield near
    finally:
        for pipe in near:
            pipe.send(None)
        for process in processes:
            process.join()


def at_once(pipes: list[Connection], *orders: object) -> float:
    """Seconds until each has carried out its order and answered."""
    start = time.perf_counter()
    for pipe, order in zip(pipes, orders, strict=True):
        pipe.send(order)
    for pipe in pipes:
        pipe.recv()
    return time.perf_counter() - start
