"""Rows of frames as Python's own values are those that pandas gives."""

import math

import pandas as pd

from dashboards.data.frames import records, rows_of
from tests.dashboards import synthetic


def test_records_are_those_of_pandas() -> None:
    store = synthetic.store(ops=("softmax",), count=5, commits=2)
    for frame in (store.rows, store.runs, store.rows[:0]):
        found, expected = records(frame), frame.to_dict("records")
        assert repr(found) == repr(expected)
        assert [list(map(type, one.values())) for one in found] == [
            list(map(type, one.values())) for one in expected
        ]


def test_columns_of_rows_go_together() -> None:
    frame = pd.DataFrame({"a": ["x", "y"], "b": [1.5, math.nan], 3: [True, False]})
    assert list(rows_of(frame[:1], "b", "a")) == [(1.5, "x")]
    assert list(rows_of(frame[:0], "b")) == []
    assert records(frame)[0] == {"a": "x", "b": 1.5, "3": True}
