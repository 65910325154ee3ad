"""`encode` converts a state to JSON values and named tensors, and `decode` rebuilds the state from them.

Null, booleans, numbers, strings, lists, and objects with string keys are stored as plain JSON. Every other value is
stored as an object with one key, its tag::

    {"~tensor": "state[0].exp_avg"}     a tensor, stored in the safetensors file under this name;
                                        if a name occurs twice, both places share one tensor
    {"~complex": "phase"}               a complex128 tensor, stored as pairs of float64 numbers, because safetensors
                                        lacks this dtype
    {"~permuted": [{…}, [1, 0]]}        a tensor, and the order of its dimensions in memory, outermost first
    {"~tuple": [1, 2]}                  a tuple
    {"~dict": [[0, "a"], ["b", 1]]}     the items of a dict with a key that is an int, begins with ~, or is not
                                        valid Unicode
    {"~counter": [[30, 1]]}             the items of a `collections.Counter`
    {"~array": ["<f4", {"~tensor": …}]} a NumPy array, and its dtype. The tensor contains the bytes of the array, and
                                        has one more dimension, because torch lacks some dtypes
    {"~numpy": ["<i8", "0300…"]}        a NumPy scalar, and its dtype; the bytes are in hexadecimal
    {"~float": "nan"}                   a float that JSON cannot express: nan, inf, -inf
    {"~int": "0x1f…"}                   an integer of more than 1024 bits, in hexadecimal, because
                                        Python limits the length of decimal integers that it parses
    {"~str": [56448, 97]}               the code points of a string that is not valid Unicode
"""

from __future__ import annotations

import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy
import torch
from torch import Tensor, nn

from loopwright.checkpoint.safetensors_layout import DTYPE_CODES
from loopwright.errors import CheckpointError, SettingTypeError

ACCEPTED = (
    "a tensor, a NumPy array or scalar of numbers, None, a bool, int, float or str, or a list, tuple or dict (with str "
    "or int keys) of these"
)

MAX_DEPTH = 100
_MAX_DECIMAL_BITS = 1024
_NUMPY_DTYPES = re.compile("[<>|][biufc][0-9]+")  # bools, integers, floats and complex numbers; no objects
_MAX_BITS = 14_000  # Python refuses to convert an int of more than 4300 digits to a string.


def in_place(name: str, tensor: Tensor) -> Tensor:
    """Return ``tensor`` as a contiguous CPU tensor, without a copy if it already is one."""
    return tensor.cpu().contiguous()


def encode(
    tree: object, where: str = "", on_host: Callable[[str, Tensor], Tensor] = in_place
) -> tuple[Any, dict[str, Tensor]]:
    """Split a state into JSON values and tensors.

    Args:
        tree: state to store. It may contain tensors (strided, on any device, of a dtype that can be stored), NumPy
            arrays and scalars of bools, integers, floats and complex numbers, None, bool, int, float, str, and lists,
            tuples, dicts and Counters of these values. `decode` returns a value of a subclass of int, float or str
            as the base type, an `OrderedDict` as a dict, a `torch.Size` as a tuple, and a parameter as a tensor.
            NumPy's scalars keep their type, also ``numpy.float64``, which is a subclass of float.
        where: prefix of the paths in error messages.
        on_host: function that takes the name of a tensor and the tensor, and returns a contiguous CPU tensor.

    Returns:
        The JSON values, and the tensors that ``on_host`` returned, by name. By default, a tensor that was already
        contiguous and on the CPU shares memory with the state. Tensors with the same memory, shape and strides (tied
        weights) are stored once. `decode` restores the order of a dense tensor's dimensions in memory, because fused
        optimizer steps rely on this order.

    Raises:
        SettingTypeError: for a value that cannot be stored; the message contains the path of the value.
    """
    encoder = _Encoder(where, on_host)
    return encoder.encode(tree, "", 0), encoder.tensors


def check_state(tree: object, where: str) -> None:
    """Raise the errors that `encode` would raise, without reading tensor data."""
    _Encoder(where, None).encode(tree, "", 0)


def decode(json_tree: object, tensors: Mapping[str, Tensor]) -> Any:
    """Rebuild the state from which `encode` made these JSON values and tensors.

    Raises:
        CheckpointError: for values that `encode` does not write, and for a tensor that no JSON value refers to.
    """
    decoder = _Decoder(tensors)
    tree = decoder.decode(json_tree, 0)
    unused = sorted(tensors.keys() - decoder.used.keys())
    if unused:
        raise CheckpointError(f"tensor {unused[0]!r} is in the tensor file, but the JSON state does not use it")
    return tree


class _Encoder:
    """Walks a state once and collects its tensors by name. If ``on_host`` is None, the state is only checked."""

    def __init__(self, where: str, on_host: Callable[[str, Tensor], Tensor] | None) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._where = where
        self._on_host = on_host
        self._tags: dict[tuple[object, ...], dict[str, Any]] = {}

    def encode(self, value: object, path: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self._refuse(path, f"at most {MAX_DEPTH} levels of nested lists and dicts")
        kind = type(value)  # comparing exact types first is several times faster than the tests for subclasses below
        if kind is str:
            return _encode_str(cast("str", value))
        if value is None or kind is bool:
            return value
        if isinstance(value, numpy.generic) and not isinstance(value, str):
            return {"~numpy": [self._numpy_dtype(value, path), value.tobytes().hex()]}
        if isinstance(value, str):
            return _encode_str(str.__str__(value))
        if isinstance(value, int):
            number = int(value)
            if number.bit_length() > _MAX_BITS:
                raise self._refuse(path, f"a whole number of at most {_MAX_BITS:,} bits")
            return number if number.bit_length() <= _MAX_DECIMAL_BITS else {"~int": hex(number)}
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"~float": repr(float(value))}
        if isinstance(value, Tensor):
            return self._encode_tensor(value, path)
        if type(value) is numpy.ndarray:
            return self._encode_array(value, path)
        if type(value) is list:
            return self._encode_items(value, path, depth)
        if type(value) in (tuple, torch.Size):
            return {"~tuple": self._encode_items(value, path, depth)}  # type: ignore[arg-type]  # narrowed by type()
        if type(value) in (dict, OrderedDict, Counter):
            return self._encode_dict(value, path, depth)  # type: ignore[arg-type]  # narrowed by type()
        raise self._refuse(path, ACCEPTED, value)

    def _encode_items(self, values: list[object] | tuple[object, ...], path: str, depth: int) -> list[Any]:
        # Encoding the 625 integers of Python's random state one by one would take most of the time of a small save.
        if depth < MAX_DEPTH and {*map(type, values)} == {int}:
            numbers = cast("Sequence[int]", values)
            if max(max(numbers), -min(numbers)).bit_length() <= _MAX_DECIMAL_BITS:
                return [*numbers]
        return [self.encode(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(values)]

    def _encode_dict(self, values: dict[object, object], path: str, depth: int) -> dict[str, Any]:
        pairs: list[list[Any]] = []
        is_plain = type(values) is not Counter
        for key, value in values.items():
            if type(key) not in (str, int):
                raise self._refuse(path, f"str or int keys, not {key!r:.80} ({type(key).__qualname__})")
            encoded_key = _encode_str(key) if isinstance(key, str) else self.encode(key, path, depth)
            is_plain = is_plain and isinstance(encoded_key, str) and not encoded_key.startswith("~")
            child = f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
            pairs.append([encoded_key, self.encode(value, path + child, depth + 1)])
        if is_plain:
            return dict(pairs)
        return {"~counter" if type(values) is Counter else "~dict": pairs}

    def _encode_tensor(self, tensor: Tensor, path: str) -> dict[str, Any]:
        if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer):
            raise self._refuse(path, "a plain tensor", tensor)
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            layout = str(tensor.layout).removeprefix("torch.")
            given = f"a {layout}" if layout != "strided" else "a quantized" if tensor.is_quantized else "a meta"
            raise self._refuse(path, f"a dense, unquantized tensor with data, not {given} tensor")
        if tensor.dtype not in DTYPE_CODES and tensor.dtype != torch.complex128:
            raise self._refuse(path, f"a dtype that safetensors supports, not {tensor.dtype}")
        if self._on_host is None:
            return {}
        view = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj(),
                tensor.is_neg())  # fmt: skip
        if view in self._tags:
            return self._tags[view]
        data = tensor.detach().resolve_conj().resolve_neg()
        tag = "~tensor"
        if tensor.dtype == torch.complex128:
            data, tag = torch.view_as_real(data), "~complex"
        self._tags[view] = self._store(path, tag, data, _order_in_memory(tensor))
        return self._tags[view]

    def _encode_array(self, array: numpy.ndarray[Any, Any], path: str) -> dict[str, Any]:
        dtype = self._numpy_dtype(array, path)
        if self._on_host is None:
            return {}
        # The copy keeps the order of the dimensions in memory. It is not looked up in `_tags`, because its memory may
        # be freed before the next array is copied, and then the two would seem to be one tensor.
        raw = torch.from_numpy(numpy.array(array, order="K")[..., numpy.newaxis].view(numpy.uint8))
        return {"~array": [dtype, self._store(path, "~tensor", raw, _order_in_memory(raw))]}

    def _numpy_dtype(self, value: numpy.ndarray[Any, Any] | numpy.generic, path: str) -> str:
        dtype: str = value.dtype.str
        if not _NUMPY_DTYPES.fullmatch(dtype) or value.dtype.isbuiltin == 2:  # 2: a dtype of another library
            raise self._refuse(path, f"a NumPy dtype of bools, integers, floats or complex numbers, not {value.dtype}")
        return dtype

    def _store(self, path: str, tag: str, data: Tensor, order: list[int] | None) -> dict[str, Any]:
        """Add a tensor under a new name, and return its JSON value."""
        assert self._on_host is not None, "a check stores nothing"
        name = self._free_name(path)
        self.tensors[name] = self._on_host(name, data)
        return {tag: name} if order is None else {"~permuted": [{tag: name}, order]}

    def _free_name(self, path: str) -> str:
        """Return a unique name for the tensor at ``path``: the path itself, unless this name is used or reserved."""
        stem = path.encode("utf-8", "backslashreplace").decode() or "tensor"
        name, number = stem, 1
        while name in self.tensors or name == "__metadata__":
            number += 1
            name = f"{stem}~{number}"
        return name

    def _refuse(self, path: str, expected: str, given: object = None) -> SettingTypeError:
        separator = "." if self._where and path and not path.startswith("[") else ""
        setting = f"{self._where}{separator}{path}" or "state"
        got = "" if given is None else f", not {type(given).__module__}.{type(given).__qualname__}"
        return SettingTypeError(setting, f": expected {expected}{got}.")


def _encode_str(text: str) -> Any:
    # JSON would join two adjacent lone surrogates into one character.
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        return {"~str": [ord(char) for char in text]}
    return text


def _order_in_memory(tensor: Tensor) -> list[int] | None:
    """Return the dimensions from outermost to innermost in memory, or None for a contiguous or non-dense tensor."""
    if tensor.is_contiguous():
        return None
    order = sorted(range(tensor.ndim), key=lambda dim: tensor.stride(dim), reverse=True)
    return order if tensor.permute(order).is_contiguous() else None


def _decode_numpy(dtype: str, raw: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    """Return the array whose bytes are the last dimension of ``raw``, in the memory order of ``raw``."""
    is_known = _NUMPY_DTYPES.fullmatch(dtype) and raw.dtype == numpy.uint8
    if not is_known or raw.shape[-1:] != (numpy.dtype(dtype).itemsize,):
        raise ValueError("expected a dtype of numbers, and as many bytes for each number")
    if dtype == "|b1" and raw.size and raw.max() > 1:
        raise ValueError("expected bools of 0 and 1")
    return raw.view(dtype)[..., 0].copy(order="K")  # a copy is aligned


def _decode_int(text: str) -> int:
    number = int(text, 16)
    if number.bit_length() > _MAX_BITS:
        raise ValueError(f"an integer of more than {_MAX_BITS:,} bits")
    return number


class _Decoder:
    """Walks JSON values once, rebuilds the state, and records which tensors were used."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.used: dict[str, Tensor] = {}
        self._tensors = tensors
        self._tags: dict[str, Callable[[Any, int], Any]] = {
            "~tensor": lambda name, depth: self._tensor(name),
            "~complex": lambda name, depth: self._complex(name),
            "~permuted": self._permuted,
            "~tuple": lambda items, depth: tuple(self._items(items, depth)),
            "~dict": self._dict,
            "~counter": lambda pairs, depth: Counter(self._dict(pairs, depth)),
            "~array": self._array,
            "~numpy": lambda value, depth: _decode_numpy(value[0], numpy.array([*bytes.fromhex(value[1])], "u1"))[()],
            "~float": lambda text, depth: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[text],
            "~int": lambda text, depth: _decode_int(text),
            "~str": lambda codes, depth: "".join(map(chr, codes)),
        }

    def decode(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH + 1:
            raise CheckpointError(f"more than {MAX_DEPTH} levels of nested lists and dicts")
        if isinstance(value, list):
            return self._items(value, depth)
        if isinstance(value, float) and not math.isfinite(value):  # json parses 1e999 as infinity
            raise CheckpointError(f"a number that is not finite: {value}")
        if not isinstance(value, dict):
            return value
        tag = next(iter(value), "")
        if not tag.startswith("~"):
            return {key: self.decode(item, depth + 1) for key, item in value.items()}
        if len(value) != 1 or tag not in self._tags:
            raise CheckpointError(f"unknown tag {tag!r:.80}")
        try:
            return self._tags[tag](value[tag], depth)
        except (TypeError, ValueError, KeyError, OverflowError, RuntimeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"invalid value for tag {tag!r}: {value[tag]!r:.80}") from error

    def _items(self, values: list[Any], depth: int) -> list[Any]:
        return [self.decode(item, depth + 1) for item in values]

    def _dict(self, pairs: list[list[Any]], depth: int) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for encoded_key, value in pairs:
            key = self.decode(encoded_key, depth)
            if type(key) not in (str, int) or key in result:
                raise CheckpointError(f"invalid or repeated key: {key!r:.80}")
            result[key] = self.decode(value, depth + 1)
        return result

    def _tensor(self, name: str) -> Tensor:
        if name not in self.used:
            if name not in self._tensors:
                raise CheckpointError(f"tensor {name!r:.80} is missing")
            self.used[name] = self._tensors[name]
        return self.used[name]

    def _permuted(self, parts: list[Any], depth: int) -> Tensor:
        tagged, order = parts
        tensor = self.decode(tagged, depth + 1)
        if not isinstance(tensor, Tensor) or sorted(order) != list(range(tensor.ndim)):
            raise ValueError(f"expected a permutation of the tensor's dimensions, not {order}")
        if not tensor.permute(
            order
        ).is_contiguous():  # This is the first reference. Later references find the permuted tensor in `used`.
            inverse = [order.index(dim) for dim in range(tensor.ndim)]
            tensor = tensor.permute(order).contiguous().permute(inverse)
            self.used[next(iter(tagged.values()))] = tensor
        return tensor

    def _array(self, parts: list[Any], depth: int) -> numpy.ndarray[Any, Any]:
        dtype, tagged = parts
        raw = self.decode(tagged, depth + 1)
        if not isinstance(raw, Tensor):
            raise ValueError("expected a tensor with the bytes of the array")
        return _decode_numpy(dtype, raw.numpy())

    def _complex(self, name: str) -> Tensor:
        tensor = self._tensor(name)
        if not tensor.is_complex():
            tensor = self.used[name] = torch.view_as_complex(tensor)
        return tensor
