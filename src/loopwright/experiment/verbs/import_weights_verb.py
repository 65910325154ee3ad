"""The command ``loopwright import-weights FILE``, which converts a ``torch.save`` file to a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

from loopwright.checkpoint import read_torch_weights, weights_digest, write_checkpoint
from loopwright.errors import SettingError
from loopwright.experiment.compose.overrides import override_text
from loopwright.experiment.console.command_line import CommandLine, shell_line
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.options import read_options


def import_weights(line: CommandLine) -> int:
    """Convert the weights in a ``torch.save`` file to a checkpoint for ``init_from``. No code in the file is run.

    - The option ``output=DIR`` names the directory of the checkpoint. For a file ``NAME.pt``, the default is
      ``NAME_weights`` in the current directory.
    - The option ``key=NAME`` names the entry of the file that contains the weights.

    Raises:
        SettingError: for an unknown option, and if the directory already exists.
        CheckpointError: if the file cannot be read, or contains objects other than tensors and plain containers. The
            error is also raised if no entry or several entries of the file can be the weights.
    """
    assert line.directory is not None
    file = Path(line.directory)
    options = read_options(line.overrides, {"output": None, "key": None})
    output = Path(options["output"] or f"{file.stem}_weights")
    if os.path.lexists(output):
        raise SettingError("output", f"={str(output)!r}: exists already; name another directory.")
    weights = read_torch_weights(file, options["key"])
    write_checkpoint(output, {"model": weights}, step=0)
    num_values = sum(tensor.numel() for tensor in weights.values())
    tell(
        f"Imported: {len(weights)} tensors, {num_values:,} values, from {file}\n"
        f"weights_sha256: {weights_digest(weights)}\n"
        f"Train from them: {shell_line(['loopwright', override_text('init_from', str(output))])}"
    )
    return 0
