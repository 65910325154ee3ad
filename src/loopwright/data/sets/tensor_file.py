"""`tensor_file`: reads tensors from memory-mapped safetensors or npy files, which are never fully loaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from numpy.lib.format import open_memmap
from safetensors import SafetensorError, safe_open
from torch import Tensor

from loopwright.data.reading.loader import Loader
from loopwright.data.reading.rows import Rows
from loopwright.data.sets.held_out import Part, hold_out
from loopwright.data.sets.paths import find_file
from loopwright.data.sets.splits import Splits
from loopwright.data.sets.tensors import TensorData
from loopwright.errors import SettingError, on_one_line, refuse, refuse_type

# Path of a safetensors file, or paths of npy files by tensor name.
Files = str | Mapping[str, str]

_NUM_BYTES_HASHED = 2**20  # number of bytes that are hashed at each end of a file


class TensorFile:
    """Data set of tensors that stay on disk. Sample *i* is row *i* of each tensor.

    The files are memory-mapped: the operating system loads only the pages that are read. Each spawned worker process
    opens the files itself.

    Args:
        files: path of a ``.safetensors`` file with named tensors, or a mapping of names to paths of ``.npy`` files.
        setting: name of the setting that contains the paths, for messages.
        part: training rows or validation rows, to which the data set is limited; None: all rows.

    Raises:
        SettingError: for a missing file or a file of another format; for tensors that differ in their number of rows.
    """

    is_random: ClassVar[bool] = False

    def __init__(self, files: Files, setting: str = "path", part: Part | None = None) -> None:
        self._arguments = (files, setting, part)
        self._data = _open(setting, files)
        self._part = part

    def __reduce__(self) -> tuple[Callable[..., TensorFile], tuple[Any, ...]]:
        """Pickle only the arguments, because pickling the tensors would send copies to a spawned worker."""
        return type(self), self._arguments

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._data) if self._part is None else len(self._part)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one sample, whose tensors are views of the memory-mapped files.

        Raises:
            IndexError: for an index outside the set.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is outside a set of {len(self)} samples")
        (row,) = self._rows([index % len(self)])
        return self._data[row]

    def __getitems__(self, indices: list[int]) -> Rows:
        """Return the samples at ``indices`` as one batch, which is a copy."""
        return self._data.__getitems__(self._rows(indices))

    def _rows(self, indices: list[int]) -> list[int]:
        rows: list[int] = indices if self._part is None else self._part.rows(torch.tensor(indices)).tolist()
        return rows


def tensor_file(
    path: str | Mapping[str, str],
    batch_size: int = 32,
    num_workers: int = 0,
    val_path: str | Mapping[str, str] | None = None,
    val_fraction: float = 0.2,
) -> Splits:
    """Read tensors from files that may be larger than memory. Samples are along the first dimension of each tensor.

    A batch is a dict of tensors by name. Each tensor contains the rows of the samples in the stored dtype. Names and
    dtypes must match the inputs of the model, such as ``image`` in float32 and ``label`` in int64.

    A run records a hash over the size, the first MiB (which contains names, dtypes and shapes) and the last MiB of each
    file. If the rows take at most 256 MiB, the run also records a hash of all rows. The run can be resumed only if
    these hashes have not changed.

    Args:
        path: path of a ``.safetensors`` file with named tensors, or a mapping of names to paths of ``.npy`` files.
        batch_size: number of rows in a micro-batch, and in a validation batch.
        num_workers: number of dataloader worker processes; 0: the main process reads.
        val_path: files with validation rows, in the same form as ``path``. None: rows of ``path`` are held out.
        val_fraction: fraction of the rows held out for validation, at regular intervals (0.2: every fifth row); ignored
            if ``val_path`` is given.

    Raises:
        SettingError: for a missing file or a file of another format; for tensors that are empty or differ in their
            number of rows; for validation tensors with other names, shapes or dtypes.
    """
    train = TensorFile(path)
    hashes = {"ends_sha256": _hash_ends("path", path)}
    if val_path is None:
        train_part, val_part = hold_out(len(train), val_fraction)
        train, val = TensorFile(path, "path", train_part), TensorFile(path, "path", val_part)
    else:
        val = TensorFile(val_path, "val_path")
        _check_alike(train, val)
        hashes["val_ends_sha256"] = _hash_ends("val_path", val_path)
    return Splits(
        train=Loader(train, batch_size=batch_size, shuffle=True, num_workers=num_workers),
        val=Loader(val, batch_size=batch_size, num_workers=num_workers),
        facts=hashes,
        encoding={"data": "tensor_file", "tensors": _layout(train)},
    )


def _layout(rows: TensorFile) -> dict[str, dict[str, Any]]:
    """Return the shape and the dtype of one row of each tensor, by name."""
    return {
        name: {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        for name, value in rows[0].items()
    }


def _open(setting: str, files: Files) -> TensorData:
    if isinstance(files, str):
        tensors = _open_safetensors(setting, files)
        where = f"={files!r}"
    elif isinstance(files, Mapping):
        tensors = {str(name): _open_npy(f"{setting}.{name}", file) for name, file in files.items()}
        where = ""
    else:
        raise refuse_type(setting, files, "a .safetensors file, or a mapping of names to .npy files")
    if not tensors:
        raise SettingError(setting, f"{where}: contains no tensors; expected at least one.")
    lengths = {name: len(tensor) if tensor.ndim else None for name, tensor in tensors.items()}
    if None in lengths.values() or len(set(lengths.values())) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise SettingError(
            setting, f"{where}: has tensors of the shapes {shapes}; expected the same number of rows in each."
        )
    if not next(iter(lengths.values())):
        raise SettingError(setting, f"{where}: has no rows; expected at least one.")
    return TensorData(tensors)


def _open_safetensors(setting: str, given: str) -> dict[str, Tensor]:
    file = find_file(setting, given)
    if file.suffix != ".safetensors":
        raise refuse(setting, given, "a .safetensors file", "for npy files write {image: a.npy, label: b.npy}")
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as error:
        raise _unreadable(setting, given, "a safetensors file", error) from None


def _open_npy(setting: str, given: str) -> Tensor:
    file = find_file(setting, given)
    if file.suffix != ".npy":
        raise refuse(setting, given, "an .npy file", "give a .safetensors file alone, without a name")
    try:
        # Copy-on-write mode avoids torch's warning about read-only arrays. The array is never written to.
        return torch.from_numpy(open_memmap(file, mode="c"))
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise _unreadable(setting, given, "an npy file of numbers", error) from None


def _unreadable(setting: str, given: str, what: str, error: Exception) -> SettingError:
    why = on_one_line(str(error)).rstrip(".")
    return SettingError(setting, f"={given!r}: cannot be read as {what}: {why}.")


def _hash_ends(setting: str, files: Files) -> str:
    """Return the SHA-256 of the size and both ends of each file. Hashing whole files may take as long as a pass."""
    digest = hashlib.sha256()
    for name, given in [("", files)] if isinstance(files, str) else sorted(files.items()):
        with find_file(setting, given).open("rb") as content:
            size = content.seek(0, os.SEEK_END)
            digest.update(f"{name}\0{size}\n".encode())
            for start in (0, max(0, size - _NUM_BYTES_HASHED)):
                content.seek(start)
                digest.update(content.read(_NUM_BYTES_HASHED))
    return digest.hexdigest()


def _check_alike(train: TensorFile, val: TensorFile) -> None:
    """Refuse validation tensors whose names, row shapes or dtypes differ from the training tensors."""
    kinds = [{name: (tuple(value.shape), value.dtype) for name, value in part[0].items()} for part in (train, val)]
    if kinds[0] != kinds[1]:
        texts = [", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in kind.items()) for kind in kinds]
        raise SettingError("val_path", f": its rows are {texts[1]}; expected the same as in path: {texts[0]}.")
