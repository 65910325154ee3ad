"""``loopwright export DIR``: the weights of a run alone, as one safetensors file that any program reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

import loopwright
from loopwright.checkpoint import read_checkpoint, resolve, weights_digest
from loopwright.errors import CheckpointError, SettingError, refuse
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.options import read_options

_AVERAGED = "averaged_weights"  # where `ExponentialMovingAverage` keeps them in its state


def export(line: CommandLine) -> int:
    """Write the weights of a checkpoint, or of a run's newest good one, to a file; nothing is built or run.

    Options: ``output=FILE``, by default named after the step beside the checkpoints; ``weights=averaged``, those that
    an `ExponentialMovingAverage` kept.

    Raises:
        SettingError: for other options, and a file that is there already.
        CheckpointError: if there is no good checkpoint, or no averaged weights in it.
    """
    assert line.directory is not None
    options = read_options(line.overrides, {"output": None, "weights": "trained"})
    if options["weights"] not in ("trained", "averaged"):
        raise refuse("weights", options["weights"], "trained or averaged")
    folder = resolve(line.directory)
    output = Path(options["output"] or _beside(folder))
    if output.exists():
        raise SettingError("output", f"={str(output)!r}: is there already; name another file.")
    checkpoint = read_checkpoint(folder)
    weights = checkpoint.state["model"] if options["weights"] == "trained" else _averaged(checkpoint.state, folder)
    # Tied ones apart, and each in the order of its dimensions: the file knows no other.
    tensors = {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in weights.items()
        if isinstance(value, Tensor)
    }
    for name, tensor in tensors.items():
        if tensor.dtype == torch.complex128:
            raise CheckpointError(f"{folder}: {name} is complex128, which safetensors cannot hold.")
    facts = {"format": "pt", "step": str(checkpoint.step), "loopwright": loopwright.__version__}
    try:
        save_file(tensors, output, metadata=facts)
    except (OSError, SafetensorError) as error:
        raise SettingError("output", f"={str(output)!r}: cannot be written ({' '.join(str(error).split())}).") from None
    num_values = sum(tensor.numel() for tensor in tensors.values())
    tell(
        f"Exported: {options['weights']} weights of {folder}\n"
        f"File: {output} ({len(tensors)} tensors, {num_values:,} values, {output.stat().st_size:,} bytes)\n"
        f"weights_sha256: {weights_digest(tensors)}"
    )
    return 0


def _beside(folder: Path) -> Path:
    parent = folder.parent.parent if folder.parent.name == "checkpoints" else folder.parent
    return parent / f"{folder.name}.safetensors"


def _averaged(state: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The model's state with averaged parameters in place of the trained ones."""
    for callback in state.get("callbacks", {}).values():
        if isinstance(callback, dict) and isinstance(callback.get(_AVERAGED), dict):
            return {**state["model"], **callback[_AVERAGED]}
    raise CheckpointError(f"{folder}: holds no averaged weights; weights=trained exports those that were trained.")
