"""Arguments and outputs as tensors in a row, and back."""

from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from kernl.runtime.structure import UnknownValue, key_of, key_of_call, rebuilder

A, B = torch.ones(2, 3), torch.zeros(4)


def key(value: Any) -> Any:
    return key_of(value, [])


def test_a_key_says_all_but_the_data() -> None:
    tensors: list[torch.Tensor] = []
    one = key_of({"x": A, "y": (B, None), "flag": True}, tensors)
    assert tensors[0] is A
    assert tensors[1] is B
    assert one == key({"x": A + 1, "y": (B + 1, None), "flag": True})
    for other in (
        {"x": A.half(), "y": (B, None), "flag": True},
        {"x": A[:1], "y": (B, None), "flag": True},
        {"x": A, "y": [B, None], "flag": True},
        {"x": A, "y": (B, None), "flag": 1},
        {"x": A, "z": (B, None), "flag": True},
    ):
        assert key(other) != one


def key_of_this(*args: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Any:
    return key_of_call(args, kwargs, dtype, [])


def test_a_key_of_a_call_says_where_each_argument_stands() -> None:
    tensors: list[torch.Tensor] = []
    parameter = torch.nn.Parameter(A)
    one = key_of_call((A,), {"mask": B, "flag": None, "more": [A]}, None, tensors)
    assert [id(tensor) for tensor in tensors] == [id(A), id(B), id(A)]
    assert one == key_of_this(parameter, mask=B + 1, flag=None, more=[A])
    assert hash(one) == hash(key_of_this(A, mask=B, flag=None, more=[A]))
    others = [
        key_of_this(A, mask=B, flag=None, more=[A], dtype=torch.float16),
        key_of_this(mask=B, flag=None, more=[A]),
        key_of_this(A, B, flag=None, more=[A]),
        key_of_this(A, flag=None, mask=B, more=[A]),
        key_of_this(A, mask=B, flag=None, more=A),
        key_of_this(A, mask=B, flag=False, more=[A]),
        key_of_this(A, mask=tuple(A.shape), flag=None, more=[A]),
        key_of_this(A.half(), mask=B, flag=None, more=[A]),
        key_of_this(A[:1], mask=B, flag=None, more=[A]),
        key_of_this(A.to("meta"), mask=B, flag=None, more=[A]),
        key_of_this((A, B), flag=None, more=[A]),
        key_of_this(),
    ]
    assert one not in others
    assert len(set(others)) == len(others)
    for dtype in (torch.float32, torch.float16):
        # The same in a row, once as arguments and once as what is said of a tensor.
        assert key_of_this(tuple(A.shape), dtype, A.device.type) != key_of_this(A.to(dtype))


@pytest.mark.parametrize("value", [object(), {1, 2}, DynamicCache()])
def test_what_a_graph_cannot_take_is_named(value: Any) -> None:
    with pytest.raises(UnknownValue, match=f"an argument of type {type(value).__name__}"):
        key({"given": value})


def again(value: Any) -> tuple[Any, list[torch.Tensor]]:
    """The value rebuilt from doubled tensors, and the tensors it was taken apart into."""
    tensors: list[torch.Tensor] = []
    rebuild = rebuilder(value, tensors)
    return rebuild([2 * tensor for tensor in tensors]), tensors


def test_plain_containers_are_built_anew() -> None:
    built, tensors = again({"x": A, "more": [(B, 3), None, "word"]})
    assert len(tensors) == 2
    assert torch.equal(built["x"], 2 * A)
    assert built["more"][1:] == [None, "word"]
    assert built["more"][0][1] == 3


def test_one_tensor_that_is_there_twice_stays_one() -> None:
    built, tensors = again((A, [A, B]))
    assert len(tensors) == 2
    assert built[0] is built[1][0]


def test_arguments_are_a_row_as_their_key_has_it() -> None:
    tensors: list[torch.Tensor] = []
    build = rebuilder((A, A), tensors, once=False)
    row: list[torch.Tensor] = []
    key_of((A, A), row)
    assert len(tensors) == len(row) == 2
    one, other = build([B, A])
    assert one is B
    assert other is A


def test_a_model_output_has_its_fields_items_and_order() -> None:
    value = BaseModelOutputWithPast(last_hidden_state=A, hidden_states=(A, B))
    built, _ = again(value)
    assert type(built) is BaseModelOutputWithPast
    assert list(built) == list(value) == ["last_hidden_state", "hidden_states"]
    assert built.past_key_values is None
    assert built[0] is built.last_hidden_state is built["last_hidden_state"]
    assert built.to_tuple()[1][0] is built.last_hidden_state
    assert vars(built).keys() == vars(value).keys()


def test_a_cache_can_go_on() -> None:
    cache = DynamicCache()
    k = torch.ones(1, 2, 3, 4)
    cache.update(k, 3 * k, 0)
    built, tensors = again(EncoderDecoderCache(cache, DynamicCache()))
    assert len(tensors) == 2
    built.self_attention_cache.update(k, k, 0)
    assert built.self_attention_cache.get_seq_length() == 6
    assert cache.get_seq_length() == 3
    assert torch.equal(built.self_attention_cache.layers[0].values[:, :, :3], 6 * k)
    again_built, _ = again(cache)
    assert again_built.get_seq_length() == 3


def test_an_output_of_another_kind_is_named() -> None:
    with pytest.raises(UnknownValue, match="an output of type set"):
        again({"strange": {1}})
