"""A worker that is called again and again looks for the next call for a moment before it sleeps."""

import asyncio
import socket
import time

import lane_functions as work
import psutil
import pytest

from tokengate.lanes import child


@pytest.fixture
def ends():
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def server(sock):
    made = child.Server(sock, None, None, None, {}, 2)
    made.lingers = True
    return made


def test_what_has_come_is_taken_at_once(ends):
    near, far = ends
    pipe, waiting = child.Pipe(far, None), server(far)
    near.sendall(b"frame")
    waiting.told = time.monotonic_ns()
    waiting.linger(pipe)
    assert (pipe.rest, waiting.shy) == (b"frame", 0)


def test_a_look_in_vain_ends_and_is_not_repeated_soon(ends):
    _, far = ends
    pipe, waiting = child.Pipe(far, None), server(far)
    waiting.told = begun = time.monotonic_ns()
    waiting.linger(pipe)
    assert time.monotonic_ns() - begun >= child.LINGER_NS
    assert (pipe.rest, waiting.shy) == (b"", child.IN_VAIN)


def test_the_end_of_the_pipe_is_left_to_the_next_read(ends):
    near, far = ends
    near.close()
    pipe, waiting = child.Pipe(far, None), server(far)
    waiting.told = time.monotonic_ns()
    waiting.linger(pipe)
    with pytest.raises(child.Gone):
        pipe.read(1)


@pytest.mark.parametrize("quota", [1, 2])
@pytest.mark.parametrize("cpus", [1, 2])
def test_not_where_there_is_one_cpu(ends, monkeypatch, cpus, quota):
    monkeypatch.setattr(child, "usable_cpus", lambda: cpus)
    assert child.Server(ends[1], None, None, None, {}, quota).lingers is (cpus == quota == 2)


async def test_an_idle_worker_sleeps(lanes):
    for i in range(300):
        assert await work.add(i, 1) == i + 1
    workers = [psutil.Process(await work.pid()) for _ in range(3)]
    await asyncio.sleep(0.05)
    before = [sum(each.cpu_times()[:2]) for each in workers]
    await asyncio.sleep(0.5)
    assert sum(sum(each.cpu_times()[:2]) for each in workers) - sum(before) < 0.1
