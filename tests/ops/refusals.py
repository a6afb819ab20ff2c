"""What every refusal of an argument has to say."""

from collections.abc import Callable

import pytest

from kernl import errors


def check_refusal(error: type[Exception], call: Callable[[], object], seen: str) -> None:
    """`call` raises this error, and it says what was seen, what is allowed and what to do."""
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, errors.KernlError)
    assert seen in caught.value.seen
    assert caught.value.allowed
    assert caught.value.action
    assert str(caught.value) == (
        f"{caught.value.seen}; allowed: {caught.value.allowed}; {caught.value.action}."
    )
