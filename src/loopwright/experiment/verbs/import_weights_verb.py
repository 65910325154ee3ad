"""``loopwright import-weights FILE``: what ``torch.save`` wrote, as a checkpoint that ``init_from`` takes."""

from __future__ import annotations

from pathlib import Path

from loopwright.checkpoint import read_torch_weights, weights_digest, write_checkpoint
from loopwright.errors import SettingError
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.options import read_options


def import_weights(line: CommandLine) -> int:
    """Read the weights of a file that ``torch.save`` wrote, running no code of it, and write them as a checkpoint.

    Options: ``output=DIR``, by default named after the file, in the current directory; ``key=NAME``, where in the file
    the weights are.

    Raises:
        SettingError: for other options, and a directory that is there already.
        CheckpointError: if the file holds anything but tensors, or it is not clear which are meant.
    """
    assert line.directory is not None
    file = Path(line.directory)
    options = read_options(line.overrides, {"output": None, "key": None})
    output = Path(options["output"] or f"{file.stem}_weights")
    if output.exists():
        raise SettingError("output", f"={str(output)!r}: is there already; name another directory.")
    weights = read_torch_weights(file, options["key"])
    write_checkpoint(output, {"model": weights}, step=0)
    num_values = sum(tensor.numel() for tensor in weights.values())
    tell(
        f"Imported: {len(weights)} tensors, {num_values:,} values, from {file}\n"
        f"weights_sha256: {weights_digest(weights)}\n"
        f"Train from them: loopwright init_from={output}"
    )
    return 0
