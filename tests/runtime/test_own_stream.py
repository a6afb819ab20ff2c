"""Who captures on which stream; no GPU is asked."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kernl.runtime import graph_node, own_stream


class Stream:
    def __init__(self, index: int) -> None:
        self.index = index


def test_a_stream_is_lent_to_one_at_a_time_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_stream, "_free", {})
    monkeypatch.setattr(own_stream, "OwnStream", Stream)
    first, second, elsewhere, again, last = map(Stream, range(5))
    lent: list[Any] = [own_stream.lent(first, 0), own_stream.lent(second, 0)]
    lent.append(own_stream.lent(elsewhere, 1))
    assert [one.index for one in lent] == [0, 0, 1]
    del first, elsewhere
    assert own_stream.lent(again, 0) is lent[0]
    lent.append(own_stream.lent(last, 0))
    assert len(set(lent)) == 4


def test_a_driver_that_makes_no_stream_leaves_one_of_pytorchs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device, made = torch.device("cuda", 0), object()
    cuda: dict[str, Any] = {"current_stream": lambda _: None, "Stream": lambda _: made}
    for name, stand_in in cuda.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(graph_node, "_driver", lambda: SimpleNamespace())
    assert own_stream._stream(device) is made
