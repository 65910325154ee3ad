"""`to_bytes` and `from_bytes`, which convert a state for the communication between processes. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch

from loopwright.checkpoint.encode import decode, encode

_TREE = "~tree"  # name of the tensor that contains the JSON values as bytes


def to_bytes(state: Mapping[str, object]) -> bytes:
    """Convert a state to bytes.

    Args:
        state: state with values that `encode` accepts.

    Raises:
        SettingTypeError: for a value that cannot be converted.
    """
    tree, tensors = encode(state)
    text = json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()
    return safetensors.torch.save({**tensors, _TREE: torch.frombuffer(bytearray(text), dtype=torch.uint8)})


def from_bytes(data: bytes) -> dict[str, Any]:
    """Return the state that another process has converted with `to_bytes`."""
    tensors = safetensors.torch.load(data)
    text = tensors.pop(_TREE).numpy().tobytes()
    state: dict[str, Any] = decode(json.loads(text), tensors)
    return state
