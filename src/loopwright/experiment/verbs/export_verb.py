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
    """Write the weights of a checkpoint of a run to a file. No model is built.

    The checkpoint is the best of the run, or the newest if no best is known. The option ``ckpt_path`` chooses another
    one: a path, ``best`` or ``last``. The recorded configuration of the run, if there is one, is copied beside the
    file, under its name with the ending ``.yaml``.

    The option ``output=FILE`` names the file. The default is ``step_….safetensors`` in the run directory, or next to a
    checkpoint that is not in a run directory. The option ``weights=averaged`` selects the weights that an
    `ExponentialMovingAverage` has averaged.

    Raises:
        SettingError: for an unknown option or a wrong value, if the file already exists or cannot be written, or
            if its name ends like the name of a file in another format, such as ``.pt``.
        CheckpointError: if there is no valid checkpoint, if averaged weights are requested but the checkpoint contains
            none, or if the weights contain a tensor of dtype complex128.
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
    # A safetensors file cannot contain tied or strided tensors, so each tensor is copied in contiguous form.
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
    """Copy the recorded configuration of the run beside the file. Return a line with its path, or an empty text."""
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
