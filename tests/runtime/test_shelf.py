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
