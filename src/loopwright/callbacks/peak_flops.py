"""Peak floating-point operations per second (FLOP/s) of known GPUs."""

from __future__ import annotations

import re

import torch

# Peaks in TFLOP/s from the data sheets of the vendors, without sparsity. Products of 16-bit floats are accumulated in
# float32. Columns: bfloat16, float16, TF32, float32. None: the dtype is not supported, or its peak is not listed.
_PEAKS: dict[str, tuple[float | None, float | None, float | None, float | None]] = {
    "B200": (2250, 2250, 1125, None),
    "H200 NVL": (835.5, 835.5, 417.5, 60),
    "H200": (989.4, 989.4, 494.7, 67),
    "H100 NVL": (835.5, 835.5, 417.5, 60),
    "H100 PCIe": (756, 756, 378, 51),
    "H100": (989.4, 989.4, 494.7, 67),
    "A100": (312, 312, 156, 19.5),
    "A40": (149.7, 149.7, 74.8, 37.4),
    "A30": (165, 165, 82, 10.3),
    "L40S": (362, 362, 183, 91.6),
    "L4": (121, 121, 60, 30.3),
    "V100": (None, 125, None, 15.7),
    "T4": (None, 65, None, 8.1),
    "MI300X": (1307.4, 1307.4, 653.7, 163.4),
    "RTX 4090": (165.2, 165.2, 82.6, 82.6),
    "RTX 3090": (71, 71, 35.6, 35.6),
}


def peak_flops_of(device_name: str, dtype: torch.dtype) -> float | None:
    """Return the peak of a GPU in FLOP/s; None if the peak is unknown.

    A row of the table matches if ``device_name`` contains all words of the row's name, in order. The first matching row
    is used.

    Args:
        device_name: name that the driver reports, such as "NVIDIA H100 80GB HBM3".
        dtype: dtype of the matrix products. For float32, the peak of TF32 is returned if
            ``torch.get_float32_matmul_precision()`` allows TF32.
    """
    for name, (bfloat16, float16, tf32, float32) in _PEAKS.items():
        if re.search(r"\b" + r"\b.*\b".join(name.split()) + r"\b", device_name):
            single = float32 if torch.get_float32_matmul_precision() == "highest" else tf32
            peak = {torch.bfloat16: bfloat16, torch.float16: float16, torch.float32: single}.get(dtype)
            return None if peak is None else peak * 1e12
    return None
