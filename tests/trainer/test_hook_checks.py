"""Methods of callbacks that are no hooks are warned of; hooks that cannot be called are refused at construction."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from loopwright import Callback, Checkpointing, Logger, TrainingLoop, ValidationCallback, ValidationLoop
from loopwright.errors import SettingTypeError
from loopwright.hooks import HOOKS
from tiny import batches, rows, trainer


def with_methods(*names: str, base: type = Callback) -> Any:
    """Return a callback of the class Mine with methods of these names that take anything."""
    return type("Mine", (base,), {name: lambda self, *args, **kwargs: None for name in names})()


@pytest.mark.parametrize(
    ("method", "meant"),
    [
        ("on_epoch_end", "on_train_end"),
        ("on_train_epoch_end", "on_train_end"),
        ("on_validation_end", "on_validate_end"),
        ("on_step_end", "on_train_batch_end"),
        ("on_train_begin", "on_fit_start"),
        ("on_evaluate", "on_validate_end"),
        ("on_train_batch_ends", "on_train_batch_end"),
        ("on_validate_batch_ended", "on_validate_batch_end"),
        ("on_optimizer_step", "on_after_optimizer_step"),
    ],
)
def test_a_method_that_is_no_hook_is_warned_of_with_the_hook_that_was_meant(method: str, meant: str) -> None:
    message = rf"^Mine\.{method} is never called: no hook has this name\. Did you mean {meant}\?$"
    with pytest.warns(UserWarning, match=message) as caught:
        ours = trainer(callbacks=[with_methods(method, "on_fit_start")])
    assert len(caught) == 1 and caught[0].filename.endswith("tiny.py")
    ours.fit(batches(5))
    ours.fit(batches(5))  # it is warned of once


def test_a_beginning_is_a_start() -> None:
    """The suggestion was on_fit_end, whose spelling is more similar."""
    with pytest.warns(UserWarning, match=r"Did you mean on_fit_start\?$"):
        trainer(callbacks=[with_methods("on_fit_begin")])


def test_a_name_like_no_hook_has_no_suggestion() -> None:
    with pytest.warns(UserWarning, match=r"^Mine\.on_zzz is never called: no hook has this name\.$"):
        trainer(callbacks=[with_methods("on_zzz")])


def test_a_hook_of_a_loop_that_is_given_later_is_warned_of_only_if_it_never_comes() -> None:
    never = trainer(callbacks=[with_methods("on_cloze_batch_end")])
    with pytest.warns(UserWarning, match=r"^Mine\.on_cloze_batch_end is never called") as caught:
        never.fit(batches(5))
    assert [each.filename for each in caught] == [__file__]

    class Downstream(ValidationCallback):
        def run_validation(self, ours: Any, loop_idx: int | None, is_last: bool) -> None:
            ours.validate(DataLoader(rows(4)), loop=ValidationLoop(hook="cloze"))

    trainer(callbacks=[with_methods("on_cloze_batch_end"), Downstream()]).fit(batches(5))
    outside = trainer(callbacks=[with_methods("on_cloze_batch_end")])
    outside.validate(DataLoader(rows(4)), loop=ValidationLoop(hook="cloze"))
    outside.fit(batches(5))
    trainer(ValidationLoop(hook="epoch"), callbacks=[with_methods("on_epoch_end")]).validate(DataLoader(rows(4)))


def test_settings_and_other_names_are_not_taken_for_hooks(tmp_path: Path) -> None:
    class Quiet(Callback):
        on_gpu = True

        @property
        def on_disk(self) -> bool:
            raise AssertionError("a property is not read")

        def once(self) -> None: ...

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer(callbacks=[Quiet()], checkpoint=Checkpointing(on_save_error="continue"), run_dir=tmp_path)


def replaced(hook: str, method: Any) -> Callback:
    return type("Mine", (Callback,), {hook: method})()


WRONG: dict[str, tuple[Any, str]] = {
    "too few": (
        replaced("on_save_checkpoint", lambda self, trainer: None),
        "Mine.on_save_checkpoint(trainer): expected a method with the parameters (trainer, state_dict).",
    ),
    "too many": (
        replaced("on_fit_end", lambda self, trainer, loop, more: None),
        "Mine.on_fit_end(trainer, loop, more): expected a method with the parameters (trainer, loop).",
    ),
    "no self": (
        replaced("finalize", lambda: None),
        "Mine.finalize: expected a method with the parameters () after self.",
    ),
    "keyword only": (
        replaced("setup", lambda self, *, trainer: None),
        "Mine.setup(trainer): expected a method with the parameters (trainer).",
    ),
    "no method": (replaced("setup", 3), "Mine.setup=3: expected a method with the parameters (trainer)."),
    "state": (
        replaced("load_state_dict", lambda self: None),
        "Mine.load_state_dict(): expected a method with the parameters (state_dict).",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_hook_with_other_parameters_is_refused_when_the_trainer_is_built(name: str) -> None:
    callback, message = WRONG[name]
    with pytest.raises(SettingTypeError) as caught:
        trainer(callbacks=[callback])
    assert str(caught.value) == message


def test_a_logger_with_other_parameters_is_refused_under_its_name() -> None:
    class Wrong(Logger):
        def log_metrics(self, metrics: Any) -> None:  # type: ignore[override]
            ...

    with pytest.raises(SettingTypeError) as caught:
        trainer(loggers={"mine": Wrong()})
    expected = "mine.log_metrics(metrics): expected a method with the parameters (metrics, step)."
    assert str(caught.value) == expected


def test_a_hook_whose_call_runs_nothing_is_refused() -> None:
    class Waiting(Callback):
        async def on_fit_end(self, trainer: Any, loop: Any) -> None:  # type: ignore[override]
            raise AssertionError

    class Yielding(Callback):
        def on_fit_start(self, trainer: Any, train_dataloader: Any, val_dataloader: Any, loop: Any) -> Any:
            yield

    with pytest.raises(
        SettingTypeError, match=r"^Waiting\.on_fit_end: a coroutine \(async def\), of which a call runs"
    ):
        trainer(callbacks=[Waiting()])
    with pytest.raises(SettingTypeError, match=r"^Yielding\.on_fit_start: a generator \(its body has yield\)"):
        trainer(callbacks=[Yielding()])


def test_the_hooks_of_a_loop_are_checked_when_the_loop_is_given() -> None:
    ours = trainer(callbacks=[replaced("on_cloze_batch_start", lambda self, trainer, model, batch: None)])
    with pytest.raises(SettingTypeError) as caught:
        ours.validate(DataLoader(rows(4)), loop=ValidationLoop(hook="cloze"))
    expected = "expected a method with the parameters (trainer, model, batch, batch_idx)."
    assert str(caught.value) == f"Mine.on_cloze_batch_start(trainer, model, batch): {expected}"

    class Loop(TrainingLoop):
        def on_fit_end(self) -> None:  # type: ignore[override]
            ...

    with pytest.raises(SettingTypeError, match=r"^Loop\.on_fit_end\(\): expected"):
        trainer(Loop(num_steps=1))


def test_every_way_to_take_the_arguments_is_accepted() -> None:
    class Own(Callback):
        def __init__(self) -> None:
            self.on_fit_end = functools.partial(self._end, "bound")  # type: ignore[method-assign]
            self.finalize = [].copy  # type: ignore[method-assign,assignment]

        def _end(self, word: str, trainer: Any, loop: Any) -> None: ...

        def on_fit_start(self, *args: Any) -> None: ...

        def on_train_end(self, trainer: Any, model: Any, loop: Any, loop_idx: int, more: int = 3) -> None: ...

        @staticmethod
        def setup(trainer: Any) -> None: ...

        @classmethod
        def post_setup(cls, trainer: Any) -> None: ...

    trainer(callbacks=[Own(), with_methods(*HOOKS)]).fit(batches(5))
