from __future__ import annotations

import copy
import json
import math
import random
from collections import Counter, OrderedDict, defaultdict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from loopwright.checkpoint import check_state, decode, encode
from loopwright.errors import CheckpointError, SettingTypeError

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.complex64, torch.complex128, torch.int64,
    torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool,
]  # fmt: skip


def round_trip(tree: object) -> Any:
    """Encode ``tree``, write it as JSON text, parse the text, and decode it."""
    json_tree, tensors = encode(tree)
    return decode(json.loads(json.dumps(json_tree, allow_nan=False)), tensors)


def is_same(a: object, b: object) -> bool:
    """Whether two trees are equal in type, order and every bit."""
    if isinstance(a, np.ndarray | np.generic) and isinstance(b, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bits(a) == bits(b)
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return is_same(list(a), list(b)) and is_same(list(a.values()), list(b.values()))
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(is_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def bits(tensor: Tensor) -> list[int]:
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist() if tensor.numel() else []


def tensors() -> st.SearchStrategy[Tensor]:
    shapes = st.lists(st.integers(0, 3), max_size=3)
    return st.builds(
        lambda dtype, shape, seed, is_turned: _tensor(dtype, shape, seed, is_turned),
        st.sampled_from(DTYPES), shapes, st.integers(0, 2**31), st.booleans(),
    )  # fmt: skip


def _tensor(dtype: torch.dtype, shape: list[int], seed: int, is_turned: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    num_bytes = math.prod(shape) * dtype.itemsize
    high = 2 if dtype == torch.bool else 256
    raw = torch.randint(0, high, (num_bytes,), dtype=torch.uint8, generator=generator)
    tensor = raw.view(dtype).reshape(shape) if num_bytes else torch.empty(shape, dtype=dtype)
    return tensor.mT if is_turned and tensor.ndim >= 2 else tensor


NUMPY_DTYPES = "?bBhHiIlLqQefdgFDG"  # all dtypes of kinds b, i, u, f and c


def arrays() -> st.SearchStrategy[np.ndarray[Any, Any]]:
    return st.builds(
        _array, st.sampled_from(NUMPY_DTYPES), st.sampled_from("<>"), st.lists(st.integers(0, 3), max_size=3),
        st.integers(0, 2**31), st.sampled_from(["C", "F", "turned", "reversed"]),
    )  # fmt: skip


def _array(code: str, byte_order: str, shape: list[int], seed: int, order: str) -> np.ndarray[Any, Any]:
    """Return an array of random bits, or of zeros and ones for bools."""
    dtype = np.dtype(code).newbyteorder(byte_order)
    draw = np.random.RandomState(seed)
    raw = draw.randint(0, 2 if code == "?" else 256, (*shape, dtype.itemsize)).astype(np.uint8)
    # A long double has bytes without a meaning, which NumPy does not always copy.
    array = draw.randn(*shape, 1).astype(dtype)[..., 0] if code in "gG" else raw.view(dtype)[..., 0]
    if order in ("C", "F"):
        return np.array(array, order=order)  # type: ignore[call-overload]  # a literal of the list above
    return array[..., ::-1] if order == "reversed" and array.ndim else array.swapaxes(0, -1) if array.ndim else array


def trees() -> st.SearchStrategy[object]:
    scalars = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(),
        st.text(st.characters(exclude_categories=[]), max_size=5), st.sampled_from(["~tensor", "~", "__metadata__"]),
        st.integers(-(2**2000), 2**2000),
    )  # fmt: skip
    keys = st.one_of(st.integers(), st.text(st.characters(exclude_categories=[]), max_size=3), st.just("~dict"))
    return st.recursive(
        st.one_of(scalars, tensors(), arrays(), arrays().filter(lambda array: array.size > 0).map(lambda a: a.flat[0])),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(keys, inner, max_size=3),
            st.dictionaries(keys, st.integers(-3, 3), max_size=3).map(Counter),
        ),
        max_leaves=12,
    )


@given(trees())
@settings(deadline=None, max_examples=200)
def test_round_trip_is_the_identity(tree: object) -> None:
    assert is_same(round_trip(tree), tree)
    check_state(tree, "callbacks.EMA")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_survives_a_round_trip(dtype: torch.dtype) -> None:
    tree = {"some": _tensor(dtype, [2, 3], 0, True), "scalar": _tensor(dtype, [], 1, False), "none": torch.empty(0, 4)}
    assert is_same(round_trip(tree), tree)


def test_extreme_numbers_and_invalid_unicode_survive_a_round_trip() -> None:
    values = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 2**63, -(10**4000), True, 1, 1.0]
    assert is_same(round_trip(values), values)
    text = ["\ud800\udc00", "\U00010000", "\udc80", "\x00\n", "é", {"\ud800\udc00": 1, "\U00010000": 2}]
    assert is_same(round_trip(text), text)


def test_random_states_of_python_and_numpy_survive_a_round_trip() -> None:
    name, keys, position, has_gauss, gauss = np.random.RandomState(0).get_state(legacy=True)
    tree = {"python": random.Random(0).getstate(), "numpy": (name, keys.tolist(), position, has_gauss, gauss)}
    assert is_same(round_trip(tree), tree)


def test_states_of_torch_schedulers_and_optimizers_survive_a_round_trip() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedulers = torch.optim.lr_scheduler
    states = [
        optimizer.state_dict(),
        schedulers.MultiStepLR(optimizer, [3, 3, 7]).state_dict(),
        schedulers.ReduceLROnPlateau(optimizer).state_dict(),
        schedulers.CosineAnnealingLR(optimizer, 10).state_dict(),
        schedulers.OneCycleLR(optimizer, 0.1, total_steps=10).state_dict(),
    ]
    assert is_same(round_trip(states), copy.deepcopy(states))


def test_tied_weights_are_stored_once_and_stay_tied() -> None:
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    model[1].weight = model[0].weight
    json_tree, tensors = encode(dict(model.state_dict()))
    assert list(tensors) == ["0.weight"]
    decoded = decode(json_tree, tensors)
    assert decoded["0.weight"] is decoded["1.weight"]


@given(st.permutations(range(4)), st.sampled_from(DTYPES), st.booleans())
@settings(deadline=None)
def test_dense_tensors_keep_the_order_of_their_dimensions_in_memory(
    order: list[int], dtype: torch.dtype, is_tied: bool
) -> None:
    tensor = _tensor(dtype, [2, 3, 4, 5], 0, False).permute(order)
    decoded = round_trip([tensor, tensor if is_tied else tensor.clone()])
    assert is_same(decoded, [tensor, tensor])
    assert [each.stride() for each in decoded] == [tensor.stride()] * 2
    assert (decoded[0] is decoded[1]) == is_tied


def test_tensors_with_gaps_or_repeats_become_contiguous() -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tree = [base[:, ::2], base[:, :3].T, torch.ones(1).expand(3, 2), base[1:3, 2]]
    assert all(tensor.is_contiguous() for tensor in round_trip(tree))
    assert is_same(round_trip(tree), tree)


def test_different_views_of_one_memory_are_stored_separately() -> None:
    base = torch.arange(6.0).reshape(2, 3)
    tree = [base, base.mT, base[0], base[1], base.view(3, 2), base.view(torch.int32), base.expand(2, 2, 3)]
    _, tensors = encode(tree)
    assert len(tensors) == len(tree)
    assert is_same(round_trip(tree), tree)


def test_negated_and_conjugated_views_keep_their_values() -> None:
    base = torch.tensor([1 + 2j, 3 - 4j])
    tree = [base, base.conj(), base.conj().imag]
    assert [tensor.tolist() for tensor in round_trip(tree)] == [tensor.tolist() for tensor in tree]


def test_subclasses_of_plain_types_become_plain() -> None:
    tree = [OrderedDict(b=1, a=2), np.str_("text"), torch.Size([2, 3]), nn.Parameter(torch.ones(2))]
    assert is_same(round_trip(tree), [{"b": 1, "a": 2}, "text", (2, 3), torch.ones(2)])


@pytest.mark.parametrize("code", NUMPY_DTYPES)
def test_scalars_and_arrays_of_numpy_come_back_as_such(code: str) -> None:
    array = _array(code, "<", [2, 3], 3, "C")
    tree = {"scalar": array[0, 0], "one": np.array(array[0, 1]), "rows": array, "none": array[:0], "list": [*array[1]]}
    assert is_same(round_trip(tree), tree)
    again = round_trip(tree)["rows"]
    again += again  # its memory is its own


def test_equal_arrays_are_not_taken_for_one_array_that_was_freed() -> None:
    """Catches a cache of memory addresses: the copy of an array is freed before the next array is copied."""
    tree = [np.full(3, index) for index in range(50)]
    _, in_place = encode(tree)
    assert len(in_place) == 50
    _, copied = encode(tree, on_host=lambda name, tensor: tensor.clone())
    assert [each.numpy().view("<i8")[0, 0] for each in copied.values()] == [*range(50)]


@pytest.mark.parametrize("order", ["C", "F", (1, 2, 0)])
def test_an_array_keeps_the_order_of_its_dimensions_in_memory(order: Any) -> None:
    array = np.arange(24.0).reshape(2, 3, 4)
    array = array.transpose(order) if isinstance(order, tuple) else np.array(array, order=order)
    again = round_trip([array])[0]
    assert is_same(again, array) and again.strides == array.strides


def test_tensors_with_equal_paths_get_different_names() -> None:
    tree = {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}, "__metadata__": torch.ones(2), "\udc80": torch.ones(3)}
    assert is_same(round_trip(tree), tree)


Point = namedtuple("Point", ["x"])


@pytest.mark.parametrize(
    "value",
    [
        {1, 2}, b"bytes", 1j, object(), print, torch.float32, torch.device("cpu"), np.array([{}], dtype=object),
        np.datetime64(3, "s"), np.array(["a"]), np.zeros(2, "i4,f4"), np.ma.masked_array([1], [True]), np.bytes_(b"a"),
        np.void(b"a"), np.zeros(1, "i4,O")[0], Point(1), defaultdict(int), torch.ones(2).to_sparse(),
        torch.ones(2, device="meta"), nn.Linear(1, 1), torch.empty(2, dtype=torch.float8_e8m0fnu), 10**5000,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("refuse", [check_state, encode])
def test_other_values_are_refused_with_their_path(value: object, refuse: Any) -> None:
    with pytest.raises(SettingTypeError) as caught:
        refuse({"state": [0, 1, 2, value]}, "callbacks.EMA")
    assert str(caught.value).startswith("callbacks.EMA.state[3]: expected ")
    assert "\n" not in str(caught.value)


def test_keys_other_than_str_and_int_are_refused() -> None:
    for key in (None, True, 1.5, (1, 2)):
        with pytest.raises(SettingTypeError, match=r"^callbacks\.EMA\.seen: expected str or int keys, not "):
            check_state({"seen": {key: 1}}, "callbacks.EMA")


def test_deeply_nested_and_recursive_structures_are_refused() -> None:
    deep: object = 0
    for _ in range(100):
        deep = {0: deep}
    assert is_same(round_trip(deep), deep)
    with pytest.raises(SettingTypeError, match="at most 100 levels of nested"):
        encode([deep])
    own: list[object] = []
    own.append(own)
    with pytest.raises(SettingTypeError, match="at most 100 levels of nested"):
        encode(own)


def test_check_state_refuses_a_tensor_without_data() -> None:
    check_state({"a": torch.ones(3)}, "x")
    with pytest.raises(SettingTypeError):
        check_state(torch.ones(3, device="meta"), "x")


@pytest.mark.parametrize(
    "json_tree",
    [
        {"~pickle": "x"}, {"~tensor": "absent"}, {"~tensor": []}, {"~tensor": "a", "b": 1}, {"~float": "1.5"},
        {"~int": "zz"}, {"~int": 5}, {"~tuple": 5}, {"~dict": [[1]]}, {"~dict": [[1.5, 2]]}, {"~dict": 3},
        {"~dict": [[1, 2], [1, 3]]}, {"~dict": [[{"~tuple": []}, 3]]}, {"~counter": {"a": 1}}, {"~str": [2**40]},
        {"~str": "ab"}, {"~complex": "a"}, {"~dict": [[True, 1]]}, {"~permuted": 1}, {"~permuted": [1, [0]]},
        {"~numpy": ["<i8", "00"]}, {"~numpy": ["|O", "00" * 8]}, {"~numpy": ["<f4", "xx"]}, {"~numpy": "<i8"},
        {"~numpy": ["|b1", "02"]}, {"~numpy": ["<f5", "00" * 5]}, {"~numpy": ["<i4,O", "00" * 12]}, {"~numpy": [1, ""]},
        {"~array": ["<f4", {"~tensor": "a"}]}, {"~array": ["<f8", {"~tensor": "bytes"}]}, {"~array": ["<f4", 3]},
        {"~array": ["|O", {"~tensor": "bytes"}]}, {"~array": ["|b1", {"~tensor": "bytes"}]}, {"~array": []},
        {"~array": ["<f4", {"~tensor": "one"}]},
        {"~int": hex(10**5000)}, {"~permuted": [{"~tensor": "a"}, []]}, {"~permuted": [{"~tensor": "a"}, [1]]},
        math.inf, math.nan,
        {"~permuted": [{"~tensor": "a"}, ["0"]]}, {"~permuted": [{"~permuted": [{"~tensor": "a"}, [0]]}, [0], 1]},
    ],
    ids=str,
)  # fmt: skip
def test_values_that_encode_does_not_write_are_refused(json_tree: object) -> None:
    with pytest.raises(CheckpointError):
        tensors = {"a": torch.ones(3), "bytes": torch.full((2, 4), 2, dtype=torch.uint8), "one": torch.tensor(1).byte()}
        decode([json_tree, *({"~tensor": name} for name in tensors)], tensors)


def test_a_tensor_that_no_value_refers_to_is_refused() -> None:
    with pytest.raises(CheckpointError, match="tensor 'a' is in the tensor file, but the JSON state does not use it"):
        decode([1], {"a": torch.ones(3)})
