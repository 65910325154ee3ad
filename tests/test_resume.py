"""A fit resumes from a checkpoint at the right step and sample."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, WeightedRandomSampler

from loopwright import Callback, Checkpointing, Logger, TrainingLoop
from loopwright.checkpoint import read_checkpoint, step_folder, steps_in, write_checkpoint
from loopwright.data import Loader, as_source, synthetic_regression
from loopwright.device import open_device
from loopwright.errors import CheckpointError, SettingError
from sealing import read_trees, write_trees
from tiny import Recorder, Regression, adamw, batches, is_bitwise_equal, rows, sgd, trainer, weights

LOOP = {"num_steps": 14, "eval_frequency": 3, "grad_accum_steps": 2}


def val() -> Loader:
    return Loader(rows(12), batch_size=5)


def build(tmp_path: Path, **settings: Any) -> Any:
    arguments: dict[str, Any] = {
        "loop": TrainingLoop(**LOOP),
        "model": lambda: Regression(dropout=0.3),
        "optimizer": adamw,
        "schedulers": [lambda optimizer, total_steps: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps)],
        "checkpoint": Checkpointing(every_n_steps=1),
        "run_dir": tmp_path,
    }
    return trainer(**(arguments | settings))


def loaders(kind: str) -> Any:
    data = rows(30)
    if kind == "ours":
        return Loader(data, batch_size=4, shuffle=True)
    if kind == "torch":
        return DataLoader(data, batch_size=4, shuffle=True)
    if kind == "sampler":
        return DataLoader(data, batch_size=4, sampler=WeightedRandomSampler([1.0] * 30, 30))
    return batches(8)


@pytest.mark.parametrize("kind", ["ours", "torch", "sampler", "list"])
def test_every_resume_reads_the_same_samples_and_ends_the_same(kind: str, tmp_path: Path) -> None:
    samples: list[tuple[int, float]] = []
    record = Recorder(lambda trainer, batch, batch_idx: samples.append((batch_idx, batch[0].sum().item())))
    straight = build(tmp_path, callbacks=[record])
    result = straight.fit(loaders(kind), val())
    for step in range(1, 15):
        whole, samples[:] = list(samples), []
        again = build(tmp_path / f"again_{step}", seed=99, callbacks=[record])
        resumed = again.fit(loaders(kind), val(), ckpt_path=tmp_path / f"checkpoints/step_{step:08d}")
        assert samples == whole[2 * step :]
        samples[:] = whole
        assert (resumed.global_step, resumed.metrics, resumed.best) == (14, result.metrics, result.best)
        assert is_bitwise_equal(weights(again), weights(straight))


class Lines(Logger):
    """Keeps (step, name, value) of each logged metric."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str, float]] = []

    def log_metrics(self, metrics: Any, step: int) -> None:
        self.lines += [(step, name, value) for name, value in metrics.items()]


class Sampled(Regression):
    """Also returns a Python number, and a metric that only some micro-batches have. Rows are counted by the source."""

    def forward(self, batch: Any) -> dict[str, Any]:
        outputs: dict[str, Any] = super().forward(batch)
        total = batch[0].sum().item()
        return outputs | {"total": total} | ({"rare": outputs["loss"].detach().double() / 3} if total > 0 else {})


@pytest.mark.parametrize("kind", ["ours", "sampler", "list"])
def test_every_resume_logs_the_same_means(kind: str, tmp_path: Path) -> None:
    """Catches a mean that contains only the steps after the resume. Steps are logged at 4, 8, 12 and 14."""
    straight = Lines()
    settings: dict[str, Any] = {"model": lambda: Sampled(dropout=0.3), "log_every_n_steps": 4}
    build(tmp_path, loggers=[straight], **settings).fit(loaders(kind), val())
    assert {step for step, name, _ in straight.lines if name == "train/rare"} == {4, 8, 12, 14}
    for step in (1, 4, 6, 11, 13):
        again = Lines()
        folder = tmp_path / f"checkpoints/step_{step:08d}"
        build(tmp_path / f"again_{step}", loggers=[again], **settings).fit(loaders(kind), val(), ckpt_path=folder)
        is_saved = [each for each in straight.lines if each[0] > step or (each[0] == step and "val/" in each[1])]
        assert again.lines == is_saved


def test_a_checkpoint_of_a_version_without_means_begins_them_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The mean of step 4 is over steps 3 and 4 if the run was resumed at step 2."""
    losses: list[float] = []

    class Watching(Callback):
        def on_train_batch_end(self, ours: Any, model: Any, outputs: Any, *_: Any) -> None:
            losses.append(outputs["loss"].item())

    lines, again = Lines(), Lines()
    settings: dict[str, Any] = {"log_every_n_steps": 4, "schedulers": None, "loop": TrainingLoop(max_steps=4)}
    build(tmp_path, loggers=[lines], callbacks=[Watching()], **settings).fit(batches(8))
    folder = step_folder(tmp_path, 2)
    trees = read_trees(folder)
    assert [*trees["state"]["metrics"].pop("train_sums")] == ["loss", "error"]
    write_trees(folder, trees)
    build(tmp_path / "again", loggers=[again], **settings).fit(batches(8), ckpt_path=folder)
    assert lines.lines[0][2] == pytest.approx(sum(losses) / 4)
    assert again.lines[0][2] == pytest.approx(sum(losses[2:]) / 2)
    said = "The checkpoint of step 2 is of an older version, which did not save the means of the training metrics"
    assert [message.split(":")[0] for message in caplog.messages] == [said]


def test_a_run_directory_means_its_newest_checkpoint(tmp_path: Path) -> None:
    build(tmp_path).fit(loaders("ours"), val())
    again = build(tmp_path, loop=TrainingLoop(**(LOOP | {"num_steps": 20})), schedulers=None)
    with pytest.raises(CheckpointError, match="schedulers: a list of 1, expected a list of 0"):
        again.fit(loaders("ours"), val(), ckpt_path=tmp_path)


def test_a_later_end_is_allowed_and_other_differences_are_refused(tmp_path: Path) -> None:
    build(tmp_path, schedulers=None).fit(loaders("ours"), val())
    longer = build(tmp_path / "longer", schedulers=None, loop=TrainingLoop(**(LOOP | {"num_steps": 20})))
    assert longer.fit(loaders("ours"), val(), ckpt_path=tmp_path).global_step == 20
    other = build(tmp_path / "other", schedulers=None, loop=TrainingLoop(**(LOOP | {"grad_accum_steps": 3})))
    with pytest.raises(SettingError, match=re.escape("grad_accum_steps")):
        other.fit(loaders("ours"), val(), ckpt_path=tmp_path)


DATA: dict[str, Any] = {"batch_size": 34, "shuffle": True}
KINDS: dict[str, Any] = {"ours": Loader, "torch": DataLoader, "subclass": type("Own", (DataLoader,), {})}


@pytest.mark.parametrize(
    ("kind", "data", "settings", "message"),
    [
        *[(kind, {"batch_size": 40}, {}, r"data\.batch_size: 34 -> 40") for kind in KINDS],
        ("ours", {"shuffle": False}, {}, r"data\.order: shuffled -> in order"),
        ("torch", {"shuffle": False}, {}, r"data\.order: shuffled -> in order"),
        ("subclass", {"shuffle": False}, {}, r"data\.order: RandomSampler -> SequentialSampler"),
        (
            "torch",
            {"shuffle": False, "sampler": WeightedRandomSampler([1.0] * 100, 100)},
            {},
            r"data\.order: shuffled -> Weigh",
        ),
        (
            "ours",
            {"drop_last": True, "batch_size": 33},
            {},
            r"data\.batch_size: 34 -> 33; data\.drop_last: false -> true",
        ),
        ("ours", {"dataset": rows(99)}, {}, r"data\.num_samples: 100 -> 99"),
        ("ours", {}, {"optimizer": sgd}, r"optimizer: AdamW -> SGD"),
        ("ours", {}, {"log_every_n_steps": 7}, r"log_every_n_steps: 50 -> 7"),
    ],
)
def test_other_data_and_settings_are_refused_with_their_names(
    kind: str, data: Any, settings: Any, message: str, tmp_path: Path
) -> None:
    begun = {"dataset": rows(100), **DATA}
    loop = TrainingLoop(max_steps=4)
    build(tmp_path, schedulers=None, loop=loop).fit(KINDS[kind](**begun), val())
    other = build(tmp_path / "other", schedulers=None, loop=loop, **settings)
    with pytest.raises(SettingError, match=rf"^ckpt_path=.*other settings \({message}"):
        other.fit(KINDS[kind](**(begun | data)), val(), ckpt_path=tmp_path)
    assert other.global_step == 0


def saved_on_another_device(run_dir: Path, device: str | None) -> Path:
    """Return a checkpoint of a fit, changed as if it were saved on ``device``; None: by a version that saved none."""
    build(run_dir, schedulers=None, loop=TrainingLoop(max_steps=4)).fit(Loader(rows(100), **DATA), val())
    checkpoint = read_checkpoint(run_dir / "checkpoints" / "step_00000004")
    settings = {**checkpoint.state["settings"], "device": device}
    if device is None:
        del settings["device"]
    return write_checkpoint(run_dir / "other", {**checkpoint.state, "settings": settings}, step=4)


def test_a_device_that_auto_chose_is_refused_if_the_run_was_saved_on_another(tmp_path: Path) -> None:
    elsewhere = saved_on_another_device(tmp_path / "a", "xpu")
    loop, data = TrainingLoop(max_steps=8), Loader(rows(100), **DATA)
    here = open_device("auto").torch_device.type
    ours = build(tmp_path / "b", schedulers=None, loop=loop, device="auto")
    with pytest.raises(
        SettingError, match=rf"device: xpu -> {here}, which auto chose; with device='{here}' it resumes"
    ):
        ours.fit(data, val(), ckpt_path=elsewhere)
    chosen = build(tmp_path / "c", schedulers=None, loop=loop, device="cpu")
    assert chosen.fit(data, val(), ckpt_path=elsewhere).global_step == 8


def test_a_checkpoint_of_a_version_that_saved_no_device_is_resumed(tmp_path: Path) -> None:
    older = saved_on_another_device(tmp_path / "a", None)
    ours = build(tmp_path / "b", schedulers=None, loop=TrainingLoop(max_steps=8), device="auto")
    assert ours.fit(Loader(rows(100), **DATA), val(), ckpt_path=older).global_step == 8


def test_other_workers_and_the_same_data_by_another_loader_are_not_refused(tmp_path: Path) -> None:
    build(tmp_path, schedulers=None).fit(Loader(rows(100), **DATA), val())
    for index, data in enumerate((Loader(rows(100), num_workers=1, **DATA), DataLoader(rows(100), **DATA))):
        loop = TrainingLoop(**(LOOP | {"num_steps": 16}))
        longer = build(tmp_path / str(index), schedulers=None, loop=loop)
        assert longer.fit(data, val(), ckpt_path=tmp_path / "checkpoints/step_00000014").global_step == 16


def test_a_checkpoint_of_a_version_without_saves_at_validations_is_resumed_with_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = TrainingLoop(max_steps=4, eval_frequency=2)
    older = build(tmp_path, schedulers=None, loop=loop, checkpoint=Checkpointing(at_validations=False))
    older.fit(batches(8), val())
    assert steps_in(tmp_path) == {4}
    folder = step_folder(tmp_path, 4)
    trees = read_trees(folder)
    assert trees["state"]["plan"].pop("checkpoint.at_validations") is False
    write_trees(folder, trees)
    longer = TrainingLoop(max_steps=8, eval_frequency=2)
    again = build(tmp_path, schedulers=None, loop=longer, checkpoint=Checkpointing())
    assert again.fit(batches(8), val(), ckpt_path="last").global_step == 8
    assert f"{folder}: checkpoint.at_validations: false -> true." in caplog.messages
    assert steps_in(tmp_path) == {4, 6, 8}


def test_num_steps_of_an_interrupted_run_are_counted_from_its_start(tmp_path: Path) -> None:
    def stop(trainer: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 5:
            trainer.stop("test")

    build(tmp_path, callbacks=[Recorder(stop)]).fit(loaders("ours"), val())
    again = build(tmp_path / "again")
    result = again.fit(loaders("ours"), val(), ckpt_path=tmp_path)
    assert (result.global_step, result.plan.total_steps, result.plan.fit_steps) == (14, 9, 14)


def test_weights_alone_begin_at_step_0(tmp_path: Path) -> None:
    straight = build(tmp_path)
    straight.fit(loaders("ours"), val())
    started: list[Any] = []

    class Watching(Callback):
        def on_fit_start(self, trainer: Any, train_dataloader: Any, val_dataloader: Any, loop: Any) -> None:
            started.append((trainer.global_step, weights(trainer)))

    fresh = trainer(TrainingLoop(num_steps=2), model=lambda: Regression(dropout=0.3), callbacks=[Watching()])
    assert fresh.fit(loaders("ours"), init_from=tmp_path).global_step == 2
    assert started[0][0] == 0 and is_bitwise_equal(started[0][1], weights(straight))
    with pytest.raises(SettingError, match="expected step 0, but this trainer is at step 2"):
        fresh.fit(loaders("ours"), init_from=tmp_path)
    with pytest.raises(SettingError, match="expected only one of them"):
        fresh.fit(loaders("ours"), init_from=tmp_path, ckpt_path=tmp_path)


def test_last_and_best_mean_checkpoints_of_this_run(tmp_path: Path) -> None:
    ours = build(tmp_path, loop=TrainingLoop(num_steps=6, eval_frequency=1), schedulers=None)
    ours.fit(loaders("ours"), val())
    best = ours.best
    assert best is not None
    assert ours.validate(val(), ckpt_path="best")["val/loss"] == best.value
    assert ours.validate(val(), ckpt_path="last")["val/loss"] == ours.metrics["val/loss"]
    with pytest.raises(CheckpointError, match="no run_dir"):
        trainer().validate(val(), ckpt_path="last")


def test_validating_a_checkpoint_leaves_the_weights_in_memory_alone(tmp_path: Path) -> None:
    ours = build(tmp_path)
    ours.fit(loaders("ours"), val())
    before = weights(ours)
    in_memory = ours.validate(val())
    rows_of = ours.validate_all({"a": val(), "b": val()}, [tmp_path / "checkpoints/step_0000001*", tmp_path])
    assert [row.checkpoint.name for row in rows_of[::2]] == [
        *[f"step_{step:08d}" for step in (10, 11, 12, 13, 14)],
    ]
    assert [row.dataloader for row in rows_of[:2]] == ["val/a", "val/b"]
    assert rows_of[-2].metrics["val/a/loss"] == pytest.approx(in_memory["val/loss"])
    assert is_bitwise_equal(weights(ours), before) and ours.global_step == 14


def test_a_checkpoint_of_another_model_is_refused_with_its_names(tmp_path: Path) -> None:
    build(tmp_path, schedulers=None).fit(loaders("ours"))
    other = trainer(model=lambda: torch.nn.Linear(4, 1))
    with pytest.raises(CheckpointError, match=r"step_00000014: .*layers\.0\.weight"):
        other.validate(val(), ckpt_path=tmp_path)


def test_a_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        trainer().fit(batches(5), ckpt_path=tmp_path / "none")
    with pytest.raises(CheckpointError, match="none"):
        trainer().validate_all(val(), tmp_path / "none*")


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_used(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    straight = build(tmp_path)
    straight.fit(loaders("ours"), val())
    for step in (12, 13, 14):
        file = tmp_path / f"checkpoints/step_{step:08d}" / name
        file.write_bytes(file.read_bytes()[:-1])
    again = build(tmp_path)
    assert again.fit(loaders("ours"), val(), ckpt_path="last").global_step == 14
    assert is_bitwise_equal(weights(again), weights(straight))
    (said,) = [message for message in caplog.messages if "; using step_" in message]
    assert said.startswith(f"{tmp_path}/checkpoints/step_00000014: {name}: ")
    assert said.endswith("; using step_00000011 instead.")
    for file in tmp_path.glob(f"checkpoints/*/{name}"):
        file.unlink()
    with pytest.raises(CheckpointError, match="no checkpoint passes verification: ") as caught:
        build(tmp_path).fit(loaders("ours"), val(), ckpt_path="last")
    assert str(caught.value).count(f"{name}: missing") == 14


def test_callbacks_get_their_state_back(tmp_path: Path) -> None:
    class Counting(Callback):
        def __init__(self) -> None:
            self.count = 0

        def on_train_batch_end(self, *args: Any) -> None:
            self.count += 1

        def state_dict(self) -> dict[str, Any]:
            return {"count": self.count}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.count = state_dict["count"]

    straight, again = Counting(), Counting()
    build(tmp_path, callbacks=[straight]).fit(loaders("ours"), val())
    build(tmp_path / "again", callbacks=[again]).fit(
        loaders("ours"), val(), ckpt_path=tmp_path / "checkpoints/step_00000004"
    )
    assert again.count == straight.count
    with pytest.raises(CheckpointError, match=r"callbacks\.Counting: not in this run"):
        build(tmp_path / "other").fit(loaders("ours"), val(), ckpt_path=tmp_path)


def test_saving_and_resuming_by_hand(tmp_path: Path) -> None:
    data = loaders("ours")
    ours = trainer(TrainingLoop(max_steps=4), optimizer=sgd)
    ours.fit(data)
    ours.save_checkpoint(tmp_path / "mine")
    again = trainer(TrainingLoop(max_steps=9), optimizer=sgd)
    again.fit(data, ckpt_path=tmp_path / "mine")
    straight = trainer(TrainingLoop(max_steps=9), optimizer=sgd)
    straight.fit(loaders("ours"))
    assert is_bitwise_equal(weights(again), weights(straight))


def test_a_monitored_scheduler_gets_its_state_back(tmp_path: Path) -> None:
    plateau = {
        "scheduler": partial(torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=2, threshold=1e9),
        "monitor": "val/loss",
    }
    settings: dict[str, Any] = {"schedulers": [plateau], "loop": TrainingLoop(num_steps=9, eval_frequency=1)}
    straight = build(tmp_path, **settings)
    straight.fit(loaders("ours"), val())
    again = build(tmp_path / "again", **settings)
    again.fit(loaders("ours"), val(), ckpt_path=tmp_path / "checkpoints/step_00000005")
    assert again.schedulers[0].state_dict() == straight.schedulers[0].state_dict()
    assert is_bitwise_equal(weights(again), weights(straight))


class Row(torch.nn.Linear):
    """A linear model for the rows of `synthetic_regression`."""

    def forward(self, batch: Any) -> torch.Tensor:
        return torch.nn.functional.mse_loss(super().forward(batch["features"])[:, 0], batch["target"])


def calls_and_batch_of_first_step(fit: Callable[[Callback], object]) -> tuple[int, Any]:
    """Return the function calls (Python and C) up to the end of the first step of a fit, and the first batch."""
    num_calls, first_batch = 0, None

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal num_calls
        num_calls += event in ("call", "c_call")

    def leave(trainer: Any, batch: Any, batch_idx: int) -> None:
        nonlocal first_batch
        sys.setprofile(None)
        first_batch = batch
        trainer.stop("test")

    gc.collect()
    gc.disable()  # a collection during the fit would call finalizers
    sys.setprofile(count)
    try:
        fit(Recorder(leave))
    finally:
        sys.setprofile(None)
        gc.enable()
    return num_calls, first_batch


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer adds calls")
def test_a_resume_at_step_1000000_makes_as_many_calls_as_at_step_10(tmp_path: Path) -> None:
    """Positions in the order of a billion samples, and in the plan, are computed directly, not by counting up."""
    data = synthetic_regression(num_train=10**9, num_val=8)

    def fit(record: Callback, run_dir: str, ckpt_path: Path | None = None) -> None:
        loop = TrainingLoop(max_steps=2 * 10**6, eval_frequency=300)
        save = Checkpointing(every_n_steps=300)
        ours = trainer(loop, model=partial(Row, 16, 1), checkpoint=save, run_dir=tmp_path / run_dir, callbacks=[record])
        ours.fit(data.train, data.val, ckpt_path=ckpt_path)

    fit(Recorder(lambda trainer, batch, batch_idx: trainer.global_step == 10 and trainer.stop("test")), "run")
    state = read_checkpoint(tmp_path / "run/checkpoints/step_00000010").state
    num_calls = {}
    for number, step in enumerate((10, 10**6, 10)):  # the first call fills caches, and is measured again at the end
        position = {"global_step": step, "pass_index": 0, "micro_batch_index": step, "num_validated": 0}
        path = write_checkpoint(tmp_path / f"at_{step}", {**state, "position": position}, step=step)
        run_dir = f"again_{number}"
        num_calls[step], batch = calls_and_batch_of_first_step(partial(fit, run_dir=run_dir, ckpt_path=path))
        assert is_bitwise_equal(batch, next(as_source(data.train, 0).read(0, step)))
    assert num_calls[10**6] == pytest.approx(num_calls[10], rel=0.01)
