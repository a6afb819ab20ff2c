"""Who has a device alone has it alone, and nobody waits for ever."""

import random
import threading
import time

import pytest

from benchmarks.measure.turns import Turn, Turns


class Device:
    """Counts who uses it how, and what must not be."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.together = self.alone = self.most = 0
        self.broken: list[str] = []

    def use(self, *, alone: bool) -> None:
        with self.lock:
            self.together += not alone
            self.alone += alone
            self.most = max(self.most, self.together)
            if self.alone and self.together + self.alone > 1:
                self.broken.append(f"{self.alone} alone, {self.together} together")
        time.sleep(random.random() * 2e-3)
        with self.lock:
            self.together -= not alone
            self.alone -= alone


def worker(turns: Turns, device: Device, cases: int, seed: int) -> None:
    chance = random.Random(seed)
    turn: Turn = turns.turn()
    for _ in range(cases):
        device.use(alone=False)
        for _ in range(chance.randrange(3)):
            turn.take("timing")
            device.use(alone=True)
            if chance.random() < 0.2:
                turn.drop()  # the process is gone; the next one asks before it uses the device
                turn.take("ceilings")
                device.use(alone=True)
            turn.give_back()
            device.use(alone=False)
    turns.leave()


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_one_is_alone_or_many_are_together(workers: int) -> None:
    turns, device = Turns(workers), Device()
    threads = [
        threading.Thread(target=worker, args=(turns, device, 5 + number, number), daemon=True)
        for number in range(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert device.broken == []
    assert device.most >= min(workers, 2)


def test_turns_come_in_the_order_of_asking_and_all_wait_for_the_last() -> None:
    turns = Turns(3)
    said: list[str] = []

    def run(name: str, before: float) -> None:
        turn = turns.turn()
        time.sleep(before)
        turn.take(name)
        said.append(f"{name} alone")
        turn.give_back()
        said.append("together")
        turns.leave()

    threads = [
        threading.Thread(target=run, args=(name, before), daemon=True)
        for name, before in (("second", 0.1), ("first", 0.0), ("third", 0.2))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert 0.2 < turns.waited_s < 10.0
    assert said == ["first alone", "second alone", "third alone", *["together"] * 3]
    assert set(turns.alone_s) == {"first", "second", "third"}


def test_who_leaves_keeps_nobody_waiting() -> None:
    turns = Turns(2)
    turn = turns.turn()
    asked = threading.Thread(target=turn.take, args=("timing",), daemon=True)
    asked.start()
    asked.join(timeout=0.1)
    assert asked.is_alive()  # the other one may be using the device
    turns.leave()
    asked.join(timeout=10)
    assert not asked.is_alive()
