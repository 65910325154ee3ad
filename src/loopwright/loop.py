"""`TrainingLoop` and `ValidationLoop`: settings for the length of training, and for validations.

`loopwright.plan.plan_fit` computes a plan from the settings of a loop and the lengths of the dataloaders.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from loopwright.errors import refuse, refuse_type
from loopwright.hooks import HOOKS, Callback
from loopwright.plan.training_settings import TrainingSettings, check_eval_steps

if TYPE_CHECKING:
    from torch import nn

_EVENTS = ("start", "end", "exception", "batch_start", "batch_end", "step_start", "step_end")


class LoopCallback(Callback):
    """Base class of `TrainingLoop` and `ValidationLoop`.

    A loop is also a callback. Its hooks are called before the hooks of all other callbacks. A subclass may implement
    any hook. A loop has no counters, because the trainer counts steps and micro-batches.

    The setting ``eval_frequency`` of a `TrainingLoop` is the interval between validations:

    - an integer n, 1 or more: after every n steps (1 means after every step);
    - a float f in (0, 1]: after every ceil(f x steps of this fit) steps (1.0 means once, at the end);
    - text such as ``"1 epoch"`` or ``"0.5 epochs"``: after every ceil(epochs x steps of an epoch) steps of this fit;
    - None, 0 or 0.0: never.

    The setting ``eval_steps`` of both loops is the number of batches that a validation reads from each dataloader;
    None: all batches. The docstrings of `TrainingLoop` and `ValidationLoop` describe all settings.

    Raises:
        TypeError: if `LoopCallback` itself is instantiated.
    """

    def __init__(self) -> None:
        if type(self) is LoopCallback:
            raise TypeError("LoopCallback: expected a subclass; use TrainingLoop(...) or ValidationLoop(...).")


@dataclass(frozen=True, slots=True, kw_only=True)
class _ValidationSettings:
    """The settings of a `ValidationLoop`, whose docstring describes them.

    Raises:
        SettingError: for a value that `ValidationLoop` does not accept.
    """

    eval_steps: int | None
    hook: str

    def __post_init__(self) -> None:
        """Check both values, and convert ``eval_steps`` to an int."""
        object.__setattr__(self, "eval_steps", check_eval_steps(self.eval_steps))
        _check_hook(self.hook)


class ValidationLoop(LoopCallback):
    """Validates a model on each dataloader from its beginning, in evaluation mode, without gradients.

    ::

        for each validation dataloader:
            on_x_start
            for batch in the first eval_steps batches of the dataloader:
                on_x_batch_start, on_x_step_start, outputs = model(batch), on_x_step_end, on_x_batch_end
            average the outputs of the model over all items, log the averages, on_x_end

    ``x`` in these names is the value of ``hook``. To extend a validation, write a subclass that implements hooks or
    overrides `predict`.

    Args:
        eval_steps: number of validation batches per dataloader, 1 or more. None: all batches. A dataloader of unknown
            length needs a number. If a dataloader has fewer batches, each of its batches is validated once, and one
            warning is logged.
        hook: word in the names of the hooks. ``on_<hook>_start``, ``_end``, ``_exception``, ``_batch_start``,
            ``_batch_end``, ``_step_start`` and ``_step_end`` are called instead of the ``on_validate_…`` hooks. The
            hook ``on_enter_validate`` keeps its name. Metrics are averaged in the same way for every word.

    Raises:
        ValueError: if a value is invalid. For a value of a wrong type, the error is also a TypeError. The message
            contains the given and the accepted values. A ``hook`` such as ``train`` or ``fit`` is also invalid, because
            the resulting names are names of other hooks.

    >>> ValidationLoop(100).eval_steps
    100
    >>> ValidationLoop(hook="cloze").hook_names["batch_end"]
    'on_cloze_batch_end'
    """

    def __init__(self, eval_steps: int | None = None, hook: str = "validate") -> None:
        super().__init__()
        self._settings = _ValidationSettings(eval_steps=eval_steps, hook=hook)

    def __repr__(self) -> str:
        """Return the name of the class and the settings that differ from their defaults."""
        return _show(self, ValidationLoop, self._settings)

    @property
    def eval_steps(self) -> int | None:
        """Number of validation batches per dataloader; None: all batches."""
        return self._settings.eval_steps

    @property
    def hook(self) -> str:
        """The word in the names of this loop's hooks."""
        return self._settings.hook

    @property
    def hook_names(self) -> Mapping[str, str]:
        """Names of the hooks by event: ``start``, ``end``, ``exception``, ``batch_start`` … ``step_end``."""
        return MappingProxyType(_name_hooks(self.hook))  # built here, because a MappingProxyType cannot be pickled

    def predict(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Call the model on a batch. Override this method to compute other outputs.

        Args:
            model: model in evaluation mode. Gradients are not computed.
            *args: positional arguments of the model: the batch, unless ``on_before_forward`` changed the arguments.
            **kwargs: keyword arguments that ``on_before_forward`` added.

        Returns:
            The loss, or a mapping of outputs. If this method is overridden, the mapping may lack ``loss``. The scalars
            in the mapping are averaged and logged.
        """
        return model(*args, **kwargs)


class TrainingLoop(LoopCallback):
    """Trains for a number of steps or epochs, and validates at intervals.

    A *step* is one optimizer update, computed from ``grad_accum_steps`` micro-batches. A *micro-batch* is one batch of
    the training dataloader. A *pass* reads the training dataloader once from beginning to end. ::

        validate before the first step, if eval_at_start is True
        while steps are left:
            train the steps up to the next save or validation:      # a stage of the plan
                for each step:
                    for each of its micro-batches: forward, backward
                    update the weights, each micro-batch weighted by its number of items
            save a checkpoint, if one is due
            validate each validation dataloader from its beginning, if a validation is due

    Validations, saves and resumes do not change which training micro-batch is read next. A pass of n micro-batches has
    ceil(n / grad_accum_steps) steps. The last step of a pass uses the remaining micro-batches, each weighted by its
    number of items. No data is dropped, and no step uses micro-batches of two passes. Saves and validations happen only
    between steps.

    Args:
        num_steps: number of steps to train, counted from the start of this fit. If ``max_steps`` is also given,
            ``max_steps`` is ignored, and a note in the plan says so.
        max_steps: ``global_step`` at which training ends, counted across resumes. If the run has already reached this
            step, a fit logs a warning, trains no step and returns.
        num_epochs: number of epochs to train, counted from the start of this fit. If ``max_steps`` is also given, the
            fit ends at the earlier of the two ends. ``num_epochs`` cannot be combined with ``num_steps``.
        steps_per_epoch: length of an epoch in steps. None: an epoch is a pass. The dataloader starts again at the end
            of each pass, not at the end of each epoch. If the length of the dataloader is known, an epoch longer than a
            pass is an error. If the length is unknown, ``num_epochs`` and all settings in epochs need this setting.
        eval_frequency: interval between validations. An integer n, 1 or more: after every n steps of this fit. A
            fraction in (0, 1]: after every ceil(fraction x steps of this fit) steps. The product is computed from the
            decimal form of the fraction, without rounding errors (0.07 of 100 steps is 7). Text of the form ``"N
            epochs"``, such as ``"1 epoch"`` or ``"0.5 epochs"``: after every ceil(N x steps of an epoch) steps of this
            fit, also without rounding errors. Text needs ``steps_per_epoch`` if the length of the dataloader is
            unknown. None, 0 or 0.0: never. So 1 means after every step, and 1.0 means once, at the end. The plan shows
            the resulting interval. If the value is 1, a fit of more than 100 steps issues one warning. Unless
            validation is off, a fit always validates after its last step.
        eval_steps: number of validation batches per validation dataloader. None: all batches. A dataloader of unknown
            length needs a number. If a dataloader has fewer batches, each of its batches is validated once, and one
            warning is logged.
        grad_accum_steps: number of micro-batches per step, at most the number of micro-batches in a pass.
        eval_at_start: whether a fit also validates before its first step, even if ``eval_frequency`` is None. A resumed
            fit does not repeat this validation. The best checkpoint and early stopping take this validation into
            account. ``loop_idx``, ``every_n_vals`` of a callback, and schedulers that monitor a metric ignore it.

    Counts are integers, 1 or more. A fit needs ``num_steps``, ``max_steps`` or ``num_epochs``. A loop without these
    settings can be built.

    Raises:
        ValueError: if a value is invalid, or if ``num_steps`` and ``num_epochs`` are both given. For a value of a wrong
            type, such as True or "5", or a text of another form, the error is also a TypeError. The message contains
            the given and the accepted values.

    >>> loop = TrainingLoop(num_steps=1000, eval_frequency=100, eval_steps=50)
    >>> loop.num_steps, loop.val_loop.eval_steps
    (1000, 50)
    """

    def __init__(
        self,
        num_steps: int | None = None,
        max_steps: int | None = None,
        num_epochs: int | None = None,
        steps_per_epoch: int | None = None,
        eval_frequency: int | float | str | None = 1.0,
        eval_steps: int | None = None,
        grad_accum_steps: int = 1,
        eval_at_start: bool = False,
    ) -> None:
        super().__init__()
        self._settings = TrainingSettings(
            num_steps=num_steps,
            max_steps=max_steps,
            num_epochs=num_epochs,
            steps_per_epoch=steps_per_epoch,
            eval_frequency=eval_frequency,
            eval_steps=eval_steps,
            grad_accum_steps=grad_accum_steps,
            eval_at_start=eval_at_start,
        )
        self._val_loop = ValidationLoop(self._settings.eval_steps)

    def __repr__(self) -> str:
        """Return the name of the class and the settings that differ from their defaults."""
        return _show(self, TrainingLoop, self._settings)

    @property
    def settings(self) -> TrainingSettings:
        """The settings of this loop, which `loopwright.plan.plan_fit` reads."""
        return self._settings

    @property
    def num_steps(self) -> int | None:
        """Number of steps to train, counted from the start of the fit."""
        return self._settings.num_steps

    @property
    def max_steps(self) -> int | None:
        """``global_step`` at which training ends."""
        return self._settings.max_steps

    @property
    def num_epochs(self) -> int | None:
        """Number of epochs to train, counted from the start of the fit."""
        return self._settings.num_epochs

    @property
    def steps_per_epoch(self) -> int | None:
        """Length of an epoch in steps; None: an epoch is a pass."""
        return self._settings.steps_per_epoch

    @property
    def eval_frequency(self) -> int | float | str | None:
        """Interval between validations: steps, a fraction of the fit, or a text in epochs; None or 0: never."""
        return self._settings.eval_frequency

    @property
    def eval_steps(self) -> int | None:
        """Number of validation batches per dataloader; None: all batches."""
        return self._settings.eval_steps

    @property
    def grad_accum_steps(self) -> int:
        """Number of micro-batches per step."""
        return self._settings.grad_accum_steps

    @property
    def eval_at_start(self) -> bool:
        """Whether a fit also validates before its first step."""
        return self._settings.eval_at_start

    @property
    def val_loop(self) -> ValidationLoop:
        """The `ValidationLoop` that is used for validations during training."""
        return self._val_loop


def _show(loop: LoopCallback, kind: type[LoopCallback], settings: object) -> str:
    given = {name: (getattr(settings, name), each.default) for name, each in inspect.signature(kind).parameters.items()}
    # Compare the printed values, because the numbers 1 and 1.0 (the default of eval_frequency) are equal.
    shown = [f"{name}={value!r}" for name, (value, default) in given.items() if repr(value) != repr(default)]
    return f"{type(loop).__name__}({', '.join(shown)})"


def _check_hook(hook: object) -> None:
    expected = "a word such as validate, which names the hooks (on_validate_start, …)"
    if not isinstance(hook, str):
        raise refuse_type("hook", hook, expected)
    if not hook.isidentifier():
        raise refuse("hook", hook, expected, "use letters, digits and _ only")
    taken = sorted(set(_name_hooks(hook).values()) & set(HOOKS)) if hook != "validate" else []
    if taken:
        raise refuse("hook", hook, f"a word that gives new hook names; {taken[0]} exists already", "use another word")


def _name_hooks(hook: str) -> dict[str, str]:
    return {event: f"on_{hook}_{event}" for event in _EVENTS}
