"""`Compiling`, the settings of `torch.compile`, and functions that check these settings and compile a model."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec

import torch
from torch import nn

from loopwright.device.blocks import find_blocks
from loopwright.errors import SettingError, did_you_mean, refuse, refuse_type

TARGETS = ("blocks", "model")
# The modes of `torch.compile`. Only the backend inductor has modes.
_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_INDUCTOR = "inductor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiling:
    """Settings of `torch.compile`.

    Args:
        target: "blocks" to compile the repeated blocks, "model" to compile the whole model.
        mode: mode of the backend inductor; None: the default mode.
        dynamic: whether the compiled code accepts tensors of any size; None: torch decides when a size changes.
        backend: name of a backend of `torch.compile`.

    Raises:
        SettingError: if a value is unknown or has a wrong type, or if ``mode`` is given with a backend except inductor.
    """

    target: str
    mode: str | None = None
    dynamic: bool | None = None
    backend: str = _INDUCTOR

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.target not in TARGETS:
            raise refuse(
                "compile.target", self.target, " or ".join(TARGETS), did_you_mean(str(self.target), TARGETS).strip()
            )
        if self.dynamic is not None and not isinstance(self.dynamic, bool):
            raise refuse_type("compile.dynamic", self.dynamic, "true, false or null")
        if not isinstance(self.backend, str):
            raise refuse_type("compile.backend", self.backend, "the name of a backend, such as inductor")
        if self.mode is not None and self.mode not in _MODES:
            expected, hint = f"one of {', '.join(_MODES)}, or null", did_you_mean(str(self.mode), _MODES)
            raise refuse("compile.mode", self.mode, expected, hint.strip())
        if self.mode is not None and self.backend != _INDUCTOR:
            raise refuse("compile.mode", self.mode, f"null with backend={self.backend}; only inductor has modes")

    def __str__(self) -> str:
        """Return the target and the settings that are not defaults, such as "model, backend=aot_eager"."""
        given = [field for field in fields(self) if getattr(self, field.name) != field.default]
        return ", ".join([self.target, *(f"{field.name}={getattr(self, field.name)}" for field in given[1:])])


def read_compiling(value: object) -> Compiling | None:
    """Convert the setting ``compile`` of a `Device` to a `Compiling`. None is returned unchanged.

    Args:
        value: a target, or a mapping with ``target`` and other fields of `Compiling`; None: nothing is compiled.

    Raises:
        SettingError: if ``value`` has another form, or if a key or a value of the mapping is invalid.
    """
    if value is None:
        return None
    expected = "blocks, model, null, or a mapping with target, mode, dynamic and backend"
    if isinstance(value, str):
        if value not in TARGETS:
            raise refuse("compile", value, expected, did_you_mean(value, TARGETS).strip())
        return Compiling(target=value)
    if not isinstance(value, Mapping):
        raise refuse_type("compile", value, expected)
    names = [field.name for field in fields(Compiling)]
    for name in value:
        if name not in names:
            raise SettingError(f"compile.{name}", f": no such key.{did_you_mean(str(name), names)}")
    if "target" not in value:
        raise SettingError("compile.target", f": expected {' or '.join(TARGETS)}, which are compiled.")
    given = {name: each for name, each in value.items() if (name, each) != ("backend", None)}
    return Compiling(**given)


def check_compiler(compiling: Compiling, device_type: str) -> None:
    """Check that torch has the backend, and that this machine has the compiler that the backend inductor uses.

    Args:
        compiling: settings of the compilation.
        device_type: type of the device in torch, such as "cuda".

    Raises:
        SettingError: if the backend is unknown; if inductor finds no C++ compiler on a CPU, or no Triton on a GPU.
    """
    if compiling.backend != _INDUCTOR:
        known = torch.compiler.list_backends(exclude_tags=())  # imports torch._dynamo, which takes 1 s
        if compiling.backend not in known:
            expected = f"{_INDUCTOR} or another backend that torch.compiler.list_backends() returns"
            raise refuse(
                "device.compile.backend", compiling.backend, expected, did_you_mean(compiling.backend, known).strip()
            )
        return
    remedy = "or use compile=null"
    if device_type == "cpu" and shutil.which(_cpp_compiler()) is None:
        problem = f"expected a C++ compiler on this machine; install {_cpp_compiler()}, {remedy}."
    elif device_type in ("cuda", "xpu") and find_spec("triton") is None:
        problem = f"expected Triton on this machine; pip install triton, {remedy}."
    else:
        return
    raise SettingError("device.compile", f"={compiling.target}: {problem}")


def compile_model(model: nn.Module, compiling: Compiling, block_classes: Sequence[str] | None) -> None:
    """Set up the compilation of a model or its repeated blocks in place. The first call of each module compiles it.

    The names of weights and modules, the hooks of modules, and ``model.state_dict()`` are not changed.

    torch caches the compiled code of each function, and runs a function in eager mode after 8 compilations of it. This
    function first clears the cache. The code of a run therefore does not depend on models that were compiled earlier in
    this process. The next call of such a model compiles it again.

    Args:
        model: model, on its device.
        compiling: settings of the compilation.
        block_classes: class names of the repeated blocks; None: the rules of `find_blocks`.

    Raises:
        SettingError: if ``compiling.target`` is "blocks" and the model has no such blocks.
    """
    torch.compiler.reset()
    for module in [model] if compiling.target == "model" else find_blocks(model, block_classes):
        module.compile(mode=compiling.mode, dynamic=compiling.dynamic, backend=compiling.backend)


def _cpp_compiler() -> str:
    """Return the command of the C++ compiler that the backend inductor runs."""
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
