"""Validation of one dataloader: where it ends, what is averaged, and what counts as its result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from loopwright import Callback, ValidationLoop
from loopwright.data import as_source
from loopwright.engine.hook_table import bind_hooks
from loopwright.engine.validate import ValidationSet, validate
from loopwright.errors import DataError
from loopwright.hooks import HOOKS
from loopwright.run_state import Interruption
from tiny import batches, parts


class Ready:
    """Ready batches that say they are ``length``; None: they do not say."""

    def __init__(self, num_batches: int, length: int | None) -> None:
        self.batches = batches(4)[:num_batches]
        self.length = length

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("no length")
        return self.length


def run(ours: Any, data: Any, max_batches: int, loop: ValidationLoop | None = None, name: str = "val") -> Any:
    dataset = ValidationSet(name=name, dataloader=data, source=as_source(data, 0))
    return validate(ours, loop or ValidationLoop(), dataset, max_batches)


@pytest.mark.parametrize(
    ("length", "message"),
    [(5, "ended after 4 of the 5 batches of its length"), (3, "has more than the 3 batches of its length")],
)
def test_a_dataloader_that_is_not_as_long_as_it_says_is_an_error(length: int, message: str) -> None:
    """Catches an average over fewer samples than the plan says; an end that was not reached is not looked for."""
    data = Ready(4, length)
    with pytest.raises(DataError, match=f"^val: the dataloader {message}"):
        run(parts(), data, length)
    assert set(run(parts(), data, 2)) == {"val/loss", "val/error"}


def test_without_a_length_an_early_end_is_a_warning_and_no_data_are_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """Catches a stream that is shorter than ``eval_steps``, of which nothing is known in advance."""
    ours = parts()
    assert run(ours, Ready(3, None), 5) == run(ours, Ready(3, 3), 3)
    assert caplog.messages == ["val: the dataloader ended after 3 of 5 batches."]
    with pytest.raises(DataError, match=r"^val: the dataloader is empty; expected at least one batch\.$"):
        run(parts(), Ready(0, None), 5)


def test_what_a_loop_predicts_is_averaged_in_place_of_the_models_outputs() -> None:
    """Catches a loop whose `predict` is not called, and averages that are not weighted by its items."""

    class Counting(ValidationLoop):
        def predict(self, model: Any, batch: Any) -> Any:
            size = len(batch[0])
            return {"size": float(size), "num_items": size}

    data = [batch[:1] for batch in (batches(1, 2)[0], batches(1, 6)[0])]
    assert run(parts(), data, 2, Counting()) == {"val/size": pytest.approx((2 * 2 + 6 * 6) / 8)}


def test_images_of_different_sizes_are_weighted_by_their_number() -> None:
    """Catches a weight of 3, the channels of the first image: a mean of 9.75 instead of 6."""

    class First(ValidationLoop):
        def predict(self, model: Any, batch: Any) -> Any:
            return {"mean": torch.stack([image.flatten()[0] for image in batch]).mean()}

    images = [torch.full((3, 2 + size, 2), float(value)) for size, value in enumerate((3, 3, 3, 15))]
    assert run(parts(), DataLoader(images, batch_size=3, collate_fn=list), 2, First()) == {"val/mean": 6.0}
    ragged = [[torch.zeros(3), torch.zeros(4)]] * 2
    assert run(parts(), ragged, 1, First()) == {"val/mean": 0.0}
    with pytest.raises(DataError, match=r"^num_items: the number of samples in the batch is unknown"):
        run(parts(), ragged, 2, First())


def test_a_loop_without_averages_logs_nothing_itself() -> None:
    """Catches an empty line in the metrics, and a count that is asked for where nothing is averaged."""

    class Silent(ValidationLoop):
        def predict(self, model: Any, batch: Any) -> Any:
            return {}

    ours = parts()
    told: list[Any] = []
    ours.log.connect((lambda *args: told.append(args),), ())
    assert run(ours, [["text"]], 1, Silent()) == {}
    assert told == []


def test_what_callbacks_log_meanwhile_belongs_to_the_result() -> None:
    """Catches a metric of a callback that a scheduler or a table of results does not see."""

    class Logging(Callback):
        def on_validate_end(self, *_: Any) -> None:
            ours.log.log({f"{ours.state.validation_name}/own": 1.0}, 0)

    ours = parts(Logging())
    assert list(run(ours, batches(2), 2, name="val/a")) == ["val/a/loss", "val/a/error", "val/a/own"]
    assert ours.state.validation_name is None


def test_a_loop_with_hooks_of_its_own_calls_no_others() -> None:
    """Catches a hook of validations that is called for a loop of another name, for its errors too."""
    told: list[str] = []

    class Probing(Callback):
        def on_probe_exception(self, trainer: Any, error: Exception) -> None:
            told.append(f"probe: {error}")

        def on_validate_exception(self, *_: Any) -> None:
            told.append("validate")

    loop, callbacks = ValidationLoop(hook="probe"), [("probing", Probing())]
    ours = parts(hooks=bind_hooks(callbacks, (*HOOKS, *loop.hook_names.values())))
    with pytest.raises(DataError):
        run(ours, Ready(0, None), 1, loop)
    assert told == ["probe: val: the dataloader is empty; expected at least one batch."]


def test_the_name_is_given_back_after_an_error_and_inside_another_validation() -> None:
    """Catches metrics of a later validation under the name of one that failed."""
    seen: list[str | None] = []

    class Nesting(Callback):
        def on_validate_start(self, *_: Any) -> None:
            if ours.state.validation_name == "outer":
                with pytest.raises(DataError):
                    run(ours, Ready(0, None), 1, name="inner")
                seen.append(ours.state.validation_name)

    ours = parts(Nesting())
    run(ours, batches(1), 1, name="outer")
    assert (seen, ours.state.validation_name) == (["outer"], None)


def test_an_interrupted_validation_ends_after_its_batch_and_logs_nothing() -> None:
    """Catches an average over a part of the data, and a signal that waits for a long validation."""
    seen: list[int] = []

    class Interrupting(Callback):
        def on_validate_batch_end(self, *args: Any) -> None:
            seen.append(args[-1])
            if args[-1] == 1:
                ours.stopping.ask("SIGTERM", is_interruption=True)

    ours = parts(Interrupting())
    with pytest.raises(Interruption):
        run(ours, batches(4), 4)
    assert (seen, ours.log.latest) == ([0, 1], {})


def test_no_gradients_are_kept_and_no_stream_of_the_training_is_moved() -> None:
    """Catches memory that grows with each batch, and a validation that changes what is trained after it."""
    seen: list[bool] = []

    class Watching(Callback):
        def on_validate_step_end(self, trainer: Any, model: Any, outputs: Any, batch: Any) -> None:
            seen.append(outputs["loss"].requires_grad)
            torch.rand(1)

    ours = parts(Watching())
    with ours.streams.active():
        before = torch.get_rng_state()
        run(ours, batches(2), 2)
        assert torch.equal(torch.get_rng_state(), before)
    assert seen == [False, False]
