"""`Supervised`: a model that consists of any module and any loss function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from loopwright.errors import SettingError, did_you_mean, refuse, refuse_type
from loopwright.models.classification import accuracy, predict_classes

Key = int | str
# Losses that compare each element of the output with the same element of the target.
_ELEMENTWISE = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
_NO_CLASS = -100  # default of ``ignore_index`` in torch's cross entropy
_LABELS = "labels"  # name of the targets in a batch for ``transformers``
_WITHOUT_LOSS = "Without a loss function, net must return a mapping that contains loss."


class Supervised(nn.Module):
    """A model that passes entries of a batch to a module, such as a module of ``torchvision`` or ``timm``.

    With a loss function, ``model(batch)`` computes ::

        output = net(*inputs)              # entries of the batch
        loss = loss(output, *targets)      # other entries of the batch

    and returns ``loss``, ``output`` and ``target``. The loss must be a mean over the samples of the batch.
    ``model.predict(batch)`` returns the output of ``net`` and needs no targets.

    If the loss is torch's cross entropy and the output has the shape (samples, classes), the model is a classifier:

    - For one target of shape (samples,) with the numbers of the classes, the model also returns ``accuracy``, the
      fraction of the samples whose largest output is the output of the target class. If ``ignore_index`` of the loss is
      not -100, there is no accuracy, because the loss ignores samples. A target of -100 counts as wrong, although
      torch ignores this target by default.
    - ``predict`` returns ``prediction``, the most likely class, and ``probability``, of shape (samples, classes).

    Torch's cross entropy is a ``torch.nn.CrossEntropyLoss``, the function ``torch.nn.functional.cross_entropy``, or a
    ``functools.partial`` of this function.

    Without a loss function, the module computes the loss itself, as the models of ``transformers`` do:
    ``net(**batch)`` returns a mapping with ``loss``. The model returns the tensors in this mapping.

    Args:
        net: module to train.
        loss: function of the output and the targets, such as ``torch.nn.CrossEntropyLoss()``; None: ``net`` returns the
            loss.
        inputs: entry of the batch that is passed to ``net``: a position in a tuple or list, or a name in a mapping. A
            sequence names one entry for each argument of ``net``. Ignored without ``loss``.
        targets: entry of the batch that is passed to ``loss`` after the output, or a sequence of entries. The default
            is 1. Without ``loss``, these entries are not passed to ``net`` by `predict`, and the default is ``labels``.

    Raises:
        SettingError: for an invalid argument, such as a loss with ``reduction="sum"``. `forward` raises this
            error if a batch does not have an entry that ``inputs`` or ``targets`` names, or if ``loss`` is None
            and ``net`` does not return a loss.

    >>> import torch
    >>> model = Supervised(nn.Linear(4, 3), nn.CrossEntropyLoss())
    >>> sorted(model((torch.ones(2, 4), torch.tensor([0, 2]))))
    ['accuracy', 'loss', 'output', 'target']
    >>> model.predict((torch.ones(2, 4),))["probability"].shape
    torch.Size([2, 3])
    >>> Supervised(nn.Linear(4, 3), nn.MSELoss()).predict((torch.ones(2, 4),)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Callable[..., Tensor] | None = None,
        inputs: Key | Sequence[Key] = 0,
        targets: Key | Sequence[Key] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise refuse_type("net", net, "a torch.nn.Module")
        if loss is not None and not callable(loss):
            raise refuse_type("loss", loss, "a function of the output and the target, or null")
        _check_mean(loss)
        self.net = net
        self.loss = loss
        self._ignored_class = _ignored_class(loss)
        self._compares_elements = isinstance(loss, _ELEMENTWISE)
        self._inputs = _check_keys("inputs", inputs)
        self._targets = _check_keys("targets", (_LABELS if loss is None else 1) if targets is None else targets)

    def forward(self, batch: Any) -> dict[str, Any]:
        """Compute the output, the loss and, for a classifier, the accuracy of a batch."""
        if self.loss is None:
            return _with_loss(self.net(**_as_arguments(batch)))
        targets = [_part(batch, key, "targets") for key in self._targets]
        output = self.net(*self._parts_of(batch))
        target: Any = targets[0] if len(targets) == 1 else tuple(targets)
        if self._compares_elements and output.shape != target.shape:
            raise _other_shapes(output, target)
        outputs = {"loss": self.loss(output, *targets), "output": output, "target": target}
        if self._ignored_class == _NO_CLASS and _is_per_class(output) and _is_class_numbers(target):
            outputs["accuracy"] = accuracy(output, target)
        return outputs

    def predict(self, batch: Any) -> Any:
        """Return the output of ``net`` for a batch, or classes and probabilities. The batch needs no targets.

        A classifier returns a mapping with ``prediction``, the most likely class, and ``probability``. Without
        ``loss``, the result is a mapping with the tensors that ``net`` returns, except ``loss``.
        """
        if self.loss is not None:
            output = self.net(*self._parts_of(batch))
            is_classifier = self._ignored_class is not None and _is_per_class(output)
            return predict_classes(output) if is_classifier else output
        given = {name: value for name, value in _as_arguments(batch).items() if name not in self._targets}
        return {name: value for name, value in _tensors(self.net(**given)).items() if name != "loss"}

    def _parts_of(self, batch: Any) -> list[Any]:
        return [_part(batch, key, "inputs") for key in self._inputs]


def _other_shapes(output: Tensor, target: Tensor) -> TypeError:
    """Return the error for an output and a target of different shapes. Broadcasting them would give a wrong loss."""
    shapes = f"an output of shape {tuple(output.shape)} and a target of shape {tuple(target.shape)}"
    remedy = "reshape one of them, for example with nn.Flatten(0) at the end of net"
    return TypeError(f"The loss got {shapes}: expected equal shapes; {remedy}.")


def _check_mean(loss: Callable[..., Tensor] | None) -> None:
    """Refuse a loss with reduction "none" or "sum", because the losses of micro-batches are averaged."""
    reduction = getattr(loss, "reduction", None)
    if isinstance(loss, partial):
        reduction = loss.keywords.get("reduction")
    if reduction in ("none", "sum"):
        problem = f": expected a mean over the samples, found reduction={reduction!r}; use reduction=mean"
        raise SettingError("loss", f"{problem}, because the losses of micro-batches are averaged.")


def _ignored_class(loss: Callable[..., Tensor] | None) -> int | None:
    """Return the ``ignore_index`` of a cross entropy of torch; None for another loss."""
    if isinstance(loss, nn.CrossEntropyLoss):
        return loss.ignore_index
    function, settings = (loss.func, loss.keywords) if isinstance(loss, partial) else (loss, {})
    return settings.get("ignore_index", _NO_CLASS) if function is functional.cross_entropy else None


def _is_per_class(output: Any) -> bool:
    """Return whether an output of ``net`` has the shape (samples, classes)."""
    return isinstance(output, Tensor) and output.ndim == 2


def _is_class_numbers(target: Any) -> bool:
    """Return whether a target has one class for each sample. Probabilities of the classes have two dimensions."""
    return isinstance(target, Tensor) and target.ndim == 1 and not target.is_floating_point()


def _check_keys(setting: str, given: Key | Sequence[Key]) -> tuple[Key, ...]:
    expected = "a position such as 0, a name such as image, or a list of them"
    keys = (given,) if isinstance(given, int | str) else given
    if not isinstance(keys, Sequence) or not keys:
        raise refuse_type(setting, given, expected)
    for key in keys:
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise refuse_type(setting, given, expected)
        if isinstance(key, int) and key < 0:
            raise refuse(setting, given, expected)
    return tuple(keys)


def _part(batch: Any, key: Key, setting: str) -> Any:
    """Return an entry of a batch. If the batch is not a mapping, tuple or list, entry 0 is the batch itself."""
    if isinstance(batch, Mapping):
        if key in batch:
            return batch[key]
        hint = did_you_mean(str(key), map(str, batch))
        problem = f"a name in the batch, which has {', '.join(map(str, batch))}.{hint}"
    elif isinstance(batch, tuple | list):
        if isinstance(key, int) and key < len(batch):
            return batch[key]
        problem = f"a position below {len(batch)}, because the batch is a {type(batch).__name__} of this length."
    else:
        if key == 0:
            return batch
        problem = f"0, because the batch is one object of class {type(batch).__name__}."
    raise SettingError(setting, f"={key!r}: expected {problem}")


def _as_arguments(batch: Any) -> Mapping[str, Any]:
    if not isinstance(batch, Mapping):
        problem = f": expected a loss function, because the batch is an object of class {type(batch).__name__}."
        raise SettingError("loss", f"{problem} Without a loss function, net(**batch) needs a mapping.")
    return batch


def _tensors(returned: Any) -> dict[str, Any]:
    if not isinstance(returned, Mapping):
        problem = f": expected a loss function, because net returned an object of class {type(returned).__name__}."
        raise SettingError("loss", f"{problem} {_WITHOUT_LOSS}")
    return {str(name): value for name, value in returned.items() if isinstance(value, Tensor)}


def _with_loss(returned: Any) -> dict[str, Any]:
    outputs = _tensors(returned)
    if "loss" not in outputs:
        listed = ", ".join(outputs) or "no tensors"
        problem = f": expected a loss function, because net returned no loss, but {listed}."
        raise SettingError("loss", f"{problem} {_WITHOUT_LOSS} Check that the batch contains the targets.")
    return outputs
