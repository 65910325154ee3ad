"""Functions that check the arguments of `Trainer`, and build the model, the optimizer and the schedulers."""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import GeneratorType
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from loopwright.checkpoint import Checkpointing
from loopwright.errors import SettingError, SettingTypeError, refuse, refuse_type
from loopwright.loop import LoopCallback, TrainingLoop, ValidationLoop
from loopwright.plan import Plan
from loopwright.precision import Precision
from loopwright.protocols import Ranks, StatefulScheduler
from loopwright.seeding import draw_seed
from loopwright.trainer.scheduler_epochs import takes_steps_per_epoch

SchedulerSpec = tuple[Callable[..., Any], str | None]


def build_model(model: Any) -> nn.Module:
    """Return ``model`` if it is a module; otherwise the module that ``model()`` returns.

    Raises:
        SettingTypeError: if ``model`` is neither a module nor a callable that returns a module.
    """
    made = model if isinstance(model, nn.Module) else model() if callable(model) else None
    if not isinstance(made, nn.Module):
        raise refuse_type("model", model if made is None else made, "a torch module, or a callable that returns one")
    return made


def build_optimizer(optimizer: Any, model: nn.Module, *, is_given_model: bool) -> Optimizer | None:
    """Return the optimizer of the parameters of ``model``; None if ``optimizer`` is None.

    Args:
        optimizer: an optimizer, or a callable that takes the parameters and returns an optimizer. A callable with a
            parameter ``named_parameters`` is called with pairs of name and parameter.
        model: module that `build_model` returned.
        is_given_model: whether the user gave a module. If the user gave a callable instead, an optimizer object is
            refused, because the optimizer was built before the module and cannot have its parameters.

    Raises:
        SettingTypeError: if the optimizer has a wrong type, or has parameters that are not in the model.
        SettingError: if the callable raises a SettingError, or if the model has no parameters.
    """
    if optimizer is None:
        return None
    if isinstance(optimizer, Optimizer):
        _check_no_closure(optimizer)
        owned = {id(parameter) for parameter in model.parameters()}
        given = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not is_given_model or any(id(parameter) not in owned for parameter in given):
            raise SettingTypeError(
                "optimizer",
                f"={type(optimizer).__name__}(…): has parameters that are not in the model; expected a callable of "
                "the parameters (in a configuration: _partial_: true).",
            )
        return optimizer
    made = None
    if callable(optimizer):
        try:
            made = make_optimizer(optimizer, model)
        except AttributeError as error:
            if not isinstance(error.obj, GeneratorType):
                raise
            name = getattr(optimizer, "__name__", type(optimizer).__name__)
            problem = f"={name}: the callable gets model.parameters(), an iterator without {error.name!r}, and not the "
            remedy = "model; expected a callable such as lambda parameters: AdamW(parameters, lr=0.001)"
            raise SettingTypeError("optimizer", f"{problem}{remedy}.") from error
        except SettingError as error:
            raise error.under("optimizer") from error
        except ValueError as error:
            if next(model.parameters(), None) is None:  # torch's message does not name the model
                problem = f"={type(model).__name__}(…): expected parameters to be trained; it has none."
                raise SettingError("model", problem) from error
            raise
    if not isinstance(made, Optimizer):
        given_or_made = optimizer if made is None else made
        remedy = "in a configuration: _partial_: true"
        raise refuse_type("optimizer", given_or_made, "a callable of the parameters that makes an optimizer", remedy)
    _check_no_closure(made)
    return made


def _check_no_closure(optimizer: Optimizer) -> None:
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        name = type(optimizer).__name__
        raise SettingTypeError(
            "optimizer", f"={name}(…): {name}.step needs a closure; expected an optimizer that needs none."
        )


def make_optimizer(factory: Callable[..., Any], model: nn.Module) -> Any:
    """Call ``factory`` with ``model.named_parameters()`` if it takes ``named_parameters``; else with the parameters."""
    try:
        takes_names = "named_parameters" in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        takes_names = False  # `inspect` may find no signature of a function written in C
    return factory(named_parameters=model.named_parameters()) if takes_names else factory(model.parameters())


def read_schedulers(schedulers: Any) -> list[SchedulerSpec]:
    """Return a pair for each scheduler: the callable that builds the scheduler, and the monitored metric or None.

    Raises:
        SettingTypeError: if an entry is neither a callable nor a mapping with ``scheduler`` and ``monitor``.
    """
    if schedulers is None:
        return []
    specs: list[SchedulerSpec] = []
    for entry in schedulers if isinstance(schedulers, list | tuple) else [schedulers]:
        is_monitored = isinstance(entry, Mapping) and set(entry) == {"scheduler", "monitor"}
        factory, monitor = (entry["scheduler"], entry["monitor"]) if is_monitored else (entry, None)
        if not callable(factory) or not isinstance(monitor, str | None):
            expected = "callables of the optimizer, or mappings with scheduler and monitor"
            remedy = "in a configuration: _partial_: true"
            if isinstance(entry, Mapping) and "interval" in entry:
                remedy = "schedulers are stepped after each step; loopwright.optim accepts lengths such as '2 epochs'"
            raise refuse_type("schedulers", entry, expected, remedy)
        specs.append((factory, monitor))
    return specs


def check_monitored(specs: Sequence[SchedulerSpec], plan: Plan) -> None:
    """Refuse schedulers that monitor a metric if the plan has no validations.

    Raises:
        SettingError: if a scheduler monitors a metric, and the plan has steps but no validations. The message names the
            missing arguments.
    """
    if any(monitor is not None for _, monitor in specs) and plan.eval_every is None and plan.total_steps:
        raise SettingError(
            "schedulers",
            ": a scheduler has a monitor, but this fit has no validations; give val_dataloader and eval_frequency.",
        )


def build_scheduler(
    spec: SchedulerSpec, optimizer: Optimizer, total_steps: int, steps_per_epoch: int | None
) -> StatefulScheduler:
    """Build a scheduler.

    Args:
        spec: callable that builds the scheduler, and the monitored metric or None.
        optimizer: optimizer of the scheduler.
        total_steps: number of steps of the fit. The callable receives it if `takes_total_steps` returns True.
        steps_per_epoch: number of steps in an epoch; None: unknown. The callable receives a known number if
            `takes_steps_per_epoch` returns True.

    Raises:
        SettingTypeError: if the callable does not return a scheduler, or if the scheduler needs a metric and has no
            ``monitor``.
    """
    factory, monitor = spec
    told = {"total_steps": total_steps} if takes_total_steps(factory) else {}
    if steps_per_epoch is not None and takes_steps_per_epoch(factory):
        told["steps_per_epoch"] = steps_per_epoch
    scheduler = factory(optimizer, **told)
    if not hasattr(scheduler, "step"):
        raise refuse_type("schedulers", scheduler, "schedulers, which have a method step")
    if isinstance(scheduler, ReduceLROnPlateau) and monitor is None:
        raise SettingTypeError(
            "schedulers", '=ReduceLROnPlateau(…): expected {"scheduler": …, "monitor": metric}, as it needs a metric.'
        )
    made: StatefulScheduler = scheduler
    return made


def takes_total_steps(factory: Callable[..., Any]) -> bool:
    """Return whether a callable needs a value for its parameter ``total_steps``.

    A `functools.partial` needs no value if it sets ``total_steps`` or ``epochs`` to a value other than None.
    """
    bound = factory.keywords if isinstance(factory, functools.partial) else {}
    has_length = any(bound.get(name) is not None for name in ("total_steps", "epochs"))
    return not has_length and "total_steps" in inspect.signature(factory).parameters


def check_loop(loop: LoopCallback | None) -> LoopCallback:
    """Return ``loop``, or a `TrainingLoop` of one epoch if ``loop`` is None.

    Raises:
        SettingTypeError: if ``loop`` is not a loop.
    """
    if loop is None:
        return TrainingLoop(num_epochs=1)
    if not isinstance(loop, LoopCallback):
        raise refuse_type("loop", loop, "a TrainingLoop or a ValidationLoop")
    return loop


def check_checkpoint(checkpoint: Checkpointing | None, run_dir: str | Path | None) -> Checkpointing | None:
    """Return ``checkpoint`` after checking it.

    Raises:
        SettingError: if ``checkpoint`` is not a `Checkpointing`, or if it is given without ``run_dir``.
    """
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, Checkpointing):
        raise refuse_type("checkpoint", checkpoint, "a Checkpointing")
    if run_dir is None:
        raise SettingError("checkpoint", "=Checkpointing(…) without run_dir: expected run_dir, a folder to save to.")
    return checkpoint


def check_precision(precision: Precision | str | None) -> Precision:
    """Convert ``precision`` to a `Precision`. None gives float32 without clipping.

    Raises:
        SettingError: if ``precision`` is a string, but not the name of a dtype.
        SettingTypeError: if ``precision`` is neither a `Precision` nor a string.
    """
    if isinstance(precision, str):
        try:
            return Precision(precision)
        except SettingError as error:
            raise SettingError("precision", error.problem) from None
    if precision is not None and not isinstance(precision, Precision):
        raise refuse_type("precision", precision, "a Precision, or a dtype such as 'bf16'")
    return precision or Precision()


def check_seed(seed: int | None, ranks: Ranks) -> int:
    """Return ``seed`` as an int. If ``seed`` is None, return a random seed, which is the same in every process.

    Raises:
        SettingError: if the seed is not an integer in [0, 2**63).
    """
    if seed is None:
        return int(ranks.share_bytes(None if ranks.rank else str(draw_seed()).encode()))
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise refuse_type("seed", seed, "a whole number, 0 or more", "use null to draw one")
    if not 0 <= seed < 1 << 63:
        raise refuse("seed", seed, "a whole number in [0, 2**63)", "use null to draw one")
    return int(seed)


def training_loop(loop: LoopCallback) -> TrainingLoop:
    """Return ``loop`` if it is a `TrainingLoop`.

    Raises:
        SettingTypeError: if ``loop`` is not a `TrainingLoop`.
    """
    if not isinstance(loop, TrainingLoop):
        raise refuse_type("loop", loop, "a TrainingLoop for fit", "use validate with a ValidationLoop")
    return loop


def validation_loop(loop: LoopCallback | None, own: LoopCallback) -> ValidationLoop:
    """Return the loop of a validation.

    Args:
        loop: a `ValidationLoop`, or a `TrainingLoop` whose ``val_loop`` is used; None: use ``own``.
        own: loop of the trainer.

    Raises:
        SettingTypeError: if ``loop`` is not a loop.
        SettingError: if ``loop`` is a new `TrainingLoop` with a number of steps, but without ``eval_steps``. The user
            may expect that the number of steps limits the validation.
    """
    chosen = own if loop is None else loop
    if isinstance(chosen, TrainingLoop):
        num_steps = chosen.num_steps or chosen.max_steps
        if chosen is not own and num_steps is not None and chosen.eval_steps is None:
            remedy = f"use ValidationLoop(eval_steps={num_steps}), or ValidationLoop() for all batches"
            expected = "eval_steps, as the steps of a TrainingLoop do not limit a validation"
            raise SettingError("loop", f"={chosen!r}: expected {expected}; {remedy}.")
        return chosen.val_loop
    if not isinstance(chosen, ValidationLoop):
        raise refuse_type("loop", chosen, "a ValidationLoop or a TrainingLoop")
    return chosen
