"""Targets that must be refused, places in a configuration to hide them, and a module that records its import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopwright.experiment.gate.trust import Trust

PLANTED = "planted_by_a_stranger"
NO_TRUST = Trust()


def plant(directory: Path) -> Path:
    """Write a module that creates a file when it is imported, and return the path of that file."""
    marker = directory / "it_ran"
    source = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Model:\n    pass\n"
    (directory / f"{PLANTED}.py").write_text(source)
    return marker


@contextmanager
def nothing_imported(directory: Path) -> Iterator[None]:
    """Make the module importable, and check afterwards that neither it nor any other module was imported."""
    marker = plant(directory)
    sys.path.insert(0, str(directory))
    before = set(sys.modules)
    try:
        yield
    finally:
        sys.path.remove(str(directory))
    assert not marker.exists()
    assert set(sys.modules) - before == set()


TARGETS = [
    f"{PLANTED}.Model",
    "os.system",
    "posix.system",
    "subprocess.run",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "open",
    "io.open",
    "pickle.loads",
    "shutil.rmtree",
    "importlib.import_module",
    "runpy.run_path",
    "webbrowser.open",
    "ctypes.CDLL",
    "pathlib.Path.write_text",
    "hydra.utils.call",
    "hydra.utils.instantiate",
    "omegaconf.OmegaConf.register_new_resolver",
    "functools.partial",
    "numpy.load",
    "joblib.load",
    "sklearn.datasets.fetch_openml",
    "torch.load",
    "torch.save",
    "torch.hub.load",
    "torch.jit.load",
    "torch.compile",
    "torch.utils.collect_env.run",
    "torch.utils.data.DataLoader",
    "torch.nn.modules.linear.Linear",
    "torch.nn.Linear.__init__",
    "torch.nn.Linear.__init__.__globals__",
    "torch.optim",
    "torch.nn",
    "loopwright",
    "loopwright.models",
    "loopwright.models.torch.load",
    "loopwright.models.MLP.load_state_dict",
    "loopwright.errors.difflib.get_close_matches",
    "loopwright.experiment.gate.instantiate.instantiate",
    "loopwright.Trainer",
    "loopwright.models.MLP ",
    " loopwright.models.MLP",
    "loopwright..models.MLP",
    "LOOPWRIGHT.models.MLP",
    ".os.system",
    "os:system",
    "\x1b[31mos.system",
    "",
]

# Functions from the name of a target to a configuration that contains it.
PLACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "top": lambda name: {"_target_": name},
    "model": lambda name: {"model": {"_target_": name, "command": "x"}},
    "loop": lambda name: {"loop": {"_target_": name}},
    "nested": lambda name: {
        "model": {
            "_target_": "torch.nn.Sequential",
            "_args_": [{"_target_": "torch.nn.Sequential", "_args_": [{"_target_": name}]}],
        }
    },
    "list": lambda name: {"callbacks": [{"_target_": "loopwright.models.MLP"}, [{"_target_": name}]]},
    "args": lambda name: {"model": {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": name}]}},
    "partial": lambda name: {"optimizer": {"_target_": name, "_partial_": True}},
    "argument": lambda name: {"model": {"_target_": "torch.nn.Linear", "in_features": {"_target_": name}}},
    "not recursive": lambda name: {
        "model": {"_target_": "torch.nn.Linear", "_recursive_": False, "in_features": {"_target_": name}}
    },
    "converted": lambda name: {"model": {"_target_": name, "_convert_": "object"}},
    "dotted key": lambda name: {"a.b": {"c]d": {"_target_": name}}},
    "number as key": lambda name: {1: {True: {"_target_": name}}},
    "beside a plain key": lambda name: {"name": "x", "extra": {"deep": {"deeper": {"_target_": name}}}},
}
