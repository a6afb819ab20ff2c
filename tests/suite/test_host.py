"""The command that times the host's part of a call."""

import pytest

from benchmarks.measure import device, host
from benchmarks.models import TINY_LLAMA


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "gpu", lambda: None)
    with pytest.raises(SystemExit) as left:
        host.main([])
    assert left.value.code == 2
    assert "no NVIDIA GPU on this machine" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        host.main(["gpt9"])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "gpt9" in said
    assert "tiny_llama" in said


def test_the_pieces_add_up_to_what_lies_beyond_the_replay() -> None:
    pieces = {"forward": 20.0, "replay": 6.0, "key": 1.0, "take": 4.0, "outputs": 5.0}
    title, *lines = host.table(pieces)
    numbers = {
        name.strip(): float(taken) for name, taken in (line.rsplit(None, 1) for line in lines)
    }
    assert title.startswith("host, µs a call")
    assert numbers["beyond the replay"] == 14.0
    assert numbers["all else"] == 4.0


@pytest.mark.gpu
def test_every_piece_takes_some_time() -> None:
    found = host.measured(rounds=2)
    assert min(found.values()) > 0
    assert found["forward"] > found["replay"]


@pytest.mark.gpu
def test_what_a_decoder_returns_is_copied_by_the_graph(capsys: pytest.CaptureFixture[str]) -> None:
    """Its values are parts of a wider tensor, one a layer."""
    found = host.measured(rounds=2, of=TINY_LLAMA, cache=True)
    assert found["forward"] > found["replay"]
    assert "PyTorch made" not in capsys.readouterr().err
