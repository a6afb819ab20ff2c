"""The page of what moved, its feed, and the rings on the figures."""

import datetime
import json
import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from benchmarks.gate.acknowledged import Acknowledged
from dashboards import pages
from dashboards.data.source import Source
from dashboards.tabular import regressions
from tests.dashboards import hostile, synthetic
from tests.dashboards.synthetic import row
from tests.suite.test_moves import stairs, still

STEP = still(12) + stairs(12, 6, 1, 0.1)
ATOM = "{http://www.w3.org/2005/Atom}"


def measured(logs: Any, **fields: Any) -> list[dict[str, object]]:
    """Rows of a case over as many commits, oldest first."""
    rows = []
    for number, log in enumerate(logs):
        date = pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(days=number)
        shared = {"commit": synthetic.commit_hash(number), "committed_at": date, **fields}
        rows.append(row(**shared, variant="eager", value=2e-5))
        rows.append(row(**shared, variant="kernl", value=1e-5 * float(np.exp(log))))
    return rows


def source(*rows: dict[str, object], accepted: tuple[Acknowledged, ...] = ()) -> Source:
    store = synthetic.Store(synthetic.frame(list(rows)), synthetic.runs_frame([]))
    return Source.of(store, accepted=accepted)


def accept(last: datetime.date) -> Acknowledged:
    return Acknowledged(
        line=3,
        suite="kernels",
        op="softmax",
        case="*",
        metric="time",
        variant="kernl",
        commit=synthetic.commit_hash(6)[:10],
        reason="half the memory",
        expires=last,
        limit=1.2,
    )


def files(*rows: dict[str, object]) -> dict[str, str]:
    found = pages.files(source(*rows))
    return {
        name: content.decode() for name, content in found.items() if name != "assets/plotly.min.js"
    }


def test_a_regression_is_open_until_a_review_accepts_it() -> None:
    rows = measured(STEP)
    (one,) = regressions.find(source(*rows)).open
    assert one.commits[0] == synthetic.commit_hash(6)
    day = datetime.date(2026, 1, 12)  # of the newest commit: not the day of the build
    accepted = regressions.find(source(*rows, accepted=(accept(day),)))
    assert [one.outcome for one in accepted.findings] == ["acknowledged"]
    assert not accepted.open
    late = accept(day - datetime.timedelta(days=1))
    assert regressions.find(source(*rows, accepted=(late,))).open


def test_the_page_names_commits_and_counts() -> None:
    faster = measured(-STEP, case="rows4_cols4.fp16")
    steady = measured(still(12), case="rows2_cols2.fp16")
    short = measured(still(7), case="rows1_cols1.fp16")
    page = files(*measured(STEP), *faster, *steady, *short)["regressions.html"]
    assert "3 of 4 series were judged" in page
    assert re.search(r"Open regressions</dt><dd><strong[^>]*>1<", page)
    assert re.search(r"Moves to faster</dt><dd><strong>1<", page)
    assert "+10 %" in page
    assert f"by {synthetic.commit_hash(6)[:12]}, measured after" in page
    assert 'href="op-softmax.html#case=rows8_cols8.fp16"' in page
    assert page.count(synthetic.commit_hash(6)[:8]) >= 3  # both moves, and the commit's own row


def test_what_is_no_regression_says_why() -> None:
    back = STEP - stairs(12, 9, 1, 0.1)
    page = files(*measured(np.concatenate([back, still(12)])))["regressions.html"]
    assert "no regression" in page or "Nothing moved." in page
    eager = [
        {**one, "value": 1e-5 if one["variant"] == "kernl" else 2e-5 / float(np.exp(STEP[at // 2]))}
        for at, one in enumerate(measured(still(12)))
    ]
    assert "eager&#39;s time moved" in files(*eager)["regressions.html"]


def test_without_enough_commits_it_says_what_to_do() -> None:
    assert "make history" in files(*measured(still(5)))["regressions.html"]
    assert "Nothing moved." in files(*measured(still(9)))["regressions.html"]


def test_the_feed_is_atom_with_the_newest_first() -> None:
    later = measured(still(12) + stairs(12, 8, 1, 0.05), case="rows4_cols4.fp16")
    rows = [*measured(STEP), *later, *measured(-STEP, case="rows2_cols2.fp16")]
    text = files(*rows)["regressions.xml"]
    feed = ElementTree.fromstring(text)
    assert feed.tag == f"{ATOM}feed"
    assert {f"{ATOM}{name}" for name in ("title", "id", "updated", "author")} <= {
        child.tag for child in feed
    }
    entries = feed.findall(f"{ATOM}entry")
    titles = [entry.findtext(f"{ATOM}title") for entry in entries]
    assert titles == ["softmax rows4_cols4.fp16: +5 %", "softmax rows8_cols8.fp16: +10 %"]
    assert [entry.findtext(f"{ATOM}updated") for entry in entries] == [
        "2026-01-09T00:00:00Z",
        "2026-01-07T00:00:00Z",
    ]
    ids = {entry.findtext(f"{ATOM}id") for entry in entries}
    assert len(ids) == 2
    assert all(str(one).startswith("urn:uuid:") for one in ids)
    link = entries[0].find(f"{ATOM}link")
    assert link is not None
    assert link.get("href") == "op-softmax.html#case=rows4_cols4.fp16"
    assert text == files(*rows)["regressions.xml"]


def listed(found: dict[str, str]) -> dict[str, list[Any]]:
    """Case → where it moved, as its figure is told."""
    (name,) = (name for name in found if re.fullmatch(r"data/of/[^/]+/kernels-softmax\.js", name))
    told = json.loads(found[name].removesuffix(");\n").split(",", 1)[1])
    return dict(zip(told["cases"], told["moves"], strict=True))


def test_the_figures_are_told_where_a_case_moved() -> None:
    moves = listed(files(*measured(STEP), *measured(still(12), case="rows4_cols4.fp16")))
    ((commit, said),) = moves["rows8_cols8.fp16"]
    assert commit == 6
    assert "+10 %, open: by" in said
    assert moves["rows4_cols4.fp16"] == []


def test_a_mark_stands_at_a_commit_that_was_measured() -> None:
    """A finding names all commits that can have moved a case: git knows more than were measured."""
    (one,) = regressions.find(source(*measured(STEP))).open
    unmeasured = replace(one, commits=("f" * 40, *one.commits))
    order = source(*measured(STEP)).commits
    found = regressions.marks([unmeasured], order)
    assert list(found["rows8_cols8.fp16"]) == [synthetic.commit_hash(6)]
    assert regressions.marks([replace(one, commits=("f" * 40,))], order) == {}


def test_a_site_in_which_nothing_moved_has_no_rings() -> None:
    assert set(map(tuple, listed(files(*measured(still(12)))).values())) == {()}


@pytest.mark.parametrize("attack", [*hostile.ATTACKS, "\ufffe\uffff"])
def test_hostile_names_stay_text(attack: str) -> None:
    found = files(*measured(STEP, op=attack or "x", case=attack, machine=attack))
    feed = ElementTree.fromstring(found["regressions.xml"])
    assert len(feed.findall(f"{ATOM}entry")) == 1
    page = found["regressions.html"]
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "onerror=alert" not in re.sub(r"&[^;]+;[^<]*", "", page)


def test_the_overview_says_how_many_are_open() -> None:
    assert "1 case became slower" in files(*measured(STEP))["index.html"]
    assert "became slower" not in files(*measured(still(12)))["index.html"]
