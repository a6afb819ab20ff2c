"""Attention's masks of keys: padding, left or right, with holes, or everything hidden."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernl.ops import attention
from kernl.ops.attention import attention_plan
from tests.ops.attention_operands import DEVICE, TOLERANCE, blocks, error, operands, random

KEYS = 120


def shown(first: int, end: int, *holes: int) -> torch.Tensor:
    """(KEYS,): True from first to end, but for the holes."""
    place = torch.arange(KEYS, device=DEVICE)
    mask = (place >= first) & (place < end)
    mask[list(holes)] = False
    return mask


def way(mask: torch.Tensor) -> tuple[str, bool]:
    """Which kind of mask the kernel sees, and whether it looks for a run of keys first."""
    q, k, v = operands(19, mask.shape[-1], batch=2, heads=2)
    with blocks():
        (launch,) = attention_plan(90, q, k, v, mask=mask).kernels
    return launch.constants["MASK"], launch.constants["FIND_RUN"] > 0


def test_which_masks_are_masks_of_keys() -> None:
    mask = shown(3, 100)
    assert way(mask) == ("keys", True)
    assert way(mask[None, None, None].expand(2, 2, 19, KEYS)) == ("keys", True)
    assert way(mask[:20]) == ("keys", False)
    assert way(mask[None, None, None].repeat(2, 1, 19, 1)) == ("boolean", False)
    assert way(mask[None, None, None].float()) == ("additive", False)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 30])
@pytest.mark.parametrize(
    "mask",
    [
        shown(0, KEYS),
        shown(0, 50),
        shown(0, 48),
        shown(70, KEYS),
        shown(64, KEYS),
        shown(33, 35),
        shown(20, 100, 50),
        shown(0, KEYS, 0, 119),
        shown(0, 0),
        shown(119, KEYS),
    ],
    ids=lambda mask: "".join(str(int(one)) for one in mask[::7]),
)
def test_runs_and_holes(mask: torch.Tensor, window: int | None, causal: bool) -> None:
    q, k, v = operands(37, KEYS, batch=2, heads=2)
    both = torch.stack([mask, mask.flip(0)])[:, None, None]
    with blocks():
        found = error(q, k, v, mask=both, causal=causal, window=window)
    assert found <= TOLERANCE["fp32"]


def test_keys_outside_the_run_are_not_read() -> None:
    q, k, v = operands(19, KEYS)
    with blocks():
        right = attention(q, k, v, mask=shown(64, 80))
        for x in (k, v):
            x[:, :, :64] = float("nan")
            x[:, :, 80:] = float("nan")
        assert torch.equal(attention(q, k, v, mask=shown(64, 80)), right)


def test_each_head_may_have_its_own() -> None:
    q, k, v = operands(19, KEYS, batch=2, heads=2)
    masks = torch.stack([shown(0, 40), shown(50, KEYS), shown(0, KEYS, 9), shown(0, 0)])
    with blocks():
        assert error(q, k, v, mask=masks.view(2, 2, 1, KEYS)) <= TOLERANCE["fp32"]


def test_with_what_changes_scores() -> None:
    q, k, v = operands(19, KEYS, heads=2)
    slopes = random(2).abs()
    with blocks():
        for mask in (shown(40, 90), shown(0, 90, 20)):
            assert error(q, k, v, mask=mask, softcap=2.0) <= TOLERANCE["fp32"]
            assert error(q, k, v, mask=mask, alibi_slopes=slopes) <= TOLERANCE["fp32"]
            assert (
                error(q, k, v, mask=mask, key_lengths=torch.tensor([60], device=DEVICE))
                <= (TOLERANCE["fp32"])
            )


@given(st.data())
def test_any_mask_of_keys(data: st.DataObject) -> None:
    keys = data.draw(st.integers(1, 90))
    rows = [data.draw(st.lists(st.booleans(), min_size=keys, max_size=keys)) for _ in range(2)]
    mask = torch.tensor(rows, device=DEVICE)[:, None, None]
    q, k, v = operands(data.draw(st.integers(1, 20)), keys, batch=2)
    causal = data.draw(st.booleans())
    with blocks():
        assert error(q, k, v, mask=mask, causal=causal) <= TOLERANCE["fp32"]
