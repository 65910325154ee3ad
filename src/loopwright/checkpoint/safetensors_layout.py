"""Functions that build the bytes of a file in the safetensors format.

Such a file contains the length of the header, a JSON header, and the raw bytes of each tensor.

The safetensors library is used only to read such files. Its functions that write files are not used: they either copy
every tensor into one buffer, or do not return the bytes, which this package must hash and sync.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

DTYPE_CODES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def safetensors_chunks(tensors: Mapping[str, Tensor]) -> list[memoryview]:
    """Return the bytes of a safetensors file as a list of chunks in order; tensor memory is not copied.

    Args:
        tensors: contiguous CPU tensors by name, of the dtypes in `DTYPE_CODES`.
    """
    # Wide dtypes come first, so that each tensor starts at a multiple of its item size.
    ordered = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, object] = {}
    start = 0
    for name in ordered:
        tensor = tensors[name]
        stop = start + tensor.nbytes
        header[name] = {
            "dtype": DTYPE_CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = memoryview(len(text).to_bytes(8, "little") + text)
    return [head, *(tensor_bytes(tensors[name]) for name in ordered)]


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return a view of the memory of a contiguous CPU tensor."""
    if not tensor.numel():
        return memoryview(b"")
    data: memoryview = tensor.detach().reshape(-1).view(torch.uint8).numpy().data
    return data
