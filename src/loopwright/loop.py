"""`TrainingLoop` and `ValidationLoop`: how long to train, when to validate, and on how many batches.

A loop holds settings only. `loopwright.plan.plan_fit` computes a plan from them and the lengths of the dataloaders.
"""

from __future__ import annotations

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
    """Base class of `TrainingLoop` and `ValidationLoop`: settings that may also listen to the run.

    The loop is the first of a run's callbacks, and a subclass may implement any hook. A loop holds no counters: the
    trainer knows the position of the run.

    Raises:
        TypeError: if it is instantiated itself; use one of the two loops.
    """

    def __init__(self) -> None:
        if type(self) is LoopCallback:
            raise TypeError("LoopCallback: expected one of its loops; use TrainingLoop(...) or ValidationLoop(...).")


@dataclass(frozen=True, slots=True, kw_only=True)
class _ValidationSettings:
    """The settings of a `ValidationLoop`, which documents each of them.

    Raises:
        SettingError: for a value that `ValidationLoop` does not accept.
    """

    eval_steps: int | None
    hook: str

    def __post_init__(self) -> None:
        """Check both values, and replace ``eval_steps`` by an int."""
        object.__setattr__(self, "eval_steps", check_eval_steps(self.eval_steps))
        _check_hook(self.hook)


class ValidationLoop(LoopCallback):
    """Validates each dataloader from its beginning, in evaluation mode, without gradients.

    ::

        for each validation dataloader:
            on_x_start
            for batch in the first eval_steps batches of the dataloader:
                on_x_batch_start, on_x_step_start, outputs = model(batch), on_x_step_end, on_x_batch_end
            average the outputs of the model over all items, log the averages, on_x_end

    where ``x`` is the ``hook``. Subclass it to extend a validation: implement hooks, or override `predict`.

    Args:
        eval_steps: validation batches per dataloader, a whole number, 1 or more. None: all of them. A dataloader of
            unknown length needs a number. If it is more than a dataloader has, the whole dataloader is validated once,
            and one log line says so: no batch is counted twice.
        hook: a word that names the hooks: ``on_<hook>_start``, ``_end``, ``_exception``, ``_batch_start``,
            ``_batch_end``, ``_step_start`` and ``_step_end`` are called in place of the ``on_validate_…`` hooks
            (``on_enter_validate`` keeps its name). Weighting and averaging are the same for every word.

    Raises:
        ValueError: for any other value (also a TypeError if the type is wrong); the message names what was given and
            what is accepted. Also for the hooks ``train`` and ``fit``, and for words whose hooks exist already.

    >>> ValidationLoop(100).eval_steps
    100
    >>> ValidationLoop(hook="cloze").hook_names["batch_end"]
    'on_cloze_batch_end'
    """

    def __init__(self, eval_steps: int | None = None, hook: str = "validate") -> None:
        super().__init__()
        self._settings = _ValidationSettings(eval_steps=eval_steps, hook=hook)
        self._hook_names = MappingProxyType(_name_hooks(hook))

    @property
    def eval_steps(self) -> int | None:
        """Validation batches per dataloader; None: all."""
        return self._settings.eval_steps

    @property
    def hook(self) -> str:
        """The word in the names of this loop's hooks."""
        return self._settings.hook

    @property
    def hook_names(self) -> Mapping[str, str]:
        """The hook of each event: ``start``, ``end``, ``exception``, ``batch_start`` … ``step_end``."""
        return self._hook_names

    def predict(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs of the model for a batch, as in training. Override it to compute something else.

        Args:
            model: in evaluation mode, without gradients.
            *args: the batch; ``on_before_forward`` may have changed these arguments.
            **kwargs: keyword arguments that ``on_before_forward`` added.

        Returns:
            The loss or a mapping, as a model returns them. The mapping of an override may lack ``loss``. Its scalars
            are averaged and logged.
        """
        return model(*args, **kwargs)


class TrainingLoop(LoopCallback):
    """Trains for a number of steps or epochs, and validates in between.

    A *step* is one optimizer update, made from ``grad_accum_steps`` micro-batches; a *micro-batch* is one batch of the
    training dataloader; a *pass* reads that dataloader once from beginning to end. ::

        while steps are left:
            train the steps up to the next save or validation:      # stages; loopwright.plan shows them
                for each step:
                    for each of its micro-batches: forward, backward
                    update the weights, each micro-batch weighted by its number of items
            save a checkpoint, if one is due
            validate each validation dataloader from its beginning, if a validation is due

    Validations, saves and resumes do not move the position in the training dataloader. A pass of n micro-batches has
    ceil(n / grad_accum_steps) steps. Its last step takes the micro-batches that are left, exactly weighted. No data is
    dropped, no step takes micro-batches of two passes, and no save or validation falls inside a step.

    Args:
        num_steps: steps to train for, counted from where this fit starts. It supersedes ``max_steps``; if both are
            given, the plan says so.
        max_steps: ``global_step`` at which training ends, counted across resumes. If the run is there already, a fit
            logs one line, trains nothing and returns normally.
        num_epochs: epochs to train for, counted from where this fit starts. Together with ``max_steps``, the first
            of the two ends the fit. Together with ``num_steps``, it is refused.
        steps_per_epoch: length of an epoch in steps. None: an epoch is a pass. An epoch is only a count: the
            data start again when a pass is exhausted, not when an epoch ends. If it is longer than a pass over a
            dataloader of known length, the plan is refused. A dataloader of unknown length needs it for its epochs.
        eval_frequency: when to validate. A whole number n, 1 or more: after every n steps of this fit. A
            fraction in (0, 1]: after every ceil(fraction x steps of this fit) steps, computed exactly from the
            decimal that is printed (0.07 of 100 steps is 7). None, 0 or 0.0: never. So 1 is after every step (a fit
            of more than 100 steps warns of this once) and 1.0 is once, at the end; the plan shows how the value was
            understood. A validation also follows the last step, even if fewer steps lie between.
        eval_steps: validation batches per validation dataloader. None: all of them. A dataloader of unknown
            length needs a number. If it is more than a dataloader has, the whole dataloader is validated once, and
            one log line says so: no batch is counted twice.
        grad_accum_steps: micro-batches per step. If it is more than a pass has, the plan is refused.

    Counts are whole numbers, 1 or more. A fit needs one of ``num_steps``, ``max_steps`` and ``num_epochs``; a loop can
    be made without any of them.

    Raises:
        ValueError: for any other value, such as True and "5" (also a TypeError if the type is wrong); the message
            names what was given and what is accepted. Also if ``num_steps`` and ``num_epochs`` are both given.

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
        self._settings = TrainingSettings(
            num_steps=num_steps,
            max_steps=max_steps,
            num_epochs=num_epochs,
            steps_per_epoch=steps_per_epoch,
            eval_frequency=eval_frequency,
            eval_steps=eval_steps,
            grad_accum_steps=grad_accum_steps,
        )
        self._val_loop = ValidationLoop(self._settings.eval_steps)

    @property
    def settings(self) -> TrainingSettings:
        """The settings of this loop, without its hooks, as `loopwright.plan.plan_fit` uses them."""
        return self._settings

    @property
    def num_steps(self) -> int | None:
        """Steps to train for, from where the fit starts."""
        return self._settings.num_steps

    @property
    def max_steps(self) -> int | None:
        """``global_step`` at which training ends."""
        return self._settings.max_steps

    @property
    def num_epochs(self) -> int | None:
        """Epochs to train for, from where the fit starts."""
        return self._settings.num_epochs

    @property
    def steps_per_epoch(self) -> int | None:
        """Length of an epoch in steps; None: a pass."""
        return self._settings.steps_per_epoch

    @property
    def eval_frequency(self) -> int | float | None:
        """Interval between validations: an int in steps, a float as a fraction of the fit; None or 0: never."""
        return self._settings.eval_frequency

    @property
    def eval_steps(self) -> int | None:
        """Validation batches per dataloader; None: all."""
        return self._settings.eval_steps

    @property
    def grad_accum_steps(self) -> int:
        """Micro-batches per step."""
        return self._settings.grad_accum_steps

    @property
    def val_loop(self) -> ValidationLoop:
        """The loop of the validations in between."""
        return self._val_loop


def _check_hook(hook: object) -> None:
    expected = "a word such as validate, which names the hooks (on_validate_start, …)"
    if not isinstance(hook, str):
        raise refuse_type("hook", hook, expected)
    if not hook.isidentifier():
        raise refuse("hook", hook, expected, "use letters, digits and _ only")
    taken = sorted(set(_name_hooks(hook).values()) & set(HOOKS)) if hook != "validate" else []
    if taken:
        raise refuse("hook", hook, f"a word that makes new names of hooks; {taken[0]} exists", "use another word")


def _name_hooks(hook: str) -> dict[str, str]:
    return {event: f"on_{hook}_{event}" for event in _EVENTS}
