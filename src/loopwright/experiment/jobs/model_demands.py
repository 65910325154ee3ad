"""Functions for the settings of a shipped model that the data determine, such as its number of input features.

`filled` sets the values that the user has not chosen. `check_demands` refuses values that do not fit the data. Its
error message contains all values to type.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from loopwright.data import Loader, Splits
from loopwright.data.sets.table_encoding import TableData
from loopwright.data.sets.table_faults import typed
from loopwright.errors import SettingError
from loopwright.experiment.gate.tree import TARGET
from loopwright.experiment.jobs.job import Job
from loopwright.models import CNN, GPT, MLP, MLPRegressor, ViT

_Batch = Mapping[str, Tensor]

_OPTIONS: dict[type, str] = {MLP: "mlp", MLPRegressor: "mlp_regressor", CNN: "cnn", ViT: "vit", GPT: "gpt"}
_TAKEN = {
    MLP: "features (or image) and label",
    MLPRegressor: "features (or image) and target",
    CNN: "image and label",
    ViT: "image and label",
    GPT: "tokens",
}
_LEAST_CNN_SIZE = 4  # pixels; the two pooling layers of model=cnn reduce a smaller image to 0 pixels
_MOST_CLASSES = 100  # a message suggests classification only for a column with at most this number of different values


@dataclass(frozen=True, slots=True)
class _Demand:
    """The value that a setting must have to fit the data.

    Attributes:
        value: value that fits.
        reason: text after the value in a message.
        is_least: whether larger values also fit.
        is_known: whether the value is certain. A value computed from the highest label or token of a sample is not
            certain, because a row outside the sample can contain a higher label or token.
    """

    value: int
    reason: str
    is_least: bool = False
    is_known: bool = True

    @property
    def text(self) -> str:
        """The value and its reason. In a message, this text follows the word ``expected``."""
        return f"{'at least ' if self.is_least else ''}{self.value}, {self.reason}"

    def accepts(self, value: Any) -> bool:
        """Return whether the model fits the data with this value.

        The result is True for a value that is not an int, because the model refuses this value.
        """
        if not isinstance(value, int):
            return True
        return value >= self.value if self.is_least else value == self.value


def is_shipped(node: Mapping[str, Any]) -> bool:
    """Return whether a section ``model`` names a class whose settings `filled` can set."""
    return _kind_of(node) is not None


def filled(batch: Any, data: Splits, job: Job) -> Job:
    """Return a copy of the job with the model settings that the data determine, and a note about these settings.

    A setting is not changed if its value fits the data, if the user has chosen its value, or if the new value is not
    certain.

    Args:
        batch: samples of the training data, on the CPU.
        data: data of the run.
        job: job with a composed configuration.
    """
    node = job.config["model"]
    kind = _kind_of(node)
    if kind is None or not isinstance(batch, Mapping) or not _takes(kind, batch):
        return job
    defaults = {name: each.default for name, each in inspect.signature(kind).parameters.items()}
    values: dict[str, int | float] = {
        name: demand.value
        for name, demand in _demands(kind, batch, data).items()
        if demand.is_known and name not in job.chosen_in_model and not demand.accepts(node.get(name, defaults[name]))
    }
    deviation = _deviation(data) if kind is MLPRegressor and "target_deviation" not in job.chosen_in_model else None
    if deviation is not None and deviation != node.get("target_deviation", defaults["target_deviation"]):
        values["target_deviation"] = deviation
    if not values:
        return job
    shown = [f"model.{name}={f'{value:.4g}' if isinstance(value, float) else value}" for name, value in values.items()]
    note = f"{', '.join(shown)}: from the data"
    if "target_deviation" in values:
        note += "; mean_absolute_error has the unit of the target"
    if kind is MLP and _fitting_model(batch) is CNN:
        note += "; model=cnn is made for images"
    return replace(job, config={**job.config, "model": {**node, **values}}, notes=(*job.notes, note))


def check_demands(model: nn.Module, batch: Any, data: Splits, job: Job) -> None:
    """Refuse a shipped model whose settings do not fit the data. The message lists every setting to type.

    A model may have more classes than the data only if the user has chosen the number. The job of a recorded run is not
    checked, because its settings cannot be changed.

    Args:
        model: model with or without weights. A model whose class is not shipped is not checked.
        batch: samples of the training data, on the CPU.
        data: data of the run.
        job: job returned by `filled`, with this model and these data.

    Raises:
        SettingError: if settings do not fit the data, or if only another shipped model can use the data.
    """
    kind = type(model)
    if kind not in _OPTIONS or not isinstance(batch, Mapping) or job.source is None:
        return
    if not _takes(kind, batch):
        _refuse_model(kind, batch, data, job)
        return
    given = _given(model)
    wrong = {name: demand for name, demand in _demands(kind, batch, data).items() if not demand.accepts(given[name])}
    has_more_classes = "num_classes" in wrong and given["num_classes"] > wrong["num_classes"].value
    if has_more_classes and "num_classes" in job.chosen_in_model:
        del wrong["num_classes"]
    if not wrong:
        return
    remedy = f". Type {_line(wrong)}" if len(wrong) > 1 else ""
    problems = "; ".join(f"model.{name}={given[name]}: expected {demand.text}" for name, demand in wrong.items())
    first = next(iter(wrong))
    raise SettingError(first, f"{problems.removeprefix(f'model.{first}')}{remedy}.")


def note_more_classes(model: nn.Module | None, data: Splits, job: Job) -> tuple[str, ...]:
    """Return a note for the plan if the user chose a number of classes above the number of classes in the data."""
    if not isinstance(model, MLP | CNN | ViT) or "num_classes" not in job.chosen_in_model:
        return ()
    num_classes = _num_classes(data)
    if num_classes is None or model.num_classes <= num_classes:
        return ()
    noun = "class" if num_classes == 1 else "classes"
    return (f"model.num_classes={model.num_classes}: the data have {num_classes} {noun}",)


def _kind_of(node: Mapping[str, Any]) -> type | None:
    """Return the class that a section ``model`` names if it is in `_OPTIONS`, otherwise None."""
    target = node.get(TARGET)
    names = {kind: (f"loopwright.models.{kind.__name__}", f"{kind.__module__}.{kind.__name__}") for kind in _OPTIONS}
    return next((kind for kind, known in names.items() if target in known), None)


def _refuse_model(kind: type, batch: _Batch, data: Splits, job: Job) -> None:
    """Refuse a model that cannot use the data if another shipped model can. The message names the other model."""
    other = _fitting_model(batch)
    if other is None:
        return
    demands = _demands(other, batch, data)
    # The user must type only these settings; `filled` sets all others.
    typed_again = {name: each for name, each in demands.items() if name in job.chosen_in_model or not each.is_known}
    line = " ".join([f"model={_OPTIONS[other]}", *([_line(typed_again)] if typed_again else [])])
    if kind is not MLP or other is not MLPRegressor or not isinstance(data.train.dataset, TableData):
        found = ", ".join(map(str, batch))
        raise SettingError("model", f"={_OPTIONS[kind]}: takes {_TAKEN[kind]}, but the data has {found}. Type {line}.")
    assert data.encoding is not None, "csv() returns an encoding"
    name = data.encoding["target"]["name"]
    remedy = f"To predict the number, type {line}"
    num_numbers = _num_numbers(data)
    if num_numbers <= _MOST_CLASSES:
        as_classes = typed({**(job.config["data"].get("types") or {}), name: "category"})
        values = {"in_features": demands["in_features"].value, "num_classes": num_numbers}
        classifier = "".join(f" model.{each}={value}" for each, value in values.items() if each in job.chosen_in_model)
        remedy += f"; to classify, type {as_classes}{classifier}"
    raise SettingError("model", f"=mlp: classifies, but column {name} contains numbers. {remedy}.")


def _num_numbers(data: Splits) -> int:
    """Return the number of different numbers in the target column of a table."""
    loaders = [each for each in (data.train, data.val) if isinstance(each, Loader)]
    return len({number for loader in loaders for number in loader.dataset.tensors["target"].tolist()})


def _takes(kind: type, batch: _Batch) -> bool:
    if kind is GPT:
        return "tokens" in batch
    answer = "target" if kind is MLPRegressor else "label"
    return answer in batch and ("image" in batch or (kind in (MLP, MLPRegressor) and "features" in batch))


def _fitting_model(batch: _Batch) -> type | None:
    """Return the class of a shipped model that can use the batch, or None if no shipped model can use it."""
    for kind in (CNN, MLP, MLPRegressor, GPT):
        if _takes(kind, batch) and (kind is not CNN or _image_size(batch) >= _LEAST_CNN_SIZE):
            return kind
    return None


def _image_size(batch: _Batch) -> int:
    """Return the height of square images in pixels, or 0 for other images."""
    shape = batch["image"].shape
    return shape[2] if len(shape) == 4 and shape[2] == shape[3] else 0


def _given(model: nn.Module) -> dict[str, int]:
    """Return the settings of a shipped model that depend on the data."""
    if isinstance(model, CNN | ViT):
        in_channels, image_size, _ = model.image_shape
        return {"in_channels": in_channels, "image_size": image_size, "num_classes": model.num_classes}
    if isinstance(model, MLP):
        return {"in_features": model.in_features, "num_classes": model.num_classes}
    if isinstance(model, MLPRegressor):
        return {"in_features": model.in_features, "num_targets": model.num_targets}
    assert isinstance(model, GPT)
    return {"context_length": model.context_length, "vocab_size": model.vocab_size}


def _demands(kind: type, batch: _Batch, data: Splits) -> dict[str, _Demand]:
    """Return the settings of a shipped model that the data determine, with the required values."""
    demands = {}
    if kind is GPT:
        tokens = batch["tokens"]
        if tokens.ndim == 2:
            reason = "the number of input tokens in a row of the data"
            demands["context_length"] = _Demand(tokens.shape[1] - 1, reason, is_least=True)
        if (vocab_size := _recorded(data, "tokens", "vocab_size")) is not None:
            demands["vocab_size"] = _Demand(vocab_size, "the number of different tokens", is_least=True)
        elif (highest := _highest(tokens)) is not None:
            reason = f"because the data has the token {highest}"
            demands["vocab_size"] = _Demand(highest + 1, reason, is_least=True, is_known=False)
        return demands
    if kind in (MLP, MLPRegressor):
        sample = batch["features"] if "features" in batch else batch["image"]
        demands["in_features"] = _Demand(sample.shape[1:].numel(), "the number of values in a sample")
    elif _image_size(batch):
        demands["in_channels"] = _Demand(batch["image"].shape[1], "the number of channels of an image")
        demands["image_size"] = _Demand(_image_size(batch), "the height and width of an image")
    if kind is MLPRegressor:
        demands["num_targets"] = _Demand(batch["target"].shape[1:].numel(), "the number of targets of a sample")
    elif (num_classes := _num_classes(data)) is not None:
        demands["num_classes"] = _Demand(num_classes, "the number of classes")
    elif (highest := _highest(batch["label"])) is not None:
        reason = f"because the data has the label {highest}"
        demands["num_classes"] = _Demand(highest + 1, reason, is_least=True, is_known=False)
    return demands


def _highest(numbers: Tensor) -> int | None:
    """Return the highest label or token.

    Return None if the highest value is negative, the dtype is not int64 or uint8, or the tensor is empty.
    """
    if numbers.dtype not in (torch.int64, torch.uint8) or not numbers.numel():
        return None
    highest = int(numbers.max())
    return highest if highest >= 0 else None


def _num_classes(data: Splits) -> int | None:
    """Return the number of classes in the encoding of the data, or None if the encoding contains no such number."""
    target = (data.encoding or {}).get("target")
    classes = target.get("classes") if isinstance(target, Mapping) else None
    return len(classes) if isinstance(classes, list | tuple) else _recorded(data, "target", "num_classes")


def _deviation(data: Splits) -> float | None:
    """Return the number by which the targets were divided, or None if the encoding contains no such number."""
    target = (data.encoding or {}).get("target")
    value = target.get("deviation") if isinstance(target, Mapping) else None
    return value if isinstance(value, float) else None


def _recorded(data: Splits, entry: str, name: str) -> int | None:
    """Return the integer ``encoding[entry][name]`` of the data, or None if there is no such integer."""
    values = (data.encoding or {}).get(entry)
    value = values.get(name) if isinstance(values, Mapping) else None
    return value if isinstance(value, int) else None


def _line(demands: Mapping[str, _Demand]) -> str:
    return " ".join(f"model.{name}={demand.value}" for name, demand in demands.items())
