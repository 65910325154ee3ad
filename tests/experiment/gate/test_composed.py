"""Targets hidden in files, overrides and interpolations are composed by Hydra, and none is imported."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from gate_attacks import NO_TRUST, PLANTED, nothing_imported
from loopwright.errors import SettingError
from loopwright.experiment.gate.hydra_tree import check_hydra_tree
from loopwright.experiment.gate.resolve import resolve
from loopwright.experiment.gate.targets import check_targets

pytestmark = pytest.mark.hydra

EVIL = f"{PLANTED}.Model"

# Contents of conf/experiment/stranger.yaml in a directory of the user. An override selects this file.
FILES = {
    "plain": f"model: {{_target_: {EVIL}}}",
    "alias": f"a: &a {{_target_: {EVIL}}}\nmodel: *a",
    "merge key": f"a: &a {{_target_: {EVIL}}}\nmodel: {{<<: *a, x: 1}}",
    "interpolated name": f"x: {EVIL}\nmodel: {{_target_: '${{x}}'}}",
    "joined name": f"x: {PLANTED}\nmodel: {{_target_: '${{x}}.Model'}}",
    "interpolated node": f"x: {{y: {{_target_: {EVIL}}}}}\nmodel: ${{x.y}}",
    "node as name": f"x: {{_target_: {EVIL}}}\nmodel: {{_target_: '${{x}}'}}",
    "selected": f"x: {{_target_: {EVIL}}}\nmodel: '${{oc.select:x}}'",
    "created": f"model: ${{oc.create:{{_target_:{EVIL}}}}}",
    "decoded": f"model: ${{oc.decode:'{{_target_:{EVIL}}}'}}",
    "values": f"x: {{a: {{_target_: {EVIL}}}}}\nmodel: ${{oc.dict.values:x}}",
    "list": f"callbacks: [{{_target_: {EVIL}}}]",
    "args": f"model: {{_target_: torch.nn.Sequential, _args_: [{{_target_: {EVIL}}}]}}",
    "partial": f"optimizer: {{_target_: {EVIL}, _partial_: true}}",
    "defaults list": "defaults: [/model: stranger]",
    "relocated": "defaults: [/model@loop.deep: stranger]",
    "hydra callbacks": f"hydra: {{callbacks: {{x: {{_target_: {EVIL}}}}}}}",
    "hydra callbacks by defaults": "defaults: [override /hydra/callbacks: stranger]",
    "hydra launcher": f"hydra: {{launcher: {{_target_: {EVIL}}}}}",
    "hydra launcher by defaults": "defaults: [override /hydra/launcher: stranger]",
    "hydra sweeper": f"hydra: {{sweeper: {{_target_: {EVIL}}}}}",
    "hydra sweeper by defaults": "defaults: [override /hydra/sweeper: stranger]",
    "hydra sweeper parameters": "hydra: {sweeper: {params: {model: stranger}}}",
    "job logging ()": f"hydra: {{job_logging: {{handlers: {{x: {{(): {EVIL}}}}}}}}}",
    "job logging class": f"hydra: {{job_logging: {{handlers: {{console: {{class: {EVIL}}}}}}}}}",
    "job logging by defaults": "defaults: [override /hydra/job_logging: stranger]",
    "hydra logging ()": f"hydra: {{hydra_logging: {{formatters: {{x: {{(): {EVIL}}}}}}}}}",
    "environment": "hydra: {job: {env_set: {LD_PRELOAD: x.so}}}",
    "environment copied": "hydra: {job: {env_copy: [PATH]}}",
    "name of the log file": "hydra: {job: {name: ../../x}}",
    "run directory": "hydra: {run: {dir: /tmp/elsewhere}}",
    "sweep directory": "hydra: {sweep: {dir: /tmp/elsewhere}}",
    "mode": "hydra: {mode: MULTIRUN}",
    "recorded overrides": "hydra: {overrides: {task: [model=stranger]}}",
    "output directory": "hydra: {runtime: {output_dir: /tmp/elsewhere}}",
    "output subdirectory": "hydra: {output_subdir: ../..}",
    "verbose": "hydra: {verbose: true}",
    "help": "hydra: {help: {template: x}}",
}
OVERRIDES = [
    f"+model._target_={EVIL}",
    f"+x={{_target_:{EVIL}}}",
    f"+x=[{{_target_:{EVIL}}}]",
    f"+x.y.z={{a:[1,{{_target_:{EVIL},_partial_:true}}]}}",
    f"+hydra.callbacks.x._target_={EVIL}",
    f"+hydra.callbacks={{x:{{_target_:{EVIL}}}}}",
    f"hydra.launcher._target_={EVIL}",
    f"hydra.sweeper._target_={EVIL}",
    "hydra/launcher=stranger",
    "hydra/sweeper=stranger",
    "hydra/callbacks=stranger",
    "hydra/job_logging=stranger",
    f"hydra.job_logging.handlers.console.class={EVIL}",
    "+hydra.job.env_set.PATH=/tmp",
    "hydra.job.name=../x",
    "hydra.output_subdir=/tmp/x",
    "hydra.mode=MULTIRUN",
]


Opened = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """A directory of configuration files that Hydra has opened, and the `hydra` node composed from them alone."""
    directory = tmp_path_factory.mktemp("gate")
    files = {
        "config.yaml": "defaults: [_self_]\nmodel: {}\nloop: {}\nhydra: {run: {dir: outputs}}",
        "experiment/none.yaml": "{}",
        "model/stranger.yaml": f"_target_: {EVIL}",
        "hydra/callbacks/stranger.yaml": f"x: {{_target_: {EVIL}}}",
        "hydra/launcher/stranger.yaml": f"_target_: {EVIL}",
        "hydra/sweeper/stranger.yaml": f"_target_: {EVIL}",
        "hydra/job_logging/stranger.yaml": f"version: 1\nroot: null\nhandlers: {{x: {{'()': {EVIL}}}}}",
    }
    for name, body in files.items():
        (directory / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / "conf" / name).write_text(body + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Hydra 1.3 warns without a version_base, Hydra 1.4 with one
        context = initialize_config_dir(str(directory / "conf"), version_base="1.3")
    with context:
        # Composing once imports the modules that Hydra itself needs, before the tests compare imports.
        yield directory, hydra_tree(compose("config", return_hydra_config=True))


def hydra_tree(config: DictConfig) -> dict[str, Any]:
    tree = OmegaConf.to_container(config.hydra, resolve=False)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def check(overrides: list[str], pristine: dict[str, Any]) -> Any:
    config = compose("config", overrides=overrides, return_hydra_config=True)
    check_hydra_tree(hydra_tree(config), pristine, overrides)
    OmegaConf.set_struct(config, False)
    config.pop("hydra")
    plain = resolve(config)
    check_targets(plain, NO_TRUST)
    return plain


@pytest.mark.parametrize("place", FILES)
def test_no_file_runs_code(place: str, opened: Opened) -> None:
    directory, pristine = opened
    body = f"# @package _global_\n{FILES[place]}\n"
    (directory / "conf" / "experiment" / "stranger.yaml").write_text(body)
    with nothing_imported(directory), pytest.raises(SettingError) as caught:
        check(["+experiment=stranger"], pristine)
    assert len(str(caught.value).splitlines()) == 1
    assert os.environ["PATH"] not in str(caught.value)


@pytest.mark.parametrize("override", OVERRIDES)
def test_no_override_runs_code(override: str, opened: Opened) -> None:
    directory, pristine = opened
    with nothing_imported(directory), pytest.raises(SettingError) as caught:
        check([override], pristine)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "override", ["hydra.run.dir=/tmp/mine", "hydra.sweep.dir=mine", "hydra.sweep.subdir=x", "hydra.verbose=true"]
)
def test_the_command_line_may_set_directories(override: str, opened: Opened) -> None:
    check([override], opened[1])


def test_a_typed_directory_does_not_permit_another_in_a_file(opened: Opened) -> None:
    directory, pristine = opened
    (directory / "conf" / "experiment" / "stranger.yaml").write_text(
        "# @package _global_\nhydra: {run: {dir: x}, sweep: {dir: y}}\n"
    )
    with pytest.raises(SettingError, match=r"^hydra\.sweep\.dir='y': .*only the command line may change it"):
        check(["+experiment=stranger", "hydra.run.dir=typed"], pristine)


def test_ordinary_configurations_are_accepted(opened: Opened) -> None:
    directory, pristine = opened
    body = "# @package _global_\nname: mine\nmodel: {_target_: torch.nn.Linear, in_features: '${width}'}\nwidth: 3\n"
    (directory / "conf" / "experiment" / "mine.yaml").write_text(body)
    plain = check(["+experiment=mine", "+model.out_features=4"], pristine)
    assert plain["model"] == {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 4}
