"""From a resolved configuration to objects, and from objects to a `Trainer`: the one place where they meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from loopwright.checkpoint import Checkpointing
from loopwright.data import Loader, Splits, hash_content
from loopwright.device import Device
from loopwright.errors import SettingError, refuse_type
from loopwright.experiment.gate.instantiate import factory, instantiate
from loopwright.experiment.gate.tree import PARTIAL, TARGET, is_target
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.settings import JobSettings
from loopwright.hooks import Callback
from loopwright.loop import LoopCallback
from loopwright.precision import Precision
from loopwright.seeding import RandomStreams, derive
from loopwright.trainer import Trainer
from loopwright.trainer.dataloaders import name_dataloaders

Config = Mapping[str, Any]


def build_trainer(
    config: Config,
    settings: JobSettings,
    trust: Trust,
    run_dir: Path | None,
    callbacks: Mapping[str, Callback] | None = None,
) -> Trainer:
    """Build the trainer that a configuration describes.

    Args:
        config: resolved, and checked by `loopwright.experiment.jobs.check`.
        settings: its plain values.
        trust: what the user trusts.
        run_dir: where the run leaves its files; None: nothing is saved and no logger is built.
        callbacks: further callbacks, by name.
    """
    return Trainer(
        model=cast(
            Callable[[], nn.Module], factory(config["model"], trust, "model")
        ),  # the trainer checks what it makes
        optimizer=build_optimizer(config["optimizer"], trust),
        schedulers=build_schedulers(config.get("scheduler"), trust),
        loop=build_loop(config["loop"], trust),
        device=build_device(config["device"], trust),
        precision=build_precision(config.get("precision"), trust),
        checkpoint=None if run_dir is None else build_checkpointing(config.get("checkpoint"), trust),
        callbacks={**build_callbacks(config, "callbacks", trust), **(callbacks or {})},
        loggers={} if run_dir is None else build_callbacks(config, "loggers", trust),
        log_every_n_steps=settings.log_every_n_steps,
        seed=settings.seed,
        run_dir=run_dir,
    )


def build_data(node: Any, trust: Trust) -> Splits:
    """The dataloaders to train on and to validate."""
    splits = instantiate(node, trust, "data")
    if not isinstance(splits, Splits):
        raise refuse_type("data", type(splits).__name__, "a target that returns loopwright.data.Splits(train, val)")
    return splits


def build_run_data(config: Config, trust: Trust, seed: int) -> Splits:
    """The dataloaders of a run: what building them draws depends on its seed alone, and disturbs no other stream."""
    with RandomStreams(derive(seed, "build data")).active():
        return build_data(config["data"], trust)


def facts_of(data: Splits) -> dict[str, str | int]:
    """What a data set says of itself, and the hash of each dataloader's content where there is one.

    Raises:
        DataError: for an image that cannot be read.
    """
    loaders = {"train": data.train, **name_dataloaders(data.val)}
    hashes = {name: hash_content(each.dataset) for name, each in loaders.items() if isinstance(each, Loader)}
    return {**{f"{name}_content_sha256": digest for name, digest in hashes.items() if digest}, **data.facts}


def build_loop(node: Any, trust: Trust) -> LoopCallback:
    """What a run does: a `TrainingLoop` trains, a `ValidationLoop` validates."""
    loop = instantiate(node, trust, "loop")
    if not isinstance(loop, LoopCallback):
        raise refuse_type("loop", type(loop).__name__, "a TrainingLoop or a ValidationLoop")
    return loop


def build_device(node: Any, trust: Trust) -> Device:
    """Where a run computes."""
    device = instantiate(node, trust, "device")
    if not isinstance(device, Device):
        raise refuse_type("device", type(device).__name__, "a loopwright.device.Device")
    return device


def build_precision(node: Any, trust: Trust) -> Precision:
    """The type that a run computes in; without a section that of `Precision`'s defaults."""
    if node is None:
        return Precision()
    precision = instantiate(node, trust, "precision")
    if not isinstance(precision, Precision):
        raise refuse_type("precision", type(precision).__name__, "a loopwright.Precision")
    return precision


def build_checkpointing(node: Any, trust: Trust) -> Checkpointing | None:
    """When checkpoints are saved; None: never."""
    if node is None:
        return None
    checkpointing = instantiate(node, trust, "checkpoint")
    if not isinstance(checkpointing, Checkpointing):
        raise refuse_type("checkpoint", type(checkpointing).__name__, "a loopwright.Checkpointing, or null")
    return checkpointing


def build_optimizer(node: Any, trust: Trust) -> Any:
    """A callable that makes the optimizer of given parameters."""
    _check_partial(node, "optimizer", "the trainer gives an optimizer its parameters")
    return instantiate(node, trust, "optimizer")


def build_schedulers(node: Any, trust: Trust) -> list[Any]:
    """Callables that make the schedulers of a given optimizer; with ``{scheduler, monitor}`` where one needs a metric.

    The section is one scheduler, a list of them, or null.
    """
    if node is None:
        return []
    if not isinstance(node, list):
        return [_build_scheduler(node, trust, "scheduler")]
    return [_build_scheduler(entry, trust, f"scheduler[{i}]") for i, entry in enumerate(node)]


def build_callbacks(config: Config, section: str, trust: Trust) -> dict[str, Any]:
    """The callbacks (or loggers) of a section, by name; names that are null are left out."""
    node = config.get(section)
    if node is None:
        return {}
    if not isinstance(node, dict) or TARGET in node:
        raise refuse_type(section, type(node).__name__, "a mapping of names to callbacks, or null")
    built = {}
    for name, entry in node.items():
        if entry is None:
            continue
        callback = instantiate(entry, trust, f"{section}.{name}")
        if not isinstance(callback, Callback):
            raise refuse_type(f"{section}.{name}", type(callback).__name__, "a loopwright.Callback, or null")
        built[str(name)] = callback
    return built


def _build_scheduler(node: Any, trust: Trust, path: str) -> Any:
    remedy = "the trainer gives a scheduler its optimizer"
    if isinstance(node, dict) and TARGET not in node:
        if node.keys() != {"scheduler", "monitor"}:
            raise SettingError(path, ": expected a _target_, or the two keys scheduler and monitor.")
        if not isinstance(node["monitor"], str):
            raise refuse_type(f"{path}.monitor", node["monitor"], "the name of a metric, such as val/loss")
        _check_partial(node["scheduler"], f"{path}.scheduler", remedy)
        return {"scheduler": instantiate(node["scheduler"], trust, f"{path}.scheduler"), "monitor": node["monitor"]}
    _check_partial(node, path, remedy)
    return instantiate(node, trust, path)


def _check_partial(node: Any, path: str, reason: str) -> None:
    if not is_target(node):
        raise SettingError(path, ": expected a mapping with a _target_.")
    if node.get(PARTIAL) is not True:
        raise SettingError(f"{path}.{PARTIAL}", f": expected true; {reason}.")
