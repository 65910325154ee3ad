"""A wheel that is installed in another environment trains a user's model outside the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MODEL = """
import torch
from torch import nn


class Mine(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, batch):
        return nn.functional.cross_entropy(self.layers(batch["image"]), batch["label"])
"""

WHERE = """
import json, sys
import loopwright
from loopwright.shipped import conf_dir
print(json.dumps({"package": loopwright.__file__, "conf": str(conf_dir()), "path": sys.path}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_trains_a_users_own_model_outside_the_repository(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", tmp_path / "wheels", ROOT, cwd=tmp_path)
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    (wheel,) = (tmp_path / "wheels").glob("loopwright-*.whl")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    # torch and other packages are found in this environment, after the packages of the new one. The editable install of
    # this environment is not found: Python reads .pth files only in the site-packages of the running environment.
    (site / "rest.pth").write_text(sysconfig.get_path("purelib") + "\n")

    work = tmp_path / "work"
    (work / "my_conf" / "model").mkdir(parents=True)
    (work / "my_models.py").write_text(MODEL)
    (work / "my_conf" / "model" / "mine.yaml").write_text("_target_: my_models.Mine\nwidth: 8\n")
    where = json.loads(run(python, "-c", WHERE, cwd=work))
    assert Path(where["package"]).is_relative_to(tmp_path / "venv")
    assert Path(where["conf"]).is_relative_to(tmp_path / "venv")
    assert not [entry for entry in where["path"] if Path(entry).resolve().is_relative_to(ROOT / "src")]
    assert str(ROOT) not in where["path"]

    loopwright = tmp_path / "venv" / "bin" / "loopwright"
    overrides = ["model=mine", "model.width=16", "loop.max_steps=20", "loop.eval_frequency=10"]
    run(loopwright, "--config-dir", "my_conf", "--trust", "my_models", *overrides, cwd=work)
    (summary,) = (work / "outputs").glob("*/*/summary.json")
    told = json.loads(summary.read_text())
    assert (told["state"], told["global_step"]) == ("completed", 20)
    assert "_target_: my_models.Mine" in (summary.parent / "config.yaml").read_text()

    refused = subprocess.run(
        [loopwright, "--config-dir", "my_conf", *overrides], cwd=work, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--trust my_models" in refused.stderr
