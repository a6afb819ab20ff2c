"""Calls and tracing of several threads."""

import threading
import time
from collections.abc import Callable

from kernl.optimize.traffic import Traffic


def run(*functions: Callable[[], None]) -> None:
    threads = [threading.Thread(target=one) for one in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_calls_run_together_and_a_trace_alone() -> None:
    traffic, inside, seen = Traffic(), set[str](), list[tuple[str, frozenset[str]]]()
    together = threading.Barrier(2)

    def call(name: str) -> None:
        with traffic.calling():
            inside.add(name)
            together.wait(5)
            time.sleep(0.05)
            seen.append((name, frozenset(inside)))
            inside.discard(name)

    def trace() -> None:
        together_started.wait(5)
        with traffic.tracing() as free:
            assert free
            seen.append(("trace", frozenset(inside)))

    together_started = threading.Event()

    def first() -> None:
        together_started.set()
        call("first")

    run(first, lambda: call("second"), trace)
    found = dict(seen)
    assert found["trace"] == frozenset()
    assert {"first", "second"} in [set(names) for names in found.values()]


def test_a_trace_gives_up_where_a_call_does_not_end() -> None:
    traffic, started, end = Traffic(), threading.Event(), threading.Event()

    def call() -> None:
        with traffic.calling():
            started.set()
            end.wait(5)

    def trace() -> None:
        started.wait(5)
        with traffic.tracing(0.05) as free:
            assert not free
        end.set()

    run(call, trace)
    with traffic.tracing(0.05) as free:
        assert free


def test_a_call_waits_for_a_trace() -> None:
    traffic, tracing, order = Traffic(), threading.Event(), list[str]()

    def trace() -> None:
        with traffic.tracing():
            tracing.set()
            time.sleep(0.05)
            order.append("trace")

    def call() -> None:
        tracing.wait(5)
        with traffic.calling():
            order.append("call")

    run(trace, call)
    assert order == ["trace", "call"]


def test_one_thread_may_do_both() -> None:
    traffic = Traffic()
    with traffic.calling(), traffic.tracing(0.05) as free, traffic.calling():
        assert free
    with traffic.tracing(0.05) as outer, traffic.tracing(0.05) as inner:
        assert outer
        assert inner
