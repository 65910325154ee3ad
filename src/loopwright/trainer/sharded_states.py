"""Functions that save and read checkpoints of a run in which each process stores only some rows of each tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from loopwright.checkpoint import (
    Checkpoint,
    FileRecord,
    HostCopies,
    Sharing,
    begin_shards,
    commit_shards,
    pack_shard,
    plain_names,
    plain_parameters,
    read_checkpoint,
    remove_checkpoint,
    write_shard,
)
from loopwright.engine.gathering import gather_values
from loopwright.engine.parts import Parts
from loopwright.errors import SaveError
from loopwright.protocols import Ranks, Strategy
from loopwright.sharded_tensors import is_sharded, row_range
from loopwright.trainer.first_process import SHARED_ERRORS, build_error, in_every_process, in_first_process, spell_error

_MALFORMED = (LookupError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True, slots=True)
class ShardSave:
    """The files of this process for a checkpoint.

    Attributes:
        folder: path of the checkpoint.
        temporary: folder into which every process writes its files.
        write: function that writes the files of this process, and returns their records or an error as JSON values.
    """

    folder: Path
    temporary: Path
    write: Callable[[], dict[str, Any]]


def collect_shard(
    ranks: Ranks, folder: Path, temporary: Path, state: Mapping[str, Any], copies: HostCopies | None = None
) -> ShardSave:
    """Collect the contents of the files of this process. Nothing is written, and no error is raised.

    Args:
        ranks: processes that train together.
        folder: path of the checkpoint.
        temporary: folder into which every process writes its files.
        state: contents of the checkpoint.
        copies: object that copies the tensors, for a save in the background; None: they are not copied.
    """
    try:
        contents, digest = pack_shard(state, ranks.rank, ranks.world_size, copies)
    except SHARED_ERRORS as error:
        failure = {"error": spell_error(error)}
        return ShardSave(folder, temporary, lambda: failure)

    def write() -> dict[str, Any]:
        try:
            records = write_shard(folder, temporary, contents, reads_back=copies is not None)
        except SHARED_ERRORS as error:
            return {"error": spell_error(error)}
        return {"digest": digest, "files": {name: asdict(record) for name, record in records.items()}}

    return ShardSave(folder, temporary, write)


def gather_records(ranks: Ranks, save: ShardSave, answer: Mapping[str, Any]) -> dict[str, FileRecord]:
    """Return the records of the files of all processes. Every process calls this function after its write has ended.

    Args:
        ranks: processes that train together.
        save: the save.
        answer: what the write of this process returned.

    Raises:
        SaveError, SettingError: in every process, if the write of a process failed. The temporary folder was removed.
    """
    answers = gather_values(ranks, answer)
    failed = next((each["error"] for each in answers if "error" in each), None)
    if failed is None and len({each["digest"] for each in answers}) > 1:
        problem = "the processes have different names or shapes of sharded tensors"
        failed = spell_error(SaveError(f"{save.folder}: not saved: {problem}"))
    if failed is not None:
        in_first_process(ranks, lambda: _remove(save.temporary))
        raise build_error(*failed)
    return {name: FileRecord(**record) for each in answers for name, record in each["files"].items()}


def save_shards(ranks: Ranks, folder: Path, state: Mapping[str, Any], step: int) -> None:
    """Save a state as the checkpoint ``folder``. Every process must call this function.

    Raises:
        SaveError, SettingError: in every process, if the checkpoint cannot be written.
    """
    temporary = Path(in_first_process(ranks, lambda: str(begin_shards(folder))))
    save = collect_shard(ranks, folder, temporary, state)
    records = gather_records(ranks, save, save.write())
    commit = {"step": step, "world_size": ranks.world_size}
    in_first_process(ranks, lambda: commit_shards(folder, temporary, records, **commit))


def read_for(parts: Parts, folder: Path, *, weights_only: bool) -> Checkpoint:
    """Read a checkpoint. If the model is sharded, the tensors of the model and of its optimizer are sharded, too.

    Every process must call this function.

    Raises:
        CheckpointError: if the checkpoint cannot be read; in every process of a sharded run.
    """
    strategy = parts.strategy
    if not strategy.is_sharded:
        return read_checkpoint(folder, weights_only=weights_only)
    ranks = strategy.ranks
    sharing = Sharing(rank=ranks.rank, world_size=ranks.world_size, join=strategy.join)
    checkpoint = in_every_process(ranks, lambda: read_checkpoint(folder, weights_only=weights_only, sharing=sharing))
    if checkpoint.manifest.shards is None:
        _cut_state(parts, checkpoint.state)
    return checkpoint


def _cut_state(parts: Parts, state: dict[str, Any]) -> None:
    """Shard the tensors of a checkpoint that was saved with whole tensors.

    These are the weights, the optimizer states of the shape of their parameter, and the tensors in the state of a
    callback with the name and the shape of a parameter. Malformed entries are left as they are, because the checks of a
    resume refuse them.
    """
    strategy = parts.strategy
    own = {name: each for name, each in plain_names(parts.model).items() if is_sharded(each)}
    _cut_named(strategy, own, state["model"])
    if isinstance(state.get("callbacks"), dict):
        _cut_named(strategy, own, state["callbacks"])
    try:
        names = [name for group in state["parameters"] for name in group]
        indices = [index for group in state["optimizer"]["param_groups"] for index in group["params"]]
        parameters = plain_parameters(parts.model)
        for name, index in zip(names, indices, strict=True):
            values = state["optimizer"]["state"].get(index, {})
            for key, value in values.items():
                values[key] = _cut_like(strategy, parameters.get(name), value)
    except _MALFORMED:
        return


def _cut_named(strategy: Strategy, own: Mapping[str, Any], tree: dict[Any, Any]) -> None:
    """Shard the tensors in nested mappings that have the name and the shape of a sharded tensor of the model."""
    for key, value in tree.items():
        if isinstance(value, dict):
            _cut_named(strategy, own, value)
        elif isinstance(key, str) and key in own:
            tree[key] = _cut_like(strategy, own[key], value)


def _cut_like(strategy: Strategy, own: object, value: Any) -> Any:
    if not isinstance(own, Tensor) or not is_sharded(own) or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    rows = row_range(value.shape[0], strategy.ranks.rank, strategy.ranks.world_size)
    return strategy.join(value[rows.start : rows.stop].clone(), value.shape)


def _remove(temporary: Path) -> None:
    try:
        remove_checkpoint(temporary)
    except OSError as error:
        raise SaveError(f"{temporary}: cannot be removed: {error.strerror}") from error
