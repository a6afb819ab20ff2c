"""The command that times the host's part of a call."""

import pytest

from benchmarks.measure import device, host


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "gpu", lambda: None)
    with pytest.raises(SystemExit) as left:
        host.main([])
    assert left.value.code == 2
    assert "no NVIDIA GPU on this machine" in capsys.readouterr().err


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
