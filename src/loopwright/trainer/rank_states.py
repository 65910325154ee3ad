"""Functions that save and restore the state of each process of a run.

The state contains the random streams, the sums of the training metrics since the last log step, the number of parts
into which a micro-batch is split, the state of a dataloader that yields different data in each process, and the states
of callbacks that are a `HasStatePerProcess`. A checkpoint contains the state of process 0 in the same entries as a
checkpoint of a run in one process. The entry ``ranks`` contains the states of the other processes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from loopwright.checkpoint import from_bytes, to_bytes
from loopwright.engine.parts import Parts
from loopwright.engine.state import stateful_callbacks
from loopwright.engine.state_check import COUNT, NUM_PARTS, check_form
from loopwright.engine.train_mean import add_sums
from loopwright.errors import CheckpointError
from loopwright.hooks import Callback, HasStatePerProcess
from loopwright.seeding import derive

_log = logging.getLogger("loopwright")


def gather_rank_states(parts: Parts) -> dict[str, Any]:
    """Return a mapping with the entry ``ranks`` of a checkpoint; an empty mapping if there is one process.

    Every process must call this function. The results are equal in all processes.
    """
    ranks = parts.strategy.ranks
    if ranks.world_size == 1:
        return {}
    own = {
        "streams": parts.streams.state_dict(),
        "train_sums": parts.log.train_sums.state_dict(),
        "data": None if parts.data is None else parts.data.state_dict(),
        "num_parts": parts.state.num_parts,
        "callbacks": {name: callback.state_dict() for name, callback in _own_callbacks(parts).items()},
    }
    gathered = ranks.gather_bytes(to_bytes(own))
    return {"ranks": {"others": [from_bytes(each) for each in gathered[1:]]}}


def check_rank_states(parts: Parts, saved: Mapping[str, Any]) -> None:
    """Refuse the entry ``ranks`` of a checkpoint if this run cannot resume from it.

    Raises:
        CheckpointError: if a value is invalid, or if dataloaders of another number of processes have saved states.
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
        "callbacks": dict,
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
    """Restore the state of this process. Every process must already have restored the state of process 0.

    A process without a saved state gets new random streams, which are derived from the seed, the rank and ``step``. If
    there are more saved states than processes, the metric sums of the surplus states are added to process 0.

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
            for name, callback in _own_callbacks(parts).items():
                if name in own["callbacks"]:
                    callback.load_state_dict(own["callbacks"][name])
        else:
            for callback in _own_callbacks(parts).values():
                assert isinstance(callback, HasStatePerProcess)
                callback.forget_state()
            parts.streams.reseed(derive(parts.streams.seed, "rank", ranks.rank, step))
    else:
        gone = [each["train_sums"] for each in others[ranks.world_size - 1 :]]
        if gone:
            sums.load_state_dict(add_sums([sums.state_dict(), *gone]))
    if ranks.world_size != len(others) + 1:
        _log.warning(
            "The checkpoint of step %d was saved by %d process%s, and the run resumes with %d process%s: random "
            "numbers differ from a run with a constant number of processes.",
            step,
            len(others) + 1,
            "es" if others else "",
            ranks.world_size,
            "es" if ranks.world_size > 1 else "",
        )


def _own_callbacks(parts: Parts) -> dict[str, Callback]:
    """Return the callbacks whose state differs between processes, by name."""
    stateful = stateful_callbacks(parts.callbacks)
    return {name: callback for name, callback in stateful.items() if isinstance(callback, HasStatePerProcess)}


def _other_dataloaders(saved: int, now: int) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint contains dataloader states for a world size of {saved}; expected {saved} processes, not {now}."
    )
