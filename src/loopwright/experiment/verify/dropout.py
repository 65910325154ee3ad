"""`WithoutDropout`: a `TorchFunctionMode` that sets all dropout probabilities to 0."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_PLAIN: Sequence[Callable[..., Any]] = (
    torch.dropout, torch.dropout_, torch.feature_dropout, torch.feature_dropout_, torch.alpha_dropout,
    torch.alpha_dropout_, torch.feature_alpha_dropout, torch.feature_alpha_dropout_,
    functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d, functional.alpha_dropout,
    functional.feature_alpha_dropout,
)  # fmt: skip
_RECURRENT: Sequence[Callable[..., Any]] = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
_ATTENTION: Callable[..., Any] = functional.scaled_dot_product_attention
_MULTI_HEAD: Callable[..., Any] = functional.multi_head_attention_forward
_HALF = (torch.bfloat16, torch.float16)
_BATCH_NORM: Sequence[Callable[..., Any]] = (functional.batch_norm, torch.batch_norm, torch.native_batch_norm)


def _up_to(name: str, function: Callable[..., Any]) -> tuple[str, ...]:
    names = [*inspect.signature(function).parameters]
    return tuple(names[: names.index(name) + 1])


# Names of the parameters of each function, up to and including the dropout probability.
_TAKES: Mapping[Callable[..., Any], tuple[str, ...]] = MappingProxyType(
    {
        **{function: ("input", "p") for function in _PLAIN},  # noqa: C420  (mypy rejects dict.fromkeys)
        _ATTENTION: ("query", "key", "value", "attn_mask", "dropout_p"),
        _MULTI_HEAD: _up_to("dropout_p", _MULTI_HEAD),
    }
)


class WithoutDropout(TorchFunctionMode):
    """While this mode is active, the dropout probability of all modules and functions is 0, also in training mode.

    Attributes:
        has_dropped: whether dropout with a probability above 0 was called in training mode.
        has_batch_statistics: whether a batch normalization used the mean and variance of a batch.
        half_types: 16-bit floating-point dtypes of the results of operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.has_dropped = False
        self.has_batch_statistics = False
        self.half_types: set[torch.dtype] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func``. If ``func`` has an argument for the dropout probability, set this argument to 0."""
        result = self._call(func, args, dict(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype in _HALF:
            self.half_types.add(result.dtype)
        return result

    def _call(self, func: Callable[..., Any], args: Sequence[Any], given: dict[str, Any]) -> Any:
        if func in _BATCH_NORM:
            self.has_batch_statistics |= bool(given.get("training", args[5] if len(args) > 5 else False))
        if func in _RECURRENT:
            return func(*self._recurrent(args), **given)
        if func not in _TAKES:
            return func(*args, **given)
        names = _TAKES[func]
        values = dict(zip(names, args, strict=False)) | given
        default = 0.0 if func is _ATTENTION else 0.5
        is_training = given.get("training", given.get("train", _third(func, args)))
        self.has_dropped |= bool(is_training) and values.get(names[-1], default) > 0
        values[names[-1]] = 0.0
        positional = [values.pop(name) for name in names[: len(args)]]
        return func(*positional, *args[len(names) :], **values)

    def _recurrent(self, args: Sequence[Any]) -> list[Any]:
        """Set the dropout probability in the arguments of a recurrent function to 0.

        The first bool in the arguments is ``has_biases``. The next arguments are ``num_layers``, ``dropout`` and
        ``train``.
        """
        changed = [*args]
        at = next(index for index, value in enumerate(args) if isinstance(value, bool)) + 2
        self.has_dropped |= bool(args[at + 1]) and args[at] > 0
        changed[at] = 0.0
        return changed


def _third(func: Callable[..., Any], args: Sequence[Any]) -> bool:
    """Return the argument ``train`` if it is given as the third positional argument, otherwise True."""
    return bool(args[2]) if func in _PLAIN and len(args) > 2 else True
