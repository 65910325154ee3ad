"""The order of hooks in short runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from loopwright import Callback, Checkpointing, Logger, Trainer, TrainingLoop, ValidationCallback, ValidationLoop
from loopwright.hooks import HOOKS
from tiny import batches, rows, sgd, trainer

MY_HOOKS = [
    f"on_my_hook_{part}" for part in ("start", "end", "exception", "batch_start", "batch_end", "step_start", "step_end")
]


class Spy(Callback):
    """Records every hook with its scalar arguments."""

    def __init__(self, also: tuple[str, ...] = ()) -> None:
        self.calls: list[str] = []
        for hook in (*HOOKS, *also):
            setattr(self, hook, self._note(hook))

    def _note(self, hook: str) -> Any:
        def note(*args: Any) -> None:
            scalars = [str(arg) for arg in args if isinstance(arg, int | bool) or arg is None]
            self.calls.append(" ".join([hook, *scalars]))

        return note


MICRO_BATCH = """on_train_batch_start {i}
on_train_step_start
on_before_forward
on_after_forward
on_before_backward
on_after_backward
{update}on_train_step_end
on_train_batch_end {i}
"""
UPDATE = """on_before_optimizer_step
on_after_optimizer_step
on_before_optimizer_zero_grad
on_after_optimizer_zero_grad
on_before_scheduler_step
on_after_scheduler_step
"""
SAVE = """on_save_checkpoint
postprocess_checkpoint
on_after_save_checkpoint
"""
VALIDATE_ONE = """on_enter_validate
on_validate_start
on_validate_batch_start 0
on_validate_step_start
on_before_forward
on_after_forward
on_validate_step_end
on_validate_batch_end 0
on_validate_end
"""
SETUP = """pre_setup
setup
post_setup
"""


def lines(*parts: str) -> list[str]:
    return "".join(parts).splitlines()


def test_a_fit_with_accumulation_saving_and_two_validation_dataloaders(tmp_path: Path) -> None:
    """Three steps of two micro-batches, with saves and validations after steps 2 and 3."""
    spy = Spy()
    ours = trainer(
        TrainingLoop(num_steps=3, eval_frequency=2, eval_steps=1, grad_accum_steps=2),
        schedulers=[torch.optim.lr_scheduler.ConstantLR],
        checkpoint=Checkpointing(every_n_steps=2),
        run_dir=tmp_path,
        callbacks=[spy],
    )
    ours.fit(batches(6), {"a": batches(2), "b": batches(1)})
    ours.close()
    ours.close()

    def step(first: int) -> str:
        return MICRO_BATCH.format(i=first, update="") + MICRO_BATCH.format(i=first + 1, update=UPDATE)

    assert spy.calls == lines(
        SETUP,
        "on_enter_fit\non_fit_start\n",
        "on_enter_train 0\non_train_start 0\n",
        step(0),
        step(2),
        SAVE,
        "on_train_end 0\n",
        "on_enter_validate_all\n",
        VALIDATE_ONE,
        VALIDATE_ONE,
        "run_validation 0 False\n",
        "on_enter_train 1\non_train_start 1\n",
        step(0),
        SAVE,
        "on_train_end 1\n",
        "on_enter_validate_all\n",
        VALIDATE_ONE,
        VALIDATE_ONE,
        "run_validation 1 True\n",
        "on_fit_end\n",
        "finalize\n",
    )


def test_validate() -> None:
    spy = Spy()
    trainer(callbacks=[spy]).validate(DataLoader(rows(4), batch_size=4))
    assert spy.calls == lines(SETUP, VALIDATE_ONE)


def test_validate_all_over_two_checkpoints(tmp_path: Path) -> None:
    spy = Spy()
    settings: dict[str, Any] = {"checkpoint": Checkpointing(every_n_steps=2), "run_dir": tmp_path}
    trainer(TrainingLoop(num_steps=4), **settings).fit(batches(4))
    ours = trainer(ValidationLoop(eval_steps=1), callbacks=[spy])
    ours.validate_all([DataLoader(rows(4), batch_size=4)] * 2, f"{tmp_path}/checkpoints/*")
    load = "on_before_load_checkpoint\npreprocess_checkpoint\non_load_checkpoint\n"
    one = load + VALIDATE_ONE + VALIDATE_ONE + "run_validation None True\n"
    assert spy.calls == lines(SETUP, "on_enter_validate_all\n", one, one)


def test_a_validation_loop_with_its_own_hooks() -> None:
    spy = Spy(also=tuple(MY_HOOKS))
    trainer(callbacks=[spy]).validate(DataLoader(rows(4), batch_size=4), loop=ValidationLoop(hook="my_hook"))
    renamed = VALIDATE_ONE.replace("on_validate_", "on_my_hook_")
    assert spy.calls == lines(SETUP, renamed)


def test_the_order_of_listeners(tmp_path: Path) -> None:
    """The order is: the loop, the callbacks in the given order, the loggers, checkpointing."""
    from loopwright import Logger

    order: list[str] = []

    class Loop(TrainingLoop):
        def on_fit_start(self, *args: Any) -> None:
            order.append("loop")

    class Saving(Checkpointing):
        def on_fit_start(self, *args: Any) -> None:
            order.append("checkpoint")

    class Writing(Logger):
        def on_fit_start(self, *args: Any) -> None:
            order.append("logger")

    class Listening(Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_fit_start(self, *args: Any) -> None:
            order.append(self.name)

    trainer(
        Loop(num_steps=1),
        callbacks=[Listening("first"), Listening("second")],
        loggers=[Writing()],
        checkpoint=Saving(),
        run_dir=tmp_path,
    ).fit(batches(1))
    assert order == ["loop", "first", "second", "logger", "checkpoint"]


def test_exceptions_keep_their_type_and_reach_hooks_from_the_inside_out() -> None:
    told: list[str] = []

    class Failing(Callback):
        def on_before_backward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any]) -> None:
            raise KeyError("mine")

        def on_train_exception(self, trainer: Trainer, exception: Exception) -> None:
            told.append(f"train {type(exception).__name__}")

        def on_fit_exception(self, trainer: Trainer, exception: Exception) -> None:
            told.append(f"fit {type(exception).__name__}")

    with pytest.raises(KeyError, match="mine") as caught:
        trainer(callbacks={"failing": Failing()}).fit(batches(5))
    assert caught.value.__notes__ == ["Raised in callback failing.on_before_backward."]
    assert told == ["train KeyError", "fit KeyError"]


def test_a_failed_validation_calls_the_exception_hook_of_its_loop() -> None:
    told: list[str] = []

    class Failing(Callback):
        def on_probe_start(self, *args: Any) -> None:
            raise RuntimeError("mine")

        def on_probe_exception(self, trainer: Trainer, exception: Exception) -> None:
            told.append(str(exception))

        def on_validate_exception(self, trainer: Trainer, exception: Exception) -> None:
            told.append("wrong")

    ours = trainer(callbacks=[Failing()])
    with pytest.raises(RuntimeError, match="mine"):
        ours.validate(DataLoader(rows(4)), loop=ValidationLoop(hook="probe"))
    assert told == ["mine"]


def test_a_callback_with_the_signatures_of_other_frameworks_runs(tmp_path: Path) -> None:
    """The names and order of arguments are as in other frameworks; only the base class is ours."""
    seen: list[str] = []

    class Ported(Callback):
        def setup(self, trainer: Any) -> None:
            trainer.my_attribute = 0

        def on_enter_fit(self, trainer: Any, stack: Any, train_dataloader: Any, val_dataloader: Any, loop: Any) -> None:
            stack.callback(seen.append, "left fit")

        def on_enter_train(self, trainer: Any, stack: Any, train_dataloader: Any, loop: Any, loop_idx: Any) -> None:
            stack.callback(seen.append, f"left train {loop_idx}")

        def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: Any) -> None:
            seen.append(f"step {trainer.global_step} loss {outputs['loss'].ndim}")

        def on_before_forward(self, trainer: Any, model: Any, batch: Any, args: Any, kwargs: Any) -> None:
            assert args == [batch] and kwargs == {}

        def on_enter_validate(self, trainer: Any, stack: Any, val_dataloader: Any, loop: Any) -> None:
            stack.callback(seen.append, "left validate")

        def run_validation(self, trainer: Any, loop_idx: Any, is_last: Any) -> None:
            seen.append(f"downstream {loop_idx} {is_last}")

        def on_save_checkpoint(self, trainer: Any, state_dict: Any) -> None:
            state_dict["mine"] = {"seen": len(seen)}

        def on_load_checkpoint(self, trainer: Any, state_dict: Any) -> None:
            seen.append(f"loaded {state_dict['mine']['seen']}")

    ours = trainer(TrainingLoop(num_steps=2), callbacks=[Ported()], checkpoint=Checkpointing(), run_dir=tmp_path)
    ours.fit(batches(2), DataLoader(rows(4)))
    ours.validate(DataLoader(rows(4)), ckpt_path="last")
    assert seen == [
        *["step 1 loss 0", "step 2 loss 0", "left train 0", "left validate", "downstream 0 True", "left fit"],
        *["loaded 2", "left validate"],
    ]


def test_a_downstream_validation_runs_every_nth_time_and_last() -> None:
    ran: list[tuple[int, bool]] = []

    class Downstream(ValidationCallback):
        def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
            ran.append((trainer.global_step, is_last))

    loop = TrainingLoop(num_steps=7, eval_frequency=2)
    trainer(loop, callbacks=[Downstream(every_n_vals=2)], optimizer=sgd).fit(batches(7), DataLoader(rows(4)))
    assert ran == [(4, False), (7, True)]


def test_a_round_without_due_validations_also_ends_a_train_loop() -> None:
    """This keeps the numbers of train loops and batches independent of interruptions."""
    spy = Spy()

    class Downstream(ValidationCallback):
        def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
            spy.calls.append(f"downstream {loop_idx}")

    loop = TrainingLoop(num_steps=4, eval_frequency=1)
    trainer(loop, callbacks=[spy, Downstream(every_n_vals=2)]).fit(batches(4))
    told = [call for call in spy.calls if call.startswith(("on_train_start", "downstream", "on_train_batch_end"))]
    assert told == [
        *["on_train_start 0", "on_train_batch_end 0", "on_train_start 1", "on_train_batch_end 0", "downstream 1"],
        *["on_train_start 2", "on_train_batch_end 0", "on_train_start 3", "on_train_batch_end 0", "downstream 3"],
    ]


def test_a_misspelt_hook_gives_a_warning() -> None:
    class Misspelt(Callback):
        def on_train_batch_ends(self) -> None: ...

    with pytest.warns(UserWarning, match=r"Misspelt\.on_train_batch_ends .* Did you mean on_train_batch_end\?"):
        trainer(callbacks=[Misspelt()])


def test_a_loop_whose_hooks_are_not_implemented_gives_a_warning() -> None:
    ours = trainer()
    with pytest.warns(UserWarning, match="ValidationLoop defines the hooks on_mine_"):
        ours.validate(DataLoader(rows(4)), loop=ValidationLoop(hook="mine"))


class Noting(Callback):
    """Notes when its contexts are left, and which hooks are called in between."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def on_enter_fit(self, ours: Any, stack: Any, train_dataloader: Any, val_dataloader: Any, loop: Any) -> None:
        stack.callback(self.seen.append, "left fit")

    def on_enter_train(self, ours: Any, stack: Any, train_dataloader: Any, loop: Any, loop_idx: int) -> None:
        stack.callback(self.seen.append, "left train")

    def on_enter_validate(self, ours: Any, stack: Any, val_dataloader: Any, loop: Any) -> None:
        self.seen.append(f"enter validate {ours.global_step}")
        stack.callback(self.seen.append, "left validate")

    def on_fit_exception(self, ours: Any, exception: Exception) -> None:
        self.seen.append("fit exception")

    def on_train_exception(self, ours: Any, exception: Exception) -> None:
        self.seen.append("train exception")

    def on_validate_exception(self, ours: Any, exception: Exception) -> None:
        self.seen.append("validate exception")


@pytest.mark.parametrize("hook", ["on_validate_batch_start", "on_train_batch_start"])
def test_contexts_are_left_before_the_exception_hooks(hook: str) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("broken")

    seen: list[str] = []
    failing = Callback()
    setattr(failing, hook, fail)
    with pytest.raises(ValueError, match="broken"):
        trainer(callbacks=[Noting(seen), failing]).fit(batches(5), DataLoader(rows(4)))
    kind = "validate" if "validate" in hook else "train"
    assert seen[-4:] == [f"left {kind}", f"{kind} exception", "left fit", "fit exception"]


def test_the_values_of_a_step_reach_loggers_just_before_the_end_of_its_batch() -> None:
    seen: list[str] = []

    class Writing(Logger):
        def log_metrics(self, metrics: Any, step: int) -> None:
            seen.append(f"metrics of step {step}")

    class Listening(Callback):
        def on_train_step_end(self, *_: Any) -> None:
            seen.append("step end")

        def on_train_batch_end(self, ours: Any, *_: Any) -> None:
            seen.append(f"batch end {ours.global_step} {'train/loss' in ours.metrics}")

    trainer(callbacks=[Listening()], loggers=[Writing()], log_every_n_steps=1).fit(batches(1))
    assert seen[:3] == ["step end", "metrics of step 1", "batch end 1 True"]


def test_a_checkpoint_is_loaded_before_a_validation_is_entered(tmp_path: Path) -> None:
    seen: list[str] = []

    class Loading(Noting):
        def on_load_checkpoint(self, ours: Any, state_dict: Any) -> None:
            self.seen.append(f"load {ours.global_step}")

    class Between(Callback):
        def on_before_load_checkpoint(self, ours: Any, ckpt_path: Path) -> None:
            seen.append(f"before load {ours.global_step}")

    ours = trainer(callbacks=[Loading(seen), Between()])
    ours.fit(batches(5))
    ours.save_checkpoint(tmp_path / "step_00000005")
    ours.fit(batches(5))
    ours.save_checkpoint(tmp_path / "step_00000010")
    ours.fit(batches(5))
    seen.clear()
    ours.validate(DataLoader(rows(4)), ckpt_path=tmp_path / "step_00000005")
    assert seen == ["before load 15", "load 5", "enter validate 5", "left validate"]
    seen.clear()
    ours.validate_all(DataLoader(rows(4)), tmp_path / "step_*")
    one = ["before load 15", "load {0}", "enter validate {0}", "left validate"]
    assert seen == [line.format(step) for step in (5, 10) for line in one]
