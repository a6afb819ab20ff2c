"""What is held ready by this worker, timed in blocks, as whoever asks wants them.

Another worker holds the same case of another commit ready. Blocks of the two take turns, so that
what changes on the machine meanwhile meets both (`benchmarks.measure.paired`).

After the points of what cannot be timed:

    ← {"kind": "prepared", "names": […]}             what can; not sent where nothing can
    → {"kind": "block", "rounds": …, "seed": …, "calm": …}     "calm": wait until the device rests
    ← {"kind": "block", "taken": {name: [seconds, …]}}
    → {"kind": "enough"}

and then a point, without a time, of each that was timed, with the telemetry of all blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.measure import graphs
from benchmarks.measure.laboratory import Laboratory, Stage

Converse = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Sends a message and returns the answer to it."""
Block = Callable[[int, int], Mapping[str, Sequence[float]]]
"""Seconds of each call in so many rounds, whose order a seed draws; by implementation."""


def serve_blocks(
    names: Sequence[str], block: Block, lab: Laboratory, stage: Stage, converse: Converse
) -> None:
    """Take blocks while they are asked for. Nothing of this worker's may be left on the device."""
    stage("block", "")
    lab.telemetry.clear()
    asked = converse({"kind": "prepared", "names": list(names)})
    while asked["kind"] == "block":
        if asked["calm"]:
            _come_to_rest(lab)
        taken = block(asked["rounds"], asked["seed"])
        taken = {name: list(seconds) for name, seconds in taken.items()}
        asked = converse({"kind": "block", "taken": taken})


def _come_to_rest(lab: Laboratory) -> None:
    """Raises RuntimeError where the device does not: what is timed then would be wrong."""
    if lab.device == "cuda" and not graphs.wait_for_calm():
        raise RuntimeError("the device does not come to rest: another process uses it")
