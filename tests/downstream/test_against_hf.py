"""The harness gets the same results from our model as from its own ``hf`` model with the same weights."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from loopwright import Trainer, ValidationLoop
from loopwright.data import stdlib_text
from loopwright.data.sets.text_windows import TextWindows
from loopwright.downstream import EleutherEvalHarness, TokenizerFile
from loopwright.downstream.language_model import TrainedModel
from loopwright.downstream.tasks import load_tasks, sandboxed
from loopwright.models import CausalLM
from loopwright.shipped import task_dir

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # other packages warn while they are imported
    lm_eval = pytest.importorskip("lm_eval", reason="needs the extra: pip install 'loopwright[eval]'")
    transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'loopwright[lm]'")
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra: pip install 'loopwright[lm]'")
    huggingface = pytest.importorskip(
        "lm_eval.models.huggingface", reason="needs the extra: pip install 'loopwright[lm]'"
    )

from lm_eval.api.instance import Instance
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

pytestmark = pytest.mark.extras

LIMIT = 60
ROLLING = """
task: rolling
dataset_path: json
dataset_kwargs: {data_files: {test: cloze.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{context}} {{context}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a random GPT-2 and a byte-pair tokenizer trained on the text behind the tasks."""
    folder = tmp_path_factory.mktemp("gpt2")
    windows = stdlib_text().val.dataset
    assert isinstance(windows, TextWindows)
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    trained = {"vocab_size": 400, "special_tokens": ["<|endoftext|>"], "show_progress": False}
    tokenizer.train_from_iterator([windows.text.decode()], **trained)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    end = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=96,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        **end,
    )
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the shipped tasks and a task with texts longer than the model's context."""
    folder = tmp_path_factory.mktemp("tasks")
    for file in task_dir().iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "rolling.yaml").write_text(ROLLING)
    return folder


def theirs(directory: Path, batch_size: int) -> Any:
    """Return the harness's own ``hf`` model."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "tokenizer.json"), eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    model = transformers.GPT2LMHeadModel.from_pretrained(directory)
    return huggingface.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device="cpu")


class Answering:
    """Our model as `EleutherEvalHarness` gives it to the harness; a trainer's validations answer its requests."""

    def __init__(self, directory: Path, batch_size: int) -> None:
        self.callback = EleutherEvalHarness(
            ["cloze"], tokenizer=TokenizerFile(directory / "tokenizer.json"), batch_size=batch_size
        )
        self.trainer = Trainer(CausalLM(directory), loop=ValidationLoop(), callbacks=[self.callback], device="cpu")
        ask = lambda kind, batches: self.callback._ask(self.trainer, kind, batches)  # noqa: E731
        self.model = TrainedModel(ask, self.callback._tokenizer, 96, batch_size)


def requests(tasks: Path, name: str, **settings: Any) -> list[Any]:
    """Return the requests of a task."""
    with sandboxed():
        task = load_tasks([name], tasks)["tasks"][name]
        task.set_config(key="num_fewshot", value=settings.pop("num_fewshot", 0))
        if settings:
            task.set_config(key="generation_kwargs", value=settings, update=True)
        task.set_fewshot_seed(1234)
        task.build_all_requests(limit=LIMIT)
    found: list[Any] = task.instances
    return found


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("num_fewshot", [0, 1])
def test_log_likelihoods_and_greedy_flags_are_equal(
    directory: Path, tasks: Path, batch_size: int, num_fewshot: int
) -> None:
    asked = requests(tasks, "cloze", num_fewshot=num_fewshot)
    ours = Answering(directory, batch_size).model.loglikelihood(asked)
    expected = theirs(directory, batch_size).loglikelihood(asked, disable_tqdm=True)
    assert len(ours) == 4 * LIMIT
    assert [found for found, _ in ours] == pytest.approx([found for found, _ in expected], abs=1e-4)
    assert [is_greedy for _, is_greedy in ours] == [is_greedy for _, is_greedy in expected]
    if batch_size == 16 and not num_fewshot:  # one-token choices share a row
        assert len({round(found, 3) for found, _ in ours}) > LIMIT


@pytest.mark.parametrize("batch_size", [1, 16])
def test_rolling_log_likelihoods_are_equal(directory: Path, tasks: Path, batch_size: int) -> None:
    asked = requests(tasks, "rolling")
    ours = Answering(directory, batch_size).model.loglikelihood_rolling(asked)
    expected = theirs(directory, batch_size).loglikelihood_rolling(asked, disable_tqdm=True)
    assert ours == pytest.approx(expected, abs=1e-4, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_windows_with_the_same_beginning_are_all_counted(directory: Path, batch_size: int) -> None:
    # Windows of different lengths begin with the same tokens; the ``hf`` model confuses them, so it is not used here.
    text = "é😀" * 20
    ours = Answering(directory, batch_size)
    tokens = ours.model.tok_encode(text)
    model, expected = ours.trainer.model.eval(), 0.0
    for context, continuation in map(make_disjoint_window, get_rolling_token_windows(tokens, 0, 96, 1)):
        read = context + continuation
        with torch.no_grad():
            log_probs = model.logits(torch.tensor([read[:-1]])).log_softmax(dim=-1)[0, -len(continuation) :]
        expected += float(log_probs.gather(1, torch.tensor(continuation)[:, None]).sum())
    (found,) = ours.model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_generated_text_is_equal(directory: Path, tasks: Path, batch_size: int) -> None:
    for settings in ({}, {"until": ["e"], "max_gen_toks": 40}, {"until": [], "max_gen_toks": 12}):
        asked = requests(tasks, "completion", **settings)
        ours = Answering(directory, batch_size).model.generate_until(asked)
        assert ours == theirs(directory, batch_size).generate_until(asked, disable_tqdm=True)
        assert len(set(ours)) > 5


@pytest.mark.parametrize("batch_size", [1, 16])
def test_metrics_of_whole_tasks_are_equal(directory: Path, tasks: Path, batch_size: int, tmp_path: Path) -> None:
    names = ["cloze", "completion", "rolling"]
    tokenizer = TokenizerFile(directory / "tokenizer.json")
    settings: dict[str, Any] = {"task_dir": tasks, "batch_size": batch_size, "limit": 40}
    callback = EleutherEvalHarness(names, tokenizer=tokenizer, **settings)
    with Trainer(CausalLM(directory), loop=ValidationLoop(), callbacks=[callback], run_dir=tmp_path) as ours:
        (row,) = ours.validate_all([])
    with sandboxed():
        loaded = load_tasks(names, tasks)
        expected = lm_eval.evaluate(
            theirs(directory, batch_size), loaded, limit=40, bootstrap_iters=0, log_samples=False
        )["results"]
    for task, entries in expected.items():
        for name, value in entries.items():
            metric, _, chosen = name.partition(",")
            if chosen and isinstance(value, float):
                assert row.metrics[f"downstream/{task}/{metric}"] == pytest.approx(value, rel=1e-5)
    kept = json.loads((tmp_path / "downstream" / "downstream" / "step_00000000.json").read_text())
    assert kept["results"]["cloze"]["acc"] == row.metrics["downstream/cloze/acc"]
