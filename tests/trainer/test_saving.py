"""Checkpoints that a run keeps: the newest, the best, every kth; at every moment, and after kills and resumes."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopwright import Callback, Checkpointing, TrainingLoop
from loopwright.checkpoint import step_folder, steps_in, verify_checkpoint, write
from loopwright.errors import CheckpointError, SettingError
from loopwright.plan import Save
from tiny import Recorder, batches, trainer

NUM_STEPS = 12


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip syncs: they take most of the time, and do not affect which checkpoints are kept."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Killed(Exception):
    """Simulates the end of a killed process."""


class Scores(Callback):
    """Logs a given ``val/score`` for each validated step."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores = scores
        self.validated: list[Path | None] = []

    def on_validate_end(self, ours: Any, *_: Any) -> None:
        self.validated.append(ours.validation_checkpoint)
        ours.log_metrics(**{"val/score": self.scores[ours.global_step]})


class Case(NamedTuple):
    """A run with its saves and validations, and the checkpoints that it must keep."""

    checkpoint: Checkpointing
    scores: Sequence[float]
    eval_every: int | None = 1

    def build(self, run_dir: Path, *callbacks: Callback, max_steps: int = NUM_STEPS) -> Any:
        loop = TrainingLoop(max_steps=max_steps, eval_frequency=self.eval_every)
        listeners = [Scores(self.scores), *callbacks]
        return trainer(loop, checkpoint=self.checkpoint, callbacks=listeners, run_dir=run_dir)

    def saves(self) -> list[int]:
        every = self.checkpoint.every_n_steps or NUM_STEPS
        is_also_saved = self.validates if self.checkpoint.at_validations else lambda step: False
        return [
            step for step in range(1, NUM_STEPS + 1) if step % every == 0 or step == NUM_STEPS or is_also_saved(step)
        ]

    def validates(self, step: int) -> bool:
        return self.eval_every is not None and (step % self.eval_every == 0 or step == NUM_STEPS)

    def best_of(self, steps: Sequence[int]) -> list[int]:
        """Return the best validated step, the first of equal ones; an empty list if no step is validated."""
        validated = [step for step in steps if self.validates(step)]
        sign = 1 if self.checkpoint.mode == "min" else -1
        return [min(validated, key=lambda step: (sign * self.scores[step], step))] if validated else []

    def kept(self) -> list[int]:
        """Return the steps that must be kept at the end; the last step is validated after the last removal."""
        saves, keep_last, keep_every = self.saves(), self.checkpoint.keep_last, self.checkpoint.keep_every
        if keep_last is None:
            return saves
        multiples = [step for step in saves if keep_every and step % keep_every == 0]
        return sorted({*saves[-keep_last:], *self.best_of(saves[:-1]), *multiples})


@st.composite
def cases(draw: st.DrawFn) -> Case:
    every = draw(st.integers(1, 4))
    keep_last = draw(st.none() | st.integers(1, 4))
    keep_every = None if keep_last is None else draw(st.none() | st.integers(1, 3).map(lambda n: n * every))
    mode = draw(st.sampled_from(["min", "max"]))
    scores = draw(st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=NUM_STEPS + 1, max_size=NUM_STEPS + 1))
    eval_every = draw(st.sampled_from([None, 1, 2, 3]))
    settings = {"at_validations": draw(st.booleans()), "background": draw(st.booleans())}
    return Case(Checkpointing(every, keep_last, keep_every, "val/score", mode, **settings), scores, eval_every)


def fit(ours: Any, **arguments: Any) -> Any:
    return ours.fit(batches(5), {"x": batches(1)}, **arguments)


def found(run_dir: Path) -> list[int]:
    """Return the steps of the checkpoints; all must be valid, and there must be no other files."""
    return [verify_checkpoint(folder).step for folder in sorted((run_dir / "checkpoints").iterdir())]


def killed_at(step: int) -> Callback:
    def kill(ours: Any, *_: Any) -> None:
        if ours.global_step == step:
            raise Killed

    return Recorder(kill)


many = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(case=cases())
@many
def test_kept_checkpoints_follow_the_rules_and_best_is_one_of_them(tmp_path: Path, case: Case) -> None:
    ours = case.build(tmp_path)
    result = fit(ours)
    assert found(tmp_path) == case.kept()
    best = case.best_of(case.saves())
    if case.checkpoint.at_validations and best:
        assert [result.best.step] == best
    if best:
        assert ours.validate({"x": batches(1)}, ckpt_path="best")["val/score"] == case.scores[best[0]]
    else:
        with pytest.raises(CheckpointError, match=r"no best checkpoint is known|which was not saved"):
            ours.validate({"x": batches(1)}, ckpt_path="best")
    shutil.rmtree(tmp_path / "checkpoints")


@given(case=cases(), stops=st.lists(st.integers(1, NUM_STEPS), max_size=3))
@many
def test_a_run_that_was_killed_and_resumed_keeps_the_same(tmp_path: Path, case: Case, stops: list[int]) -> None:
    is_saved = False
    for stop in sorted(stops):
        killed = case.build(tmp_path, killed_at(stop))
        if is_saved and max(found(tmp_path)) >= stop:
            continue
        with pytest.raises(Killed):
            fit(killed, ckpt_path="last" if is_saved else None)
        is_saved = (tmp_path / "checkpoints").is_dir()
    again = case.build(tmp_path)
    fit(again, ckpt_path="last" if is_saved else None)
    assert found(tmp_path) == case.kept()
    shutil.rmtree(tmp_path / "checkpoints")


class Watching:
    """Replaces `os`, and counts the checkpoints after every operation that changes a folder."""

    def __init__(self, run_dir: Path) -> None:
        self.counts: list[int] = []
        self._root = run_dir / "checkpoints"

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in ("mkdir", "open", "write", "rename", "unlink"):
            return function

        def watched(*arguments: Any) -> Any:
            result = function(*arguments)
            self.count()
            return result

        return watched

    def rmtree(self, path: Path) -> None:
        for child in path.iterdir():
            child.unlink()
            self.count()
        path.rmdir()
        self.count()

    def count(self) -> None:
        named = self._root.glob("step_*") if self._root.exists() else []
        self.counts.append(
            len([verify_checkpoint(folder) for folder in named])
        )  # every checkpoint with a final name must be valid


def test_there_are_never_fewer_checkpoints_than_keep_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = Watching(tmp_path)
    monkeypatch.setattr(write, "os", watching)
    monkeypatch.setattr(write, "shutil", watching)
    case = Case(Checkpointing(1, 2, None, "val/score", "min"), [0.5] * 4 + [0.1] + [0.5] * NUM_STEPS)
    fit(case.build(tmp_path))
    assert found(tmp_path) == [4, 11, 12]
    counts = watching.counts
    assert counts == sorted(counts[: counts.index(2)]) + counts[counts.index(2) :]
    assert (min(counts[counts.index(2) :]), max(counts), len(counts) > 300) == (2, 4, True)


def test_without_keep_last_nothing_is_removed(tmp_path: Path) -> None:
    fit(Case(Checkpointing(1), [0.5] * 13).build(tmp_path))
    assert found(tmp_path) == [*range(1, 13)]


def test_damaged_checkpoints_do_not_count_among_the_newest(tmp_path: Path) -> None:
    case = Case(Checkpointing(1, 3), [0.5] * 13, eval_every=None)
    with pytest.raises(Killed):
        fit(case.build(tmp_path, killed_at(9)))
    assert found(tmp_path) == [6, 7, 8]
    weights = step_folder(tmp_path, 7) / "model.safetensors"
    weights.write_bytes(b"x" * weights.stat().st_size)
    with pytest.raises(Killed):
        fit(case.build(tmp_path, killed_at(10)), ckpt_path="last")
    # step 6 is kept until there are three newer valid checkpoints
    assert steps_in(tmp_path) == {6, 7, 8, 9}
    with pytest.raises(Killed):
        fit(case.build(tmp_path, killed_at(11)), ckpt_path="last")
    assert found(tmp_path) == [8, 9, 10]
    with pytest.raises(Killed):
        fit(case.build(tmp_path / "other", killed_at(3)))
    damaged = step_folder(tmp_path / "other", 1) / "state.json"
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    with pytest.raises(Killed):
        fit(case.build(tmp_path / "other", killed_at(4)), ckpt_path="last")
    assert [path.name for path in sorted((tmp_path / "other/checkpoints").iterdir())] == [
        "step_00000001", "step_00000002", "step_00000003",
    ]  # fmt: skip


def test_files_that_do_not_belong_to_the_run_are_not_touched(tmp_path: Path) -> None:
    case = Case(Checkpointing(1, 2), [0.5] * 13, eval_every=None)
    root = tmp_path / "checkpoints"
    with pytest.raises(Killed):
        fit(case.build(tmp_path, killed_at(4)))
    assert found(tmp_path) == [2, 3]
    shutil.copytree(root / "step_00000002", root / "step_2")
    shutil.copytree(root / "step_00000002", root / "mine")
    (root / "step_00000001").mkdir()
    (root / "step_00000001" / "notes.txt").touch()
    (root / "step_00000020").symlink_to(root / "step_00000003")
    foreign = {"step_2", "mine", "step_00000001", "step_00000020"}
    with pytest.raises(Killed):
        fit(case.build(tmp_path, killed_at(5)), ckpt_path=root / "step_00000003")
    assert {path.name for path in root.iterdir()} == {"step_00000003", "step_00000004"} | foreign


def contents(run_dir: Path) -> dict[str, bytes]:
    files = [path for path in run_dir.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in files}


@pytest.mark.parametrize("how", ["new", "init_from", "resumed elsewhere", "folder of a user"])
def test_a_run_directory_with_checkpoints_of_another_run_is_refused(tmp_path: Path, how: str) -> None:
    """Otherwise the saves would replace the checkpoints of the other run."""
    case = Case(Checkpointing(2), [0.5] * 13, eval_every=None)
    fit(case.build(tmp_path / "a"))
    fit(case.build(tmp_path / "b"))
    starts: dict[str, dict[str, Any]] = {
        "init_from": {"init_from": tmp_path / "b"},
        "resumed elsewhere": {"ckpt_path": step_folder(tmp_path / "b", 4)},
    }
    if how == "folder of a user":
        shutil.rmtree(tmp_path / "a")
        step_folder(tmp_path / "a", 4).mkdir(parents=True)
        (step_folder(tmp_path / "a", 4) / "notes.txt").touch()
    before = contents(tmp_path / "a")
    found_there = "step_00000004" if how == "folder of a user" else "step_00000002, …, step_00000012"
    with pytest.raises(SettingError) as caught, case.build(tmp_path / "a") as ours:
        fit(ours, **starts.get(how, {}))
    assert str(caught.value) == (
        f"run_dir={str(tmp_path / 'a')!r}: expected a directory without checkpoints of another run, found "
        f'{found_there}; name a new directory, or resume the other run with fit(…, ckpt_path="last").'
    )
    assert contents(tmp_path / "a") == before


def test_later_fits_of_a_run_continue_in_its_directory(tmp_path: Path) -> None:
    case = Case(Checkpointing(2), [0.5] * 13, eval_every=None)
    with case.build(tmp_path) as ours:
        ours.save_checkpoint(step_folder(tmp_path, 0))
        with pytest.raises(SettingError, match="micro-batch"):
            ours.fit([])
        fit(ours)
        fit(ours)  # nothing is left to train
        fit(ours, ckpt_path=step_folder(tmp_path, 6))
    with case.build(tmp_path) as again:
        fit(again, ckpt_path=step_folder(tmp_path, 4))
    assert found(tmp_path) == [0, 2, 4, 6, 8, 10, 12]


def test_later_checkpoints_are_reported_once_after_a_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = Case(Checkpointing(2), [0.5] * 13, eval_every=None)
    fit(case.build(tmp_path))
    assert not caplog.messages
    with pytest.raises(Killed):
        fit(case.build(tmp_path, killed_at(9)), ckpt_path=step_folder(tmp_path, 4))
    folder = step_folder(tmp_path, 12)
    said = "existed before this fit and has a later step: a resume would start from it, unless this fit replaces it."
    assert caplog.messages == [f"{folder} {said}"]
    (folder / "state.json").unlink()
    with pytest.raises(Killed):
        fit(case.build(tmp_path, killed_at(11)), ckpt_path=step_folder(tmp_path, 8))
    assert [message for message in caplog.messages[1:] if "before this fit" in message] == []


def test_a_run_resumed_elsewhere_has_its_own_best(tmp_path: Path) -> None:
    scores = [0.5, 0.5, 0.1, 0.5, 0.5, 0.3, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    case = Case(Checkpointing(1, 2, None, "val/score", "min"), scores)
    with pytest.raises(Killed):
        fit(case.build(tmp_path / "a", killed_at(5)))
    assert found(tmp_path / "a") == [2, 3, 4]
    ours = case.build(tmp_path / "b")
    result = fit(ours, ckpt_path=tmp_path / "a")
    assert found(tmp_path / "a") == [2, 3, 4]
    assert found(tmp_path / "b") == [5, 11, 12]
    assert result.best.step == 2
    assert ours.validate({"x": batches(1)}, ckpt_path="best")["val/score"] == 0.3


def test_a_trainer_resumed_at_an_earlier_step_forgets_later_steps(tmp_path: Path) -> None:
    case = Case(Checkpointing(2, 2, None, "val/score", "min"), [0.5] * 13, eval_every=None)
    ours = case.build(tmp_path)
    fit(ours)
    assert found(tmp_path) == [10, 12]
    fit(ours, ckpt_path=step_folder(tmp_path, 10))
    assert found(tmp_path) == [10, 12]


def test_the_best_by_a_training_metric_is_also_kept(tmp_path: Path) -> None:
    checkpoint, loop = Checkpointing(1, 1, None, "train/loss"), TrainingLoop(max_steps=NUM_STEPS)
    ours = trainer(loop, checkpoint=checkpoint, run_dir=tmp_path, log_every_n_steps=1)
    result = ours.fit(batches(NUM_STEPS))
    assert result.best is not None and result.best.step < NUM_STEPS
    assert found(tmp_path) == [result.best.step, NUM_STEPS]


@pytest.mark.parametrize("background", [False, True])
def test_the_best_step_has_a_checkpoint_by_default(tmp_path: Path, background: bool) -> None:
    scores = [0.5] * 4 + [0.3] * 4 + [0.1] * 4 + [0.2] * 13
    loop = TrainingLoop(max_steps=24, eval_frequency=4)
    checkpoint = Checkpointing(every_n_steps=10, keep_last=2, monitor="val/score", mode="min", background=background)
    callback = Scores(scores)
    ours = trainer(loop, checkpoint=checkpoint, callbacks=[callback], run_dir=tmp_path)
    result = fit(ours)
    assert [stage.step for stage in result.plan if isinstance(stage, Save)] == [4, 8, 10, 12, 16, 20, 24]
    assert result.best.step == 8
    assert found(tmp_path) == [8, 20, 24]
    assert ours.validate({"x": batches(1)}, ckpt_path="best")["val/score"] == 0.1
    assert callback.validated[-1] == step_folder(tmp_path, 8)


@given(scores=st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=13, max_size=13), keep_last=st.integers(1, 3))
@many
def test_there_is_at_most_one_checkpoint_besides_the_newest_at_each_step(
    tmp_path: Path, scores: list[float], keep_last: int
) -> None:
    """The best checkpoint before the last save is the only older one, and the best one is always there."""

    def check(ours: Any, *_: Any) -> None:
        saved = found(tmp_path) if ours.global_step > 3 else []
        assert len(saved) <= keep_last + 1
        best = ours.best.step if ours.best is not None else None
        assert best is None or best in saved

    case = Case(Checkpointing(5, keep_last, None, "val/score", "min"), scores, eval_every=3)
    fit(case.build(tmp_path, Recorder(check)))
    shutil.rmtree(tmp_path / "checkpoints")


def test_an_unsaved_best_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scores = [0.5, 0.1, 0.4, 0.3, 0.4, 0.5, 0.6] + [0.7] * 6
    settings = Checkpointing(2, None, None, "val/score", "min", at_validations=False)
    ours = Case(settings, scores).build(tmp_path)
    with pytest.raises(CheckpointError, match="contains no checkpoint"):
        ours.validate({"x": batches(1)}, ckpt_path="best")
    fit(ours)
    assert ours.validate({"x": batches(1)}, ckpt_path="best")["val/score"] == 0.4
    assert caplog.messages[-1] == (
        'ckpt_path="best": the best val/score is of step 1, which was not saved; the best saved step is 2.'
    )
    shutil.rmtree(step_folder(tmp_path, 2))
    with pytest.raises(CheckpointError, match="the best val/score is of step 1, which was not saved; give the path"):
        ours.validate({"x": batches(1)}, ckpt_path="best")


def test_a_checkpoint_that_cannot_be_removed_is_reported_and_the_fit_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def refuse(source: Any, target: Any) -> None:
        if Path(source).name == "step_00000001":
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    fit(Case(Checkpointing(1, 1), [0.5] * 13, eval_every=None).build(tmp_path, max_steps=3))
    assert found(tmp_path) == [1, 3]
    assert caplog.messages == [f"{tmp_path}: an older checkpoint cannot be removed: Permission denied."] * 2


def test_a_step_saved_after_a_stop_in_a_validation_can_be_the_best(tmp_path: Path) -> None:
    class Stopping(Callback):
        def on_validate_end(self, ours: Any, *_: Any) -> None:
            if ours.global_step == 5:
                ours.stop("enough")

    scores = [0.5, 0.5, 0.5, 0.5, 0.5, 0.1, 0.5] + [0.5] * 6
    case = Case(Checkpointing(4, 1, None, "val/score", "min", at_validations=False), scores)
    ours = case.build(tmp_path, Stopping())
    assert fit(ours).global_step == 5
    assert ours.validate({"x": batches(1)}, ckpt_path="best")["val/score"] == 0.1
    fit(case.build(tmp_path), ckpt_path="last")
    assert found(tmp_path) == [5, 12]


@pytest.mark.slow
def test_kills_during_a_save_or_a_removal_leave_only_valid_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is killed at each operation of a save and a removal, and resumed."""

    class Stopped(BaseException):
        pass

    case = Case(Checkpointing(1, 2), [0.5] * 13, eval_every=None)
    for stop_at in itertools.count(1):
        run_dir = tmp_path / str(stop_at)
        with pytest.raises(Killed):
            fit(case.build(run_dir, killed_at(4)))
        num_operations = itertools.count(1)

        class Stopping(Watching):
            def count(self, numbers: Any = num_operations, last: int = stop_at) -> None:
                super().count()
                if next(numbers) >= last:
                    raise Stopped

        watching = Stopping(run_dir)
        ours = case.build(run_dir, killed_at(5))
        with monkeypatch.context() as patch:
            patch.setattr(write, "os", watching)
            patch.setattr(write, "shutil", watching)
            try:
                fit(ours, ckpt_path="last")
            except Killed:
                break
            except Stopped:
                pass
        with pytest.raises(Killed):
            fit(case.build(run_dir, killed_at(6)), ckpt_path="last")
        assert found(run_dir) == [4, 5]
    assert stop_at > 30
