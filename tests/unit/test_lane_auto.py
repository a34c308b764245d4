"""The law of `lane="auto"`: from measurements to a lane and a reason."""

from __future__ import annotations

import functools
import math
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tokengate.lanes import auto
from tokengate.lanes.auto import Measured, Service, foresee, is_worse, obstacle
from tokengate.wave import tasks

BURN = Measured(
    gil=True, cpus=2, samples=30, looks=100, run=1e-3, held=1e-3, cpu=1e-3, asleep=0.0, crowd=50.0
)


def law(**changes):
    return foresee(replace(BURN, **changes))


@pytest.mark.parametrize(
    ("changes", "least", "most", "why"),
    [
        ({}, 1.9, 2.1, "holds the GIL for 1 ms of 1 ms"),
        ({"cpus": 8}, 7.0, 8.1, "about 7.9 times"),
        ({"run": 1e-4, "held": 1e-4, "cpu": 1e-4}, 1.6, 1.9, "100 us"),
        ({"run": 3e-3}, 1.9, 2.1, "1 ms of 3 ms"),  # others held the GIL meanwhile
        ({"gil": False}, 0, 0, "no GIL"),
        ({"cpus": 1}, 0, 0, "one CPU"),
        ({"samples": 5}, 0, 0, "too few"),
        ({"looks": 5}, 0, 0, "too few"),
        ({"crowd": 1.0}, 0, 1, "one at a time"),
        ({"run": 3e-6, "held": 3e-6, "cpu": 3e-6}, 0, 1, "sending one costs about 12 us"),
        ({"asleep": 9e-3, "run": 1e-2, "held": 5e-4, "cpu": 5e-4}, 0, 0.5, "mostly waits"),
        ({"asleep": 2e-3, "run": 3e-3}, 0, 0.7, "mostly waits"),  # 1 ms of Python after 2 ms of it
        ({"held": 1e-5}, 0.9, 1.01, "computes 1 ms: threads run that in parallel"),
        ({"payload": 10_000_000, "pickling": 2e-3}, 0, 0.5, "sending one costs about 9.01 ms"),
        ({"payload": 1_000, "pickling": 5e-6}, 1.8, 2.0, "times as much"),
        ({"payload": 100, "pickling": 9e-4}, 0, 1.0, "sending one costs"),
    ],
)
def test_the_law(changes, least, most, why):
    found = law(**changes)
    assert least <= found.gain <= most
    assert why in found.why


def test_it_gains_or_says_why_not():
    for held in (1e-6, 1e-5, 1e-4, 1e-2):
        for asleep in (0.0, 1e-4, 1e-2):
            for crowd in (1.0, 2.0, 100.0):
                found = law(
                    run=held + asleep, held=held, cpu=held, asleep=asleep, crowd=crowd, cpus=4
                )
                assert found.why
                assert math.isfinite(found.gain)
                assert (found.gain >= auto.MARGIN) == ("times as much" in found.why)


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ((1000, 0.1), (500, 0.2), True),
        ((1000, 0.1), (500, 0.05), False),  # fewer calls came
        ((1000, 0.1), (1000, 0.5), False),  # more came
        ((1000, 0.1), (900, 0.12), False),  # noise
        ((1000, 0.1), (2000, 0.05), False),
    ],
)
def test_what_counts_as_worse(before, after, worse):
    assert is_worse(Service(*before), Service(*after)) is worse


# -- what may travel -----------------------------------------------------------------------------

counter = 0


def pure(x):
    return x + counter


def writes():
    global counter
    counter += 1


class Thing:
    def method(self):
        return self

    @classmethod
    def made(cls):
        return cls

    @staticmethod
    def free():
        return 1

    def __call__(self):
        return 2


def closure():
    secret = []
    return lambda: secret


def nested():
    def inner():
        return 1

    return inner


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (pure, None),
        (Thing.made, None),
        (Thing.free, None),
        (math.factorial, None),
        (writes, "changes the global counter"),
        (closure(), "closes over secret"),
        (nested(), "not at the top of a module"),
        (lambda: 1, "not at the top of a module"),
        (Thing().method, "bound to an object"),
        (Thing(), "state of its own"),
        ([].append, "state of its own"),
        (functools.partial(pure, 1), "partial"),
    ],
)
def test_what_stays(fn, why):
    found = obstacle(fn)
    assert found == why if why is None else why in found


def test_a_guarded_function_is_found_below_its_guard():
    assert obstacle(tasks.cpu_crunch.__wrapped__) is None


# -- one operation -------------------------------------------------------------------------------


class Seat:
    """As the core's, with results that are pickled at once."""

    def __init__(self):
        self.name, self.lane, self.reason, self.notes = "op", "thread", "", None
        self.curious, self.strict = False, False
        self.size, self.pickling, self.unfit, self.refused = -1, 0.0, None, None
        self.asked = []

    def ask(self, args, kwargs):
        self.asked.append(args)
        if args and args[0] is threading:
            raise TypeError("cannot pickle 'module' object")
        self.size, self.pickling = 100, 1e-6

    def go(self, lane):
        self.lane = lane
        self.refused = None


@pytest.fixture
def bench(monkeypatch):
    """A seat, what is measured, and a clock that moves by hand."""
    rig = SimpleNamespace(seat=Seat(), m=BURN, now=100.0, ended=0, stay=0.0, there=0, quiet=True)
    monkeypatch.setattr(auto, "_unavailable", lambda: None)
    monkeypatch.setattr(auto, "measure", lambda core, name: rig.m)
    monkeypatch.setattr(auto, "monotonic", lambda: rig.now)
    monkeypatch.setattr(
        auto,
        "_ended",
        lambda core, name, lane=None: (rig.there if lane else rig.ended, rig.stay),
    )
    core = SimpleNamespace(
        _lane_core=lambda lane: SimpleNamespace(_is_quiet=lambda name: rig.quiet)
    )

    def call(args=(), rate=1000, stay=0.01, fn=pure, seconds=0.5):
        auto.review(core, rig.seat, fn, args, None)
        rig.now += seconds
        done = int(rate * seconds)
        rig.ended += done
        rig.stay += done * stay
        if rig.seat.lane == "process":
            rig.there += done
        return rig.seat.lane

    rig.call = call
    return rig


def moved(bench):
    for _ in range(10):
        if bench.call() == "process":
            return
    raise AssertionError(f"it stayed: {bench.seat.reason}")


def test_it_moves_after_it_has_seen_what_calls_weigh(bench):
    moved(bench)
    assert len(bench.seat.asked) == auto.TASTES
    assert "times as much" in bench.seat.reason


def test_it_stays_while_nothing_is_gained(bench):
    bench.m = replace(BURN, asleep=0.1)
    for _ in range(10):
        assert bench.call() == "thread"
    assert bench.seat.asked == []  # nothing is pickled for nothing
    assert "mostly waits" in bench.seat.reason


def test_closures_stay_for_good(bench):
    for _ in range(10):
        assert bench.call(fn=closure()) == "thread"
    assert "closes over" in bench.seat.reason


def test_arguments_that_cannot_be_pickled(bench):
    for _ in range(5):
        assert bench.call(args=(threading,)) == "thread"
    assert "arguments cannot be pickled" in bench.seat.reason
    assert len(bench.seat.asked) == 1


def test_results_that_cannot_be_pickled(bench):
    bench.call()
    bench.seat.unfit = "lock: cannot pickle '_thread.lock' object"
    for _ in range(5):
        assert bench.call() == "thread"
    assert "results cannot be pickled" in bench.seat.reason


def test_heavy_calls_are_pickled_seldom(bench, monkeypatch):
    def slow(args, kwargs):
        bench.seat.asked.append(args)
        bench.seat.size, bench.seat.pickling = 1 << 20, 0.1

    bench.seat.ask = slow
    bench.m = replace(BURN, held=1.0, run=1.0, cpu=1.0)
    for _ in range(10):
        bench.call()
    assert len(bench.seat.asked) == 1


def test_what_has_a_limit_stays(bench):
    bench.seat.strict = True
    for _ in range(10):
        assert bench.call() == "thread"
    assert "limit" in bench.seat.reason


def test_it_comes_back_when_it_got_worse_and_tries_again_later(bench):
    moved(bench)
    for _ in range(10):
        if bench.call(rate=300, stay=0.05) == "thread":
            break
    assert bench.seat.lane == "thread"
    assert "came back: 300 tokens a second there, 1000 on threads" in bench.seat.reason
    for _ in range(int(auto.PAUSE)):  # half of the pause
        assert bench.call() == "thread"
    assert "came back" in bench.seat.reason
    bench.now += auto.PAUSE
    moved(bench)
    assert bench.seat.notes.pause == 2 * auto.PAUSE


def test_one_bad_moment_does_not_send_it_back(bench):
    moved(bench)
    bench.call()
    for _ in range(3 * auto.TRIAL):
        bench.call(rate=300, stay=0.05)
        bench.call()
        assert bench.seat.lane == "process"
    assert "1000 on threads before" in bench.seat.reason


def test_a_call_that_could_not_be_sent_brings_it_back_for_good(bench):
    moved(bench)
    bench.seat.refused = "argument 1 cannot be pickled"
    for _ in range(10):
        bench.call()
        assert bench.seat.lane == "thread"
    assert "argument 1 cannot be pickled" in bench.seat.reason


def test_a_limit_set_later_brings_it_back_at_a_quiet_moment(bench):
    moved(bench)
    bench.seat.strict, bench.quiet = True, False
    assert bench.call() == "process"
    bench.quiet = True
    assert bench.call() == "thread"
    assert "limit" in bench.seat.reason
