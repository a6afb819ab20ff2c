"""The command: atomic, deterministic, end to end over asv's own result files."""

import json
import math
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from dashboards import build, pages
from dashboards.data.source import Source
from tests.dashboards import synthetic


def small(commits: int = 2) -> Source:
    return Source.of(synthetic.store(ops=("softmax",), count=3, commits=commits))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_asv(store: synthetic.Store, results: Path) -> None:
    """Writes rows as asv would, one file a machine and commit."""
    results.mkdir(exist_ok=True)
    for (machine, commit), rows in store.rows.groupby(["machine", "commit"]):
        folder = results / machine
        folder.mkdir(exist_ok=True)
        (folder / "machine.json").write_text(json.dumps({"machine": machine, "version": 1}))
        benchmarks = {}
        for (suite, op, metric), part in rows.groupby(["suite", "op", "metric"]):
            name = "".join(word.capitalize() for word in op.split("_"))
            benchmarks[f"{suite}.{name}.track_{metric}"] = benchmark(part)
        content = {
            "version": 2,
            "commit_hash": commit,
            "env_name": "worktree",
            "date": int(rows["committed_at"].iloc[0].timestamp() * 1000),
            "params": {"machine": machine},
            "python": "3.11",
            "requirements": {},
            "env_vars": {},
            "result_columns": [
                "result", "params", "version", "started_at", "duration",
                "stats_ci_99_a", "stats_ci_99_b",
            ],
            "results": benchmarks,
            "durations": {},
        }  # fmt: skip
        (folder / f"{commit[:8]}-worktree.json").write_text(json.dumps(content))


def benchmark(rows: pd.DataFrame) -> list[object]:
    cases, variants = list(rows["case"].unique()), list(rows["variant"].unique())
    ordered = rows.set_index(["case", "variant"]).reindex(
        pd.MultiIndex.from_product([cases, variants])
    )
    values = [
        None if status == "failed" else value
        for status, value in zip(ordered["status"], ordered["value"], strict=True)
    ]
    params = [[repr(str(name)) for name in names] for names in (cases, variants)]
    ends = [[None if math.isnan(v) else v for v in ordered[end]] for end in ("low", "high")]
    return [values, params, "1", 0, 1.0, *ends]


def test_two_builds_of_the_same_results_are_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    build.build(small(), first)
    build.build(small(), second)
    assert snapshot(first) == snapshot(second)


def test_the_order_of_rows_does_not_change_the_site(tmp_path: Path) -> None:
    store = synthetic.store(ops=("softmax", "linear"), count=4, commits=2)
    mixed = synthetic.Store(
        store.rows.sample(frac=1, random_state=1), store.runs[::-1], store.machines, store.problems
    )
    assert pages.files(Source.of(store)) == pages.files(Source.of(mixed))


def test_a_rebuild_replaces_the_old_site_whole(tmp_path: Path) -> None:
    site = tmp_path / "site"
    build.build(small(), site)
    (site / "op-gone.html").write_text("old")
    build.build(small(), site)
    assert not (site / "op-gone.html").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


@pytest.mark.parametrize("place", ["write_bytes", "rename"])
def test_a_failed_build_leaves_the_old_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    site = tmp_path / "site"
    build.build(small(), site)
    before = snapshot(site)
    real = getattr(Path, place)
    calls = 0

    def fails_on_the_second_call(self: Path, argument: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("no space left on device")
        return real(self, argument)

    monkeypatch.setattr(Path, place, fails_on_the_second_call)
    with pytest.raises(OSError, match="no space left"):
        build.build(small(commits=1), site)
    monkeypatch.undo()
    assert snapshot(site) == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(build.BuildError, match="did not write"):
        build.build(small(), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_file_or_a_link_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(build.BuildError, match="not a folder"):
            build.check_output(tmp_path / name)


@pytest.mark.parametrize("name", ["../out.html", "/etc/out.html", "a/../../out.html"])
def test_a_page_outside_of_the_site_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(build.BuildError, match="outside"):
        build.write([(name, b"x")], tmp_path / "site")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_store_builds_pages_in_plain_words(tmp_path: Path) -> None:
    index = build.build(Source.of(synthetic.empty()), tmp_path / "site").read_text()
    assert "No GPU measurements yet" in index
    assert "No compile-only measurements yet" in index
    assert "No results yet" in (tmp_path / "site" / "machines.html").read_text()


def test_without_a_gpu_the_compiled_part_is_complete() -> None:
    store = synthetic.store(ops=("softmax",), count=3, commits=2, gpu=False)
    files = pages.files(Source.of(store))
    index = files["index.html"].decode()
    assert "No GPU measurements yet" in index
    assert all(name in index for name in synthetic.ARCHITECTURES)
    assert "What changed" in index
    assert "No GPU measurements of this operator yet" in files["op-softmax.html"].decode()
    assert "data/op-softmax.js" in files


def test_pages_show_losses_reasons_and_unread_files() -> None:
    files = pages.files(Source.of(synthetic.store(ops=("linear",), count=60, commits=1)))
    index = files["index.html"].decode()
    assert "Losses, worst first" in index
    assert "left to eager (1.0×)" in index
    assert "relative error 3.1e-01 is above the tolerance" in index
    machines = files["machines.html"].decode()
    assert "0badf00d-worktree.json" in machines
    assert "not JSON: line 1, column 17" in machines


def test_every_link_and_script_of_every_page_exists() -> None:
    files = pages.files(small())
    for name in (name for name in files if name.endswith(".html")):
        page = files[name].decode()
        links = re.findall(r'(?:href|src)="([^"#]+)', page)
        assert links
        missing = {link for link in links if link not in files and not link.startswith("data:")}
        assert not missing, name
        anchors = set(re.findall(r'href="#([a-z-]+)"', page))
        assert all(f'id="{anchor}"' in page for anchor in anchors)


def test_plotly_is_written_once_and_no_page_has_an_inline_script() -> None:
    files = pages.files(small())
    assert sum(len(content) > 1_000_000 for content in files.values()) == 1
    for name, content in files.items():
        if name.endswith(".html"):
            page = content.decode()
            assert re.findall(r"<script[^>]*>(?!</script>)", page) == []
            assert not re.search(r"\son[a-z]+=|\sstyle=|https?:", page)
            assert "default-src 'none'; script-src 'self';" in page.replace("&#39;", "'")


def test_the_command_builds_from_asv_s_result_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, site = tmp_path / "results", tmp_path / "site"
    write_asv(synthetic.store(ops=("softmax", "layer_norm"), count=6, commits=2), results)
    broken = results / "nvidia-h200" / "deadbeef-worktree.json"
    broken.write_text("{ half a fi")
    assert build.main(["--results", str(results), "--output", str(site)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == f"dashboard: {(site / 'index.html').as_uri()}"
    assert "deadbeef-worktree.json" in said.err
    assert "Speed on nvidia-h200" in (site / "index.html").read_text()
    assert "deadbeef-worktree.json" in (site / "machines.html").read_text()
    assert str(tmp_path) not in "".join(
        content.decode() for name, content in snapshot(site).items() if name.endswith(".html")
    )
    before = snapshot(site)
    shutil.rmtree(results)
    assert build.main(["--results", str(results), "--output", str(site)]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert snapshot(site) == before
