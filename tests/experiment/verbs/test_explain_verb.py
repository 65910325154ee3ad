"""``loopwright explain`` as its user sees it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer, environment
from loopwright.experiment.compose.composer import composing
from loopwright.experiment.explain.explained import explained, leaves
from loopwright.experiment.explain.explanation import explain_value
from loopwright.experiment.gate.trust import NO_TRUST
from loopwright.experiment.jobs.job import compose_jobs
from loopwright.shipped import conf_dir

Cli = Callable[..., Answer]

HEAVY = ("torch", "matplotlib", "numpy", "rich", "loopwright.experiment.launch", "loopwright.loggers")

ONE = """\
loop.eval_frequency = 200                                      int | float | str | None
  Steps between validations, or "1 epoch", or a fraction of the run in (0, 1]; null: never.
  set by       conf/loop/training.yaml:6
  instead of   1.0, default of TrainingLoop
  understood   after every 200 of 2,000 steps, 10 times
  change it    loop.eval_frequency=100
"""


def test_a_setting_is_explained(cli: Cli) -> None:
    assert cli("explain", "loop.eval_frequency") == Answer(0, ONE, "")


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["loop.grad_accum_steps"], ["  set by       conf/loop/training.yaml:8, equal to the default of TrainingLoop"]),
        (
            ["loop.max_steps", "loop.num_steps=20"],
            ["loop.max_steps = null", "  set by       Loopwright: loop.num_steps=20 was typed",
             "  instead of   2000, conf/loop/training.yaml:2"],
        ),
        (
            ["checkpoint.monitor"],
            ["  set by       conf/checkpoint/default.yaml:6, as ${objective}",
             "  reads        objective = val/loss, set by conf/config.yaml:"],
        ),
        (
            ["optimizer.eps"],
            ["optimizer.eps = 1e-08", "  Term added to the denominator of the update.",
             "  set by       default of adamw", "  change it    +optimizer.eps=5e-09"],
        ),
        (["data.path", "data=csv"], ["data.path = ??? (a value must be given)", "  change it    data.path=VALUE"]),
        (["device.waits.grace_seconds"], ["device.waits.grace_seconds = 600"]),
        (["optimizer.betas[1]"], ["optimizer.betas.1 = 0.999", "  set by       conf/optimizer/adamw.yaml:4"]),
        (["loop.eval_frequency", "loop.eval_frequency=1.5"], ["  set by       loop.eval_frequency=1.5"]),
        (["seed", "seed=null"], ["seed = null                                                    int | None"]),
        (["sweep.num_parallel", "sweep.num_parallel=4"], ["  understood   has an effect only with -m"]),
        (["model._target_"], ["  Classifies flattened images or table rows with fully connected layers."]),
    ],
    ids=lambda each: " ".join(each),
)  # fmt: skip
def test_the_answer_has_these_lines(cli: Cli, words: list[str], lines: list[str]) -> None:
    answer = cli("explain", *words)
    assert (answer.code, answer.err) == (0, "")
    for line in lines:
        assert f"\n{line}" in f"\n{answer.out}"


def test_a_class_of_the_user_is_not_read(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "net.yaml").write_text("# My net.\n_target_: mine.Net\nwidth: 3   # neurons\n")
    answer = cli("explain", "model.width", "model=net", "--config-dir=mine")
    assert answer.out == (
        f"{'model.width = 3':<61}  not read\n  Neurons.\n  set by       mine/model/net.yaml:3\n"
        "  change it    model.width=1\n"
    )
    assert "\n  *  net            My net.\n" in cli("explain", "model", "model=net", "--config-dir=mine").out


def test_a_group_lists_its_options_and_its_settings(cli: Cli) -> None:
    out = cli("explain", "scheduler").out
    assert out.startswith(f"{'scheduler = warmup_cosine':<61}  loopwright.optim.warmup_cosine\n")
    assert "  set by       conf/experiment/digits.yaml:8\n  change it    scheduler=constant\n" in out
    assert "\n  *  warmup_cosine        " in out and "\n     linear               " in out
    assert "    scheduler.warmup_steps    0    Steps with rising learning rate, a fraction" in out


def test_the_options_of_a_list_are_all_marked(cli: Cli) -> None:
    out = cli("explain", "callbacks", "callbacks=[default,ema]").out
    assert out.startswith("callbacks = [default,ema]\n  set by       callbacks=[default,ema]\n")
    marked = [line.split()[1] for line in out.splitlines() if line.startswith("  *")]
    assert marked == ["default", "ema", "learning_rate", "stop_on_non_finite"]
    assert "  change it    'callbacks=[default,ema,compression_baseline]'\n" in out


def test_a_group_without_settings_lists_its_options(cli: Cli) -> None:
    out = cli("explain", "experiment").out
    assert "\n  *  digits           A small network for handwritten digits." in out and "Settings" not in out


@pytest.mark.slow
def test_json_has_every_field(cli: Cli) -> None:
    one = json.loads(cli("explain", "loop.eval_frequency", "format=json").out)
    assert one["instead_of"] == [{"value": "1.0", "by": "default of TrainingLoop"}]
    assert list(one) == ["key", "value", "type", "meaning", "set_by", "instead_of", "reads", "understood", "change"]
    group = json.loads(cli("explain", "loop", "format=json").out)
    assert [each["name"] for each in group["options"] if each["is_chosen"]] == ["training"]
    assert group["keys"][0] == {
        "key": "loop.max_steps", "value": "2000", "set_by": "conf/loop/training.yaml:2",
        "meaning": "Steps (optimizer updates), counted across resumes.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "explain: expected a setting; use loopwright explain loop.eval_frequency, or loopwright explain model."),
        (["loop.eval_frq"], "explain loop.eval_frq: no such key. Did you mean loop.eval_frequency?"),
        (["max_steps"], "explain max_steps: no such key. Did you mean loop.max_steps?"),
        (["data.target"], "explain data.target: no such key. data=csv has this key."),
        (["optimizer.named_parameters"], "explain optimizer.named_parameters: no such key."),
        (
            ["seed=1", "model=cnn"],
            "seed=1: expected a setting; use loopwright explain seed seed=1 model=cnn.",
        ),
        (["seed", "format=xml"], "format='xml': expected text or json."),
        (["seed", "sed=1"], "sed=1: no such key. Did you mean seed?"),
        (["loop.grad_accum_steps", "loop=validation", "experiment=digits"], "explain loop.grad_accum_steps: no such"),
        (["loop.max_steps", "loop=validation", "experiment=gpt_stdlib"], "explain loop.max_steps: is not used, because "
         "the loop only validates; use loop=training."),
        (["seed", "-m"], "--multirun: cannot be used with explain."),
        (["a\x1b[31m"], "explain a\\x1b[31m: no such key."),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)  # fmt: skip
def test_a_wrong_command_is_refused_in_one_line(cli: Cli, words: list[str], error: str) -> None:
    answer = cli("explain", *words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith(error)


def test_a_value_of_the_environment_is_not_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_SECRET", "correct-horse")
    word = "data.path='${oc.env:OWN_SECRET}/x.csv'"
    answer = cli("explain", "data.path", "data=csv", word, "--allow-env=OWN_SECRET")
    assert answer.code == 0 and "correct-horse" not in answer.out
    assert answer.out.startswith("data.path = '${oc.env:OWN_SECRET}/x.csv'")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", sorted(file.stem for file in (conf_dir() / "experiment").glob("*.yaml")))
def test_each_suggested_override_is_accepted(experiment: str) -> None:
    with composing(None) as composer:
        chosen = [f"experiment={experiment}"]
        config = explained(composer, chosen)
        skipped = ("sweep", "init_strict", "init_optimizer")  # without -m or init_from, they have no effect
        found = [path for path, _ in leaves(config.values) if path[0] not in skipped and not path[-1].startswith("_")]
        jobs = [[*chosen, *shlex.split(explain_value(config, path).change)] for path in found]
        assert len(jobs) > 40
        for job in jobs:
            compose_jobs(composer, [job], NO_TRUST, finds_changes=False)


@pytest.mark.parametrize(
    "words", [["explain", "loop.eval_frequency"], ["explain", "callbacks"], ["config"], ["config", "origins=true"]]
)
def test_no_module_of_a_run_is_imported_and_hydra_composes_once(words: list[str], tmp_path: Path) -> None:
    code = f"""
import sys
from loopwright.cli import main
import hydra._internal.hydra, loopwright.experiment.verbs.composing_entry
num = 0
def count(frame, event, argument):
    global num
    num += event == "call" and frame.f_code is hydra._internal.hydra.Hydra.compose_config.__code__
sys.setprofile(count)
code = main({[*words, "model=cnn", "loop.num_steps=20"]!r})
sys.setprofile(None)
assert (code, num) == (0, 1), (code, num)
assert not [name for name in {HEAVY!r} if name in sys.modules], sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
