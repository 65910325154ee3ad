"""`TrainingLoop` and `ValidationLoop`: how long to train, when to validate, on how much.

A loop is settings only. What they come to for given dataloaders is computed by `loopwright.plan.plan_fit`.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from loopwright.errors import SettingError, check_count, refuse, refuse_type
from loopwright.hooks import HOOKS, Callback

if TYPE_CHECKING:
    from torch import nn

_OPTIONAL_EPOCHS = "a whole number of epochs, 1 or more, or null"
_OPTIONAL_STEPS = "a whole number of steps, 1 or more, or null"
_FREQUENCY = "a positive whole number of steps or a fraction in (0, 1]"
_FREQUENCY_OFF = "use null to turn validation off"
_EVENTS = ("start", "end", "exception", "batch_start", "batch_end", "step_start", "step_end")


class LoopCallback(Callback):
    """What `TrainingLoop` and `ValidationLoop` have in common: settings which may also listen to the run.

    The loop is the first of a run's callbacks; a subclass may implement any hook. It holds no counters: where
    a run is, the trainer knows.

    Raises:
        TypeError: if instantiated itself; use one of the two loops.
    """

    def __init__(self) -> None:
        if type(self) is LoopCallback:
            raise TypeError("LoopCallback: expected one of its loops; use TrainingLoop(...) or ValidationLoop(...).")


class ValidationLoop(LoopCallback):
    """Validate: every dataloader from its beginning, in evaluation mode, without gradients.

    ::

        for each validation dataloader:
            on_x_start
            for batch in the first eval_steps batches of the dataloader:
                on_x_batch_start, on_x_step_start, outputs = model(batch), on_x_step_end, on_x_batch_end
            average what the model returned over all items, log it, on_x_end

    where ``x`` is the ``hook``. Made for subclassing, to extend a validation: by hooks, or by `predict`.

    Args:
        eval_steps: validation batches per dataloader, a whole number, 1 or more. None: all of them. A
            dataloader of unknown length needs it. Where it is more than a dataloader has, that dataloader is
            validated once as a whole, and this is said once: no batch is counted twice.
        hook: a word; the hooks fired are ``on_<hook>_start``, ``_end``, ``_exception``, ``_batch_start``,
            ``_batch_end``, ``_step_start`` and ``_step_end`` in place of those of ``on_validate_…``
            (``on_enter_validate`` stays). Weighting and averaging are the same for every word.

    Raises:
        ValueError: (where the type is wrong, also a TypeError) for any other value, named with what was given
            and what is accepted; for the hooks ``train`` and ``fit``, and words whose hooks would be another's.

    >>> ValidationLoop(100).eval_steps
    100
    >>> ValidationLoop(hook="cloze").hook_names["batch_end"]
    'on_cloze_batch_end'
    """

    def __init__(self, eval_steps: int | None = None, hook: str = "validate") -> None:
        super().__init__()
        self._eval_steps = _check_eval_steps(eval_steps)
        self._hook = _check_hook(hook)
        self._hook_names = MappingProxyType(_name_hooks(self._hook))

    @property
    def eval_steps(self) -> int | None:
        """Validation batches per dataloader; None: all."""
        return self._eval_steps

    @property
    def hook(self) -> str:
        """The word in the names of this loop's hooks."""
        return self._hook

    @property
    def hook_names(self) -> Mapping[str, str]:
        """The hook of each event: ``start``, ``end``, ``exception``, ``batch_start`` … ``step_end``."""
        return self._hook_names

    def predict(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """What is asked of the model for a batch: its outputs, as in training. Override it to ask something else.

        Args:
            model: in evaluation mode, without gradients.
            *args: the batch, and what ``on_before_forward`` made of it.
            **kwargs: what ``on_before_forward`` added.

        Returns:
            The loss or a mapping, as a model returns them. A mapping of an override may be without ``loss``: scalars
            in it are averaged and logged, if any.
        """
        return model(*args, **kwargs)


class TrainingLoop(LoopCallback):
    """Train for a number of steps or epochs, and validate in between.

    A *step* is one optimizer update, made from ``grad_accum_steps`` micro-batches; a *micro-batch* is what the
    training dataloader yields; a *pass* is once through that dataloader. ::

        while steps are left:
            train the steps up to the next save or validation:      # stages; loopwright.plan shows them
                for each step:
                    for each of its micro-batches: forward, backward
                    update the weights, weighted by what the micro-batches held
            save a checkpoint, where one is due
            validate each validation dataloader from its beginning, where a validation is due

    Training goes on where it left off in the training dataloader: across validations, stages and resumes.
    A pass of n micro-batches has ceil(n / grad_accum_steps) steps: its last step takes what is left, exactly
    weighted. No data is dropped, no window of micro-batches crosses the end of a pass, and no save or
    validation falls inside one.

    Args:
        num_steps: steps to train for, counted from where this fit starts. Supersedes ``max_steps``; where both
            are given the plan says so.
        max_steps: train until ``global_step``, which counts across resumes, is this. Where it is this already,
            a fit says so in one line, trains nothing and returns normally.
        num_epochs: epochs to train for, counted from where this fit starts. Together with ``max_steps``:
            whichever ends first. Together with ``num_steps``: refused.
        steps_per_epoch: length of an epoch in steps. None: an epoch is a pass. Epochs only count; the data start
            again only when a pass is exhausted. Longer than one pass over a dataloader of known length: refused
            when the plan is built. A dataloader of unknown length gets its epochs from it.
        eval_frequency: when to validate. A whole number, 1 or more: after every that many steps of this fit. A
            fraction in (0, 1]: after every ceil(fraction x steps of this fit) steps, exact for the decimal that
            is printed (0.07 of 100 steps is 7). None, 0 or 0.0: never. So 1 is after every step (with more than
            100 steps this is warned of once) and 1.0 is once, at the end; the plan shows how it was understood.
            A validation also follows the last step, even after a shorter stretch.
        eval_steps: validation batches per validation dataloader. None: all of them. A dataloader of unknown
            length needs it. Where it is more than a dataloader has, the dataloader's length is taken, and this
            is said once: no batch is counted twice.
        grad_accum_steps: micro-batches per step. More than a pass has: refused when the plan is built.

    Counts are whole numbers, 1 or more. One of ``num_steps``, ``max_steps`` and ``num_epochs`` must be given
    for a fit; none is needed to construct a loop.

    Raises:
        ValueError: (where the type is wrong, also a TypeError) for any other value, True and "5" included, named
            with what was given and what is accepted; if ``num_steps`` and ``num_epochs`` are both given.

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
        eval_frequency: int | float | None = 1.0,
        eval_steps: int | None = None,
        grad_accum_steps: int = 1,
    ) -> None:
        super().__init__()
        self._num_steps = _check_optional_count("num_steps", num_steps)
        self._max_steps = _check_optional_count("max_steps", max_steps)
        self._num_epochs = _check_optional_count("num_epochs", num_epochs, _OPTIONAL_EPOCHS)
        self._steps_per_epoch = _check_optional_count("steps_per_epoch", steps_per_epoch)
        self._eval_frequency = _check_eval_frequency(eval_frequency)
        self._eval_steps = _check_eval_steps(eval_steps)
        self._grad_accum_steps = check_count(
            "grad_accum_steps", grad_accum_steps, "a whole number of micro-batches per step, 1 or more"
        )
        if self._num_steps is not None and self._num_epochs is not None:
            raise SettingError(
                "num_epochs",
                f"={self._num_epochs}: expected null beside num_steps={self._num_steps}, which is a length too; "
                "use loop.num_steps=null or loop.num_epochs=null.",
            )
        self._val_loop = ValidationLoop(self._eval_steps)

    @property
    def num_steps(self) -> int | None:
        """Steps to train for, from where the fit starts."""
        return self._num_steps

    @property
    def max_steps(self) -> int | None:
        """The ``global_step`` to train until."""
        return self._max_steps

    @property
    def num_epochs(self) -> int | None:
        """Epochs to train for, from where the fit starts."""
        return self._num_epochs

    @property
    def steps_per_epoch(self) -> int | None:
        """Length of an epoch in steps; None: a pass."""
        return self._steps_per_epoch

    @property
    def eval_frequency(self) -> int | float | None:
        """Steps between validations (int), or that as a fraction of the fit (float); None or 0: never."""
        return self._eval_frequency

    @property
    def eval_steps(self) -> int | None:
        """Validation batches per dataloader; None: all."""
        return self._eval_steps

    @property
    def grad_accum_steps(self) -> int:
        """Micro-batches per step."""
        return self._grad_accum_steps

    @property
    def val_loop(self) -> ValidationLoop:
        """The loop of the validations in between."""
        return self._val_loop


def _check_optional_count(setting: str, value: object, meaning: str = _OPTIONAL_STEPS) -> int | None:
    return None if value is None else check_count(setting, value, meaning)


def _check_eval_steps(value: object) -> int | None:
    return _check_optional_count(
        "eval_steps", value, "a whole number of validation batches, 1 or more, or null for all of them"
    )


def _check_eval_frequency(value: object) -> int | float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise refuse_type("eval_frequency", value, _FREQUENCY, _FREQUENCY_OFF)
    if isinstance(value, numbers.Rational):
        if not isinstance(value, numbers.Integral):
            raise refuse_type("eval_frequency", value, _FREQUENCY, _FREQUENCY_OFF)
        if value < 0:
            raise refuse("eval_frequency", value, _FREQUENCY, _FREQUENCY_OFF)
        return int(value)
    # A NumPy float32 of 0.07 is taken for 0.07, as it prints, and not for the 0.07000000029802322 that it holds.
    number = float(value) if isinstance(value, float) else float(str(value))
    if not 0 <= number <= 1:
        is_whole = number > 1 and number.is_integer()
        raise refuse("eval_frequency", value, _FREQUENCY, f"use {int(number)}" if is_whole else _FREQUENCY_OFF)
    return number


def _check_hook(hook: object) -> str:
    expected = "a word such as validate, from which the names of the hooks are made (on_validate_start, …)"
    if not isinstance(hook, str):
        raise refuse_type("hook", hook, expected)
    if not hook.isidentifier():
        raise refuse("hook", hook, expected, "use letters, digits and _ only")
    taken = sorted(set(_name_hooks(hook).values()) & set(HOOKS)) if hook != "validate" else []
    if taken:
        raise refuse("hook", hook, f"a word whose hooks are not another's, as {taken[0]} is", "use another word")
    return hook


def _name_hooks(hook: str) -> dict[str, str]:
    return {event: f"on_{hook}_{event}" for event in _EVENTS}
