"""Functions that save and restore the states that differ between processes that train together.

These are the random streams, the sums of the training metrics since the last log step, the number of parts in which a
micro-batch is computed, and the state of a dataloader that reads other data in each process. The states of process 0
are where a run in one process has them. The states of the other processes are in the entry ``ranks`` of a checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from loopwright.checkpoint import from_bytes, to_bytes
from loopwright.engine.parts import Parts
from loopwright.engine.state_check import COUNT, NUM_PARTS, check_form
from loopwright.engine.train_mean import add_sums
from loopwright.errors import CheckpointError
from loopwright.seeding import derive

_log = logging.getLogger("loopwright")


def gather_rank_states(parts: Parts) -> dict[str, Any]:
    """Return the entry ``ranks`` of a checkpoint, in a mapping; an empty mapping if there is one process.

    Every process must call this function, and gets the same result.
    """
    ranks = parts.strategy.ranks
    if ranks.world_size == 1:
        return {}
    own = {
        "streams": parts.streams.state_dict(),
        "train_sums": parts.log.train_sums.state_dict(),
        "data": None if parts.data is None else parts.data.state_dict(),
        "num_parts": parts.state.num_parts,
    }
    gathered = ranks.gather_bytes(to_bytes(own))
    return {"ranks": {"others": [from_bytes(each) for each in gathered[1:]]}}


def check_rank_states(parts: Parts, saved: Mapping[str, Any]) -> None:
    """Refuse the entry ``ranks`` of a checkpoint if this run cannot resume from it.

    Raises:
        CheckpointError: if a value is not accepted, or if a dataloader had a state in another number of processes.
    """
    if "ranks" not in saved:
        if saved.get("data") is not None and parts.strategy.ranks.world_size > 1:
            raise _other_dataloaders(1, parts.strategy.ranks.world_size)
        return
    check_form({"ranks": {"others": list}}, saved)
    others = saved["ranks"]["others"]
    world_size = parts.strategy.ranks.world_size
    form = {
        "streams": parts.streams.state_dict() | {"seed": COUNT},
        "train_sums": dict,
        "data": None,
        "num_parts": NUM_PARTS,
    }
    for index, other in enumerate(others):
        try:
            check_form({"other": dict}, {"other": other})
            check_form(form, other)
        except CheckpointError as error:
            raise CheckpointError(f"ranks.others[{index}].{error}") from error
        if other["data"] is not None and len(others) + 1 != world_size:
            raise _other_dataloaders(len(others) + 1, world_size)


def restore_rank_state(parts: Parts, saved: Mapping[str, Any], step: int) -> None:
    """Restore the states of this process. The states of process 0 must have been restored in every process.

    If the number of processes has changed, a process without a saved state begins with streams that are derived from
    the seed and the step, and process 0 gets the sums of the processes that no longer exist.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
        saved: state of the checkpoint.
        step: step of the checkpoint.
    """
    ranks, sums = parts.strategy.ranks, parts.log.train_sums
    others = saved["ranks"]["others"] if "ranks" in saved else []
    if ranks.world_size != len(others) + 1:
        parts.state.num_parts = max([parts.state.num_parts, *(each["num_parts"] for each in others)])
    if ranks.rank:
        sums.clear()
        if ranks.rank <= len(others):
            own = others[ranks.rank - 1]
            parts.streams.load_state_dict(own["streams"])
            sums.load_state_dict(own["train_sums"])
            if ranks.world_size == len(others) + 1:
                parts.state.num_parts = own["num_parts"]
            if own["data"] is not None and parts.data is not None:
                parts.data.load_state_dict(own["data"])
        else:
            parts.streams.reseed(derive(parts.streams.seed, "rank", ranks.rank, step))
    else:
        gone = [each["train_sums"] for each in others[ranks.world_size - 1 :]]
        if gone:
            sums.load_state_dict(add_sums([sums.state_dict(), *gone]))
    if ranks.world_size != len(others) + 1:
        _log.warning(
            "The checkpoint of step %d was saved by %d process%s, and %d resume%s: random numbers differ from a run "
            "that keeps the number of processes.",
            step,
            len(others) + 1,
            "es" if others else "",
            ranks.world_size,
            "" if ranks.world_size > 1 else "s",
        )


def _other_dataloaders(saved: int, now: int) -> CheckpointError:
    return CheckpointError(
        f"the dataloader kept a state on each of {saved} ranks; expected {saved} processes, not {now}."
    )
