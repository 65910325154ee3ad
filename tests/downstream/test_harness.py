"""`EleutherEvalHarness` in a fit: its place in the plan, resuming, saved and shown results, and refused settings."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from loopwright import Callback, Checkpointing, Trainer, TrainingLoop, ValidationLoop
from loopwright.data import Loader
from loopwright.data.sets.text_windows import TextWindows
from loopwright.downstream import EleutherEvalHarness
from loopwright.errors import SettingError
from loopwright.loggers import JSONLinesLogger, ProgressLogger
from loopwright.models import GPT
from loopwright.plan import Downstream

pytest.importorskip("lm_eval", reason="needs the extra: pip install 'loopwright[eval]'")
pytestmark = pytest.mark.extras

CHOICE = """
task: letters
dataset_path: json
dataset_kwargs: {data_files: {test: letters.jsonl}}
test_split: test
fewshot_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
WRITE = """
include: letters.yaml
task: write
output_type: generate_until
doc_to_target: "{{choices[answer]}}"
doc_to_choice: null
generation_kwargs: {until: ["b"], max_gen_toks: 4, do_sample: true, temperature: 1.0, top_k: 5, top_p: 0.9}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
GROUP = """
group: both
task: [letters, write]
aggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: true}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a directory with two tasks and a group of them."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    documents = [{"question": f"{i}: ab", "choices": ["a", "bc"], "answer": i % 2} for i in range(6)]
    (tasks / "letters.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    for name, text in (("letters", CHOICE), ("write", WRITE), ("both", GROUP)):
        (tasks / f"{name}.yaml").write_text(text)
    return tasks


def data() -> Loader:
    return Loader(TextWindows(b"the quick brown fox jumps over the lazy dog " * 8, 16), batch_size=4, shuffle=True)


def build(run_dir: Path, callbacks: Any, num_steps: int = 8, **settings: Any) -> Trainer:
    return Trainer(
        model=partial(GPT, context_length=32, width=16, num_layers=1, num_heads=2, dropout=0.2),
        optimizer=partial(torch.optim.AdamW, lr=0.01),
        loop=TrainingLoop(max_steps=num_steps, eval_frequency=2),
        device="cpu",
        callbacks=callbacks,
        loggers={"json": JSONLinesLogger()},
        log_every_n_steps=2,
        run_dir=run_dir,
        **settings,
    )


def harness(folder: Path, **settings: Any) -> dict[str, EleutherEvalHarness]:
    return {"harness": EleutherEvalHarness(["both"], task_dir=folder, every_n_vals=2, name="words", **settings)}


def lines(run_dir: Path) -> list[str]:
    return (run_dir / "metrics.jsonl").read_text().splitlines()


def test_evaluations_do_not_change_the_training(folder: Path, tmp_path: Path) -> None:
    with build(tmp_path / "with", harness(folder, num_fewshot=1)) as ours:
        plan = ours.fit(data(), data()).plan
    with build(tmp_path / "without", {}) as plain:
        plain.fit(data(), data())
    assert tiny.is_bitwise_equal(tiny.weights(ours), tiny.weights(plain))
    assert [line for line in lines(tmp_path / "with") if '"words/' not in line] == lines(tmp_path / "without")
    assert [stage for stage in plan if isinstance(stage, Downstream)] == [
        Downstream(4, "words"),
        Downstream(8, "words"),
    ]
    timed = [json.loads(line) for line in (tmp_path / "with" / "timing.jsonl").read_text().splitlines()]
    assert [line["step"] for line in timed if line["name"] == "words/seconds"] == [4, 8]


def test_a_resumed_fit_has_the_same_results(folder: Path, tmp_path: Path) -> None:
    saving = {"checkpoint": Checkpointing(every_n_steps=1, keep_last=None)}
    with build(tmp_path / "straight", harness(folder), **saving) as straight:  # type: ignore[arg-type]
        straight.fit(data(), data())
    for step in (3, 4, 5):
        run_dir = tmp_path / f"cut_{step}"
        with build(run_dir, harness(folder), num_steps=step) as begun:
            begun.fit(data(), data())
        with build(run_dir, harness(folder), **saving) as ours:  # type: ignore[arg-type]
            ours.fit(data(), data(), ckpt_path=tmp_path / "straight" / "checkpoints" / f"step_{step:08d}")
        assert tiny.is_bitwise_equal(tiny.weights(ours), tiny.weights(straight))
        assert ours.metrics["words/write/exact_match"] == straight.metrics["words/write/exact_match"]
        kept = "downstream/words/step_00000008.json"
        assert (run_dir / kept).read_text() == (tmp_path / "straight" / kept).read_text()


class Interrupt(Callback):
    """Interrupts the fit during the first evaluation, after the first batch of requests."""

    def on_eleuther_eval_harness_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.stop("SIGTERM", is_interruption=True)


def test_a_fit_interrupted_during_an_evaluation_repeats_it_when_resumed(folder: Path, tmp_path: Path) -> None:
    saving: dict[str, Any] = {"checkpoint": Checkpointing(every_n_steps=3, keep_last=None)}
    with build(tmp_path / "straight", harness(folder, batch_size=1), **saving) as straight:
        straight.fit(data(), data())
    with build(tmp_path / "cut", {**harness(folder, batch_size=1), "interrupt": Interrupt()}, **saving) as cut:
        assert cut.fit(data(), data()).state == "interrupted"
    assert not (tmp_path / "cut" / "downstream").exists()
    with build(tmp_path / "cut", harness(folder, batch_size=1), **saving) as ours:
        assert ours.fit(data(), data(), ckpt_path="last").state == "completed"
    assert tiny.is_bitwise_equal(tiny.weights(ours), tiny.weights(straight))
    assert lines(tmp_path / "cut") == lines(tmp_path / "straight")


def test_results_are_saved_and_shown(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callbacks = harness(folder, limit=4)
    with Trainer(
        partial(GPT, context_length=32, width=16, num_layers=1, num_heads=2),
        loop=ValidationLoop(),
        device="cpu",
        callbacks=callbacks,
        loggers=[ProgressLogger()],
        run_dir=tmp_path / "run",
    ) as ours:
        (row,) = ours.validate_all([])
    assert set(row.metrics) == {"words/both/acc", "words/letters/acc", "words/write/exact_match"}
    kept = json.loads((tmp_path / "run" / "downstream" / "words" / "step_00000000.json").read_text())
    assert kept["results"]["letters"] == {"acc": row.metrics["words/letters/acc"]}
    assert kept["num_documents"]["letters"] == {"original": 6, "effective": 4}
    shown = capsys.readouterr().out
    assert "words/results" in shown and "    letters  acc " in shown
    assert list((tmp_path / "run").rglob(".*")) == []


def test_results_of_equal_steps_of_two_runs_are_saved_in_two_files(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with build(tmp_path / name, {}, 2, checkpoint=Checkpointing()) as trained:
            trained.fit(data())
    with build(tmp_path / "both", harness(folder)) as ours:
        rows = ours.validate_all([], [tmp_path / "a/checkpoints/*", tmp_path / "b/checkpoints/*"])
    assert [row.checkpoint for row in rows] == [tmp_path / f"{name}/checkpoints/step_00000002" for name in "ab"]
    kept = sorted((tmp_path / "both" / "downstream" / "words").iterdir())
    assert [file.name for file in kept] == ["step_00000002.json", "step_00000002_2.json"]


def test_too_long_requests_are_cut_with_a_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    document = {"question": "x" * 100, "choices": ["a", "b"], "answer": 0}
    (folder / "letters.jsonl").write_text(json.dumps(document) + "\n")
    with build(tmp_path / "run", harness(folder)) as ours:
        ours.validate_all([])
    warnings = [record.getMessage() for record in caplog.records if record.name == "loopwright"]
    assert [line for line in warnings if "longer than" in line] == [
        "loglikelihood: 2 requests are longer than the 32 tokens that fit into the model's context; their beginnings "
        "are cut off.",
        "generate_until: 1 requests are longer than the 28 tokens that fit into the model's context; their beginnings "
        "are cut off.",
    ]


# Refused settings and data


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"tasks": ["lettres"]},
            r"tasks=lettres: expected a task in .* or a task of lm-eval\. Did you mean letters\?",
        ),
        ({"tasks": []}, "tasks=.*: expected names of tasks"),
        ({"tasks": ["letters", "letters"]}, "expected each task only once"),
        ({"limit": 0}, "limit=0: expected a number of documents"),
        ({"limit": 1.5}, "limit=1.5: expected a number of documents"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_fewshot": -1}, "num_fewshot=-1"),
        ({"every_n_vals": 0}, "every_n_vals=0"),
        ({"limit": float("inf")}, "limit=inf: expected a number of documents"),
        ({"name": "../../x"}, r"name='\.\./\.\./x': expected a word of letters"),
        ({"name": ".."}, r"name='\.\.': expected a word of letters"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(SettingError, match=message):
        EleutherEvalHarness(**{"tasks": ["letters"], "task_dir": folder, **settings})


@pytest.mark.parametrize(
    ("gen_kwargs", "message"),
    [
        ({"temprature": 1}, r"no such setting temprature\. Available: .* Did you mean temperature"),
        ({"max_gen_toks": 32}, "gen_kwargs.max_gen_toks=32: expected at least 1, and fewer than the 32 tokens"),
        ({"top_p": 1.5}, r"gen_kwargs.top_p=1.5: expected a number in \(0, 1\]"),
        ({"top_k": -1}, "gen_kwargs.top_k=-1"),
        ({"temperature": float("nan")}, "gen_kwargs.temperature=nan"),
        ({"do_sample": "false"}, "gen_kwargs.do_sample='false': expected true or false"),
        ({"max_gen_toks": 2.9}, "gen_kwargs.max_gen_toks=2.9: expected a whole number"),
        ({"until": [1]}, r"gen_kwargs.until=\[1\]: expected a string or a list of strings"),
    ],
)
def test_invalid_gen_kwargs_are_refused(gen_kwargs: dict[str, Any], message: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=message):
        build(tmp_path / "run", harness(folder, gen_kwargs=gen_kwargs))


def test_an_answer_that_is_not_a_choice_is_refused(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "letters.jsonl").read_text().splitlines()
    lines[3] = json.dumps({"question": "?", "choices": ["a", "b"], "answer": 2})
    (folder / "letters.jsonl").write_text("\n".join(lines))
    message = "tasks=letters: the answer to document 4 is 2, but its 2 choices are numbered from 0"
    with pytest.raises(SettingError, match=message):
        build(tmp_path / "run", harness(folder))


def test_more_examples_than_documents_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="tasks=letters: its documents cannot be turned into requests: ValueError"):
        build(tmp_path / "run", harness(folder, num_fewshot=50))


def test_a_model_without_logits_is_refused(folder: Path) -> None:
    message = r"model='Regression': expected a model with context_length and logits\(tokens\)"
    with pytest.raises(SettingError, match=message):
        tiny.trainer(callbacks=list(harness(folder).values()))


def test_a_model_with_fewer_tokens_than_the_tokenizer_is_refused(folder: Path) -> None:
    with pytest.raises(SettingError, match="tokenizer='256 tokens': expected a tokenizer with at most the model's 200"):
        Trainer(partial(GPT, vocab_size=200), loop=ValidationLoop(), callbacks=harness(folder), device="cpu")


def test_a_continuation_longer_than_the_context_is_refused(folder: Path, tmp_path: Path) -> None:
    document = {"question": "a", "choices": ["x" * 40, "b"], "answer": 0}
    (folder / "letters.jsonl").write_text(json.dumps(document) + "\n")
    with (
        build(tmp_path / "run", harness(folder)) as ours,
        pytest.raises(RuntimeError, match="a continuation has 41 tokens; expected at most 32"),
    ):
        ours.validate_all([])


# A directory of tasks is data: it cannot run code

HOSTILE = {
    "a function": ("doc_to_text: !function evil.run", "could not determine a constructor for the tag '!function'"),
    "a Python object": ("doc_to_text: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    "a class": ("class: evil.Task", "class: this key is not allowed in a task file"),
    "unsafe code": ("unsafe_code: true", "unsafe_code: this key is not allowed in a task file"),
    "a metric that is a path": (
        "metric_list: [{metric: ./evil}]",
        "metric ./evil: lm-eval has no such metric",
    ),
    "a metric of Hugging Face's evaluate": (
        "metric_list: [{metric: acc, hf_evaluate: true}]",
        "hf_evaluate: not allowed; use a metric of lm-eval",
    ),
    "an unknown aggregation": (
        "metric_list: [{metric: acc, aggregation: foo}]",
        "aggregation foo: lm-eval has no such aggregation",
    ),
    "no metrics": ("metric_list: acc", "metric_list: expected a list of mappings"),
    "no repeats": ("repeats: 0", "repeats=0: expected a whole number"),
    "a file outside the folder": ("dataset_kwargs: {data_files: {test: ../x.jsonl}}", "expected a file in the folder"),
    "another loader": ("dataset_path: pandas", "expected dataset_path: json"),
    "a loader's options": ("dataset_kwargs: {data_files: {test: letters.jsonl}, num_proc: 4}", "expected dataset_path"),
    "an include from outside the folder": ("include: ../evil.yaml", "expected a file in the same folder"),
    "a file that includes itself": ("include: hostile.yaml", "expected a file in the same folder"),
    "a missing file": ("dataset_kwargs: {data_files: {test: none.jsonl}}", "none.jsonl"),
    "no choices": ("doc_to_choice: '{{none}}'", "its documents cannot be turned into requests"),
    "a broken template": ("description: '{{'", "its documents cannot be turned into requests"),
    "a name that is a list": ("task: [a]", "expected a name"),
    "invalid YAML": ("task: {", "hostile.yaml"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_task_is_refused_and_runs_no_code(name: str, folder: Path, tmp_path: Path) -> None:
    line, message = HOSTILE[name]
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "evil.yaml").write_text("task: outside")
    key = line.partition(":")[0]
    kept = "\n".join(each for each in CHOICE.splitlines() if not each.startswith(f"{key}:") and each)
    kept = kept.replace("task: letters", "task: hostile") if key != "task" else kept
    (folder / "hostile.yaml").write_text(f"{kept}\n{line}\n")
    with pytest.raises(SettingError) as refused:
        build(tmp_path / "run", {"harness": EleutherEvalHarness(["hostile"], task_dir=folder)})
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists() and "evil" not in sys.modules


def test_templates_run_in_a_sandbox(folder: Path, tmp_path: Path) -> None:
    evil = "{{ question.__class__.__mro__[1].__subclasses__() }}"
    (folder / "letters.yaml").write_text(CHOICE.replace("{{question}}", evil))
    with pytest.raises(Exception, match=r"access to attribute '__class__' of 'str' object is unsafe"):
        build(tmp_path / "run", {"harness": EleutherEvalHarness(["letters"], task_dir=folder)}).validate_all([])
