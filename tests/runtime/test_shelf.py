"""A bounded number of things, the oldest use going first."""

from kernl.runtime.shelf import Shelf


def test_what_was_not_used_for_longest_goes() -> None:
    shelf: Shelf[str] = Shelf(2)
    shelf.put("a", "A")
    shelf.put("b", "B")
    assert shelf.get("a") == "A"
    shelf.put("c", "C")
    assert (shelf.get("a"), shelf.get("b"), shelf.get("c")) == ("A", None, "C")
    shelf.put("a", "again")
    assert shelf.values() == ["C", "again"]
    shelf.clear()
    assert shelf.values() == []


def test_what_was_used_last_is_found_again_and_never_kept_too_long() -> None:
    shelf: Shelf[str] = Shelf(2)
    shelf.put("a", "A")
    assert [shelf.get("a") for _ in range(3)] == ["A"] * 3
    shelf.put("a", "another")
    assert shelf.get("a") == "another"
    shelf.put("b", "B")
    shelf.put("c", "C")
    assert shelf.get("a") is None
    assert [shelf.get(key) for key in ("b", "b", "c", "b")] == ["B", "B", "C", "B"]
    shelf.put("d", "D")
    assert shelf.values() == ["B", "D"]
    shelf.clear()
    assert [shelf.get(key) for key in ("b", "d")] == [None, None]
