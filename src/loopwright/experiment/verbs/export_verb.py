"""The command ``loopwright export DIR``, which writes the weights of a run to one safetensors file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

import loopwright
from loopwright.checkpoint import choose, read_checkpoint, weights_digest, within
from loopwright.errors import CheckpointError, SettingError, refuse
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.options import read_options
from loopwright.run_state import AVERAGED_WEIGHTS

_SUFFIX = ".safetensors"


def export(line: CommandLine) -> int:
    """Write the weights of a checkpoint of a run to a safetensors file. No model is built.

    - The option ``ckpt_path`` selects the checkpoint by a path, ``best`` or ``last``. The default is the best
      checkpoint, or the newest checkpoint if no best checkpoint is known.
    - The option ``output=FILE`` names the file. The default is ``step_….safetensors`` in the run directory. For a
      checkpoint outside a run directory, the default file is next to the checkpoint.
    - The option ``weights=averaged`` selects the averaged weights of the callback `ExponentialMovingAverage`.

    If the run has a file ``config.yaml``, a copy of this file is written next to ``output``. The copy has the name of
    ``output`` with the suffix ``.yaml``. An existing file is not replaced.

    Raises:
        SettingError: for an unknown option or a wrong value, if the file already exists or cannot be written, or
            if the name of the file has another suffix than ``.safetensors``, such as ``.pt``.
        CheckpointError: if the run has no valid checkpoint, if the checkpoint contains no averaged weights but the user
            selected averaged weights, or if a tensor has the dtype complex128.
    """
    assert line.directory is not None
    options = read_options(line.overrides, {"output": None, "weights": "trained", "ckpt_path": None})
    if options["weights"] not in ("trained", "averaged"):
        raise refuse("weights", options["weights"], "trained or averaged")
    folder, why = choose(within(Path(line.directory), options["ckpt_path"]), prefers_best=True)
    output = Path(options["output"] or _beside(folder))
    if os.path.lexists(output):
        raise SettingError("output", f"={str(output)!r}: exists already; name another file.")
    if not output.parent.is_dir():
        raise SettingError("output", f"={str(output)!r}: cannot be written, because {output.parent} is not a folder.")
    if output.suffix not in ("", _SUFFIX):
        raise refuse("output", str(output), f"a name that ends in {_SUFFIX}, the format of the file")
    checkpoint = read_checkpoint(folder)
    weights = checkpoint.state["model"] if options["weights"] == "trained" else _averaged(checkpoint.state, folder)
    # A safetensors file cannot contain tied or strided tensors. Therefore, each tensor is copied to contiguous memory.
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
        f"Exported: {options['weights']} weights of {folder} ({why})\n"
        f"File: {output} ({len(tensors)} tensors, {num_values:,} values, {output.stat().st_size:,} bytes)\n"
        f"weights_sha256: {weights_digest(tensors)}\n"
        f"{_copy_configuration(folder, output)}"
        f"Load it in Python: safetensors.torch.load_file({str(output)!r})"
    )
    return 0


def _beside(folder: Path) -> Path:
    parent = folder.parent.parent if folder.parent.name == "checkpoints" else folder.parent
    return parent / f"{folder.name}{_SUFFIX}"


def _copy_configuration(folder: Path, output: Path) -> str:
    """Copy ``config.yaml`` of the run to a file next to ``output``.

    Returns:
        A line with the path of the copy; an empty text if the file was not copied.
    """
    config = _beside(folder).parent / "config.yaml"
    copy = output.with_suffix(".yaml")
    if config.is_symlink() or not config.is_file() or os.path.lexists(copy):
        return ""
    shutil.copyfile(config, copy)
    return f"Configuration: {copy}\n"


def _averaged(state: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the weights of the model, with averaged parameters instead of trained parameters."""
    for callback in state.get("callbacks", {}).values():
        if isinstance(callback, dict) and isinstance(callback.get(AVERAGED_WEIGHTS), dict):
            return {**state["model"], **callback[AVERAGED_WEIGHTS]}
    raise CheckpointError(f"{folder}: contains no averaged weights; use weights=trained.")
