"""`load_model`, which returns the model of a run with the weights of one of its checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from loopwright.checkpoint import (
    Checkpoint,
    choose,
    in_dtypes_of,
    load_weights,
    plain_names,
    read_checkpoint,
    unsaved_buffers,
)
from loopwright.device import open_device
from loopwright.errors import CheckpointError, SettingError, refuse, refuse_type
from loopwright.experiment.gate.instantiate import instantiate
from loopwright.experiment.gate.references import expand_recorded
from loopwright.experiment.gate.targets import check_targets
from loopwright.experiment.gate.trust import read_trust
from loopwright.experiment.jobs.recorded import read_recorded
from loopwright.experiment.jobs.recorded_data import located, started_in
from loopwright.records import read_summary
from loopwright.run_state import AVERAGED_WEIGHTS
from loopwright.seeding import RandomStreams

Weights = Literal["validated", "trained"]
_log = logging.getLogger("loopwright")


def load_model(
    path: str | Path,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    trust: str | Sequence[str] = (),
    device: str = "cpu",
    weights: Weights = "validated",
    allow_env: str | Sequence[str] = (),
) -> nn.Module:
    """Return the model of a run in evaluation mode, with the weights of a checkpoint.

    The model is built from the recorded configuration of the run. A run directory may come from an untrusted source, so
    its configuration can name only classes of Loopwright, of torch and of the packages in ``trust``.

    Args:
        path: checkpoint or run directory. For a run directory, the best checkpoint is loaded; if no best checkpoint is
            known, the newest checkpoint is loaded. ``DIR/best`` and ``DIR/last`` choose the best or newest checkpoint.
        model: model, or callable that returns a model, to use instead of the recorded model. This argument is required
            for a run made in Python, because such a run has no ``config.yaml``.
        trust: name of a package, or names of packages, whose classes the recorded configuration may name.
        device: device of the model, such as "cpu", "gpu" or "auto".
        weights: "validated": the weights that a validation of the checkpoint uses, such as the average of
            `ExponentialMovingAverage`; "trained": the trained weights.
        allow_env: name of an environment variable, or names of variables, that the recorded model may read.

    Raises:
        SettingError: for a wrong argument, for a missing ``model``, and for a recorded class that is not trusted.
        CheckpointError: if there is no valid checkpoint, or if its weights do not fit the model.
    """
    if weights not in ("validated", "trained"):
        raise refuse("weights", weights, "validated or trained")
    folder, reason = choose(path, prefers_best=True)
    _log.info("%s (%s)", folder, reason)
    given = [(each,) if isinstance(each, str) else tuple(each) for each in (trust, allow_env)]
    built = _build(folder, model, *given)
    checkpoint = read_checkpoint(folder)
    try:
        # A run with precision ``bf16_pure`` saves bfloat16 tensors.
        tensors = in_dtypes_of(plain_names(built), _weights_of(checkpoint, weights))
        load_weights(built, tensors, _buffers_of(checkpoint, built))
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    return built.to(open_device(device).torch_device).eval()


def _build(
    folder: Path, model: nn.Module | Callable[[], nn.Module] | None, trust: Sequence[str], allow_env: Sequence[str]
) -> nn.Module:
    with RandomStreams(0).active():  # initial weights must not use the caller's random numbers
        if model is not None:
            built: object = model if isinstance(model, nn.Module) else model()
        else:
            built = _build_recorded(folder, trust, allow_env)
    if not isinstance(built, nn.Module):
        raise refuse_type("model", built, "a torch.nn.Module, or a callable that returns one")
    return built


def _build_recorded(folder: Path, trust: Sequence[str], allow_env: Sequence[str]) -> object:
    run_dir = folder.absolute().parent.parent
    if not (run_dir / "config.yaml").is_file():
        problem = f"must be given, because {folder} has no config.yaml; a run made in Python records no configuration"
        raise SettingError("model", f": {problem}.")
    trusted = read_trust(trust, Path.cwd(), allow_env)
    config, _ = expand_recorded({"model": read_recorded(run_dir).get("model")}, trusted.variables)
    check_targets(config, trusted)
    moved = located(config, started_in(read_summary(run_dir)))
    return instantiate(moved["model"], trusted, "model")


def _weights_of(checkpoint: Checkpoint, weights: Weights) -> dict[str, Any]:
    """Return the trained weights. With "validated", replace each weight by its average if a callback averaged it."""
    found = dict(checkpoint.state["model"])
    callbacks = checkpoint.state.get("callbacks", {})
    for state in callbacks.values() if weights == "validated" and isinstance(callbacks, Mapping) else ():
        average = state.get(AVERAGED_WEIGHTS) if isinstance(state, Mapping) else None
        found |= average if isinstance(average, Mapping) else {}
    return found


def _buffers_of(checkpoint: Checkpoint, model: nn.Module) -> dict[str, Any] | None:
    """Return the saved non-persistent buffers, or None if the buffers of the model have other names."""
    saved = checkpoint.state.get("buffers")
    return saved if isinstance(saved, dict) and saved.keys() == unsaved_buffers(model).keys() else None
