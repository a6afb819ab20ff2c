"""The command that shows where the device's time of a model's call goes."""

import pytest

from benchmarks.measure import device, parts
from benchmarks.measure.parts import Span, anatomy, table


def test_parts_are_means_of_a_call_and_the_longest_comes_first() -> None:
    first = [Span("norm", 0, 1), Span("product", 1, 4), Span("norm", 5, 6)]
    second = [Span("norm", 100, 102), Span("product", 102, 104)]
    found = anatomy([first, second])
    assert [part.name for part in found.parts] == ["product", "norm"]
    assert [part.taken for part in found.parts] == [2.5, 2.0]
    assert [part.times for part in found.parts] == [1.0, 1.5]
    assert found.span == 5.0


def test_kernels_that_overlap_are_busy_once() -> None:
    found = anatomy([[Span("a", 0, 10), Span("b", 4, 12), Span("c", 5, 6), Span("d", 20, 21)]])
    assert found.busy == 13.0
    assert found.span == 21.0
    assert sum(part.taken for part in found.parts) == 20.0


def test_nothing_on_the_device_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing ran on the device"):
        anatomy([[], []])


def test_the_table_adds_up_and_hostile_names_stay_on_their_line() -> None:
    call = [Span(f"kernel {n}", 10 * n, 10 * n + n + 1) for n in range(5)]
    call.append(Span("a\n\x1b[2J" + 200 * "b", 100, 150))
    title, *lines = table("bert kernl", anatomy([call]), rows=3)
    assert title == "bert kernl, µs of one call"
    assert all(line.isprintable() and len(line) < 110 for line in lines)
    taken = [float(line.split()[0]) for line in lines]
    assert taken == [50.0, 5.0, 4.0, 6.0, 65.0, 65.0]
    assert "3 others" in lines[3]
    assert lines[5].endswith("busy; 150.00 from the first to the last")


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "gpu", lambda: None)
    for asked, said in {
        "bert": "no NVIDIA GPU on this machine",
        "nobody": "no model 'nobody'; allowed: all, bert_base",
    }.items():
        with pytest.raises(SystemExit) as left:
            parts.main([asked])
        assert left.value.code == 2
        assert said in capsys.readouterr().err


@pytest.mark.gpu
def test_a_call_by_graph_is_seen_kernel_by_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    parts.main(["distilbert", "--match", "batch1_*", "--implementations", "cudagraph,kernl"])
    shown = capsys.readouterr().out
    assert "distilbert batch1_" in shown
    assert "_kernel" in shown
    assert "Error" not in shown
