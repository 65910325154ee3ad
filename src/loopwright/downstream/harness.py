"""`EleutherEvalHarness`: a callback that runs tasks of EleutherAI's Evaluation Harness on the trainer's model."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from loopwright.downstream.language_model import Generation, TrainedModel
from loopwright.downstream.requests import Batches, EleutherEvalHarnessLoop
from loopwright.downstream.tasks import check_documents, check_tasks, load_tasks, sandboxed
from loopwright.downstream.tokenizers import ByteTokenizer
from loopwright.errors import check_count, on_one_line, refuse, refuse_type
from loopwright.hooks import ValidationCallback
from loopwright.regular_files import replace_file
from loopwright.shipped import task_dir as shipped_task_dir
from loopwright.text_protocols import LanguageModel, Tokenizer

if TYPE_CHECKING:
    from torch import nn

    from loopwright.trainer import Trainer

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_log = logging.getLogger("loopwright")


class EleutherEvalHarness(ValidationCallback):
    """Runs tasks of the Evaluation Harness after validations (``pip install 'loopwright[eval]'``).

    The trainer's model answers the requests of the harness, in validations that use an `EleutherEvalHarnessLoop`. The
    model must have the attribute ``context_length`` and the method ``logits(tokens)``, as described in
    `loopwright.protocols.LanguageModel`.

    Results are logged as ``<name>/<task>/<metric>``, or as ``<name>/<task>/<metric>/<filter>`` if a task filters
    the model's answers. The results are also logged as a table, and written to a file in the run directory. For step
    100, this file is ``downstream/<name>/step_00000100.json``. Random choices, such as the choice of few-shot examples
    and sampled tokens, depend only on the seeds and the step. Random choices do not affect the training.

    Source: L. Gao et al., "The Language Model Evaluation Harness", https://github.com/EleutherAI/lm-evaluation-harness.

    Args:
        tasks: names of tasks and groups that ``task_dir`` or the harness defines. The harness may download the data of
            its own tasks.
        every_n_vals: number of rounds of validations from one evaluation to the next. The last round of a fit also
            runs the tasks.
        name: prefix of the metrics' names, and name of the folder for the results.
        task_dir: directory with YAML and JSON Lines files that define tasks. None selects the tasks that are shipped
            with Loopwright.
        tokenizer: tokenizer of the model; None selects `ByteTokenizer`, in which each byte is a token.
        batch_size: number of token rows in one forward pass of the model.
        limit: number of documents that each task uses, starting with its first document. A number below 1 is a fraction
            of the documents. None means all documents.
        num_fewshot: number of few-shot examples before each question; None means the number in the task's settings. A
            task whose own setting is 0 keeps 0.
        gen_kwargs: settings for generating text, which override the settings of each task that generates text. The
            accepted names are ``temperature``, ``top_k``, ``top_p``, ``do_sample``, ``until`` and ``max_gen_toks``.
        bootstrap_iters: number of bootstrap samples for standard errors. With 0, no standard errors are computed.
        fewshot_seed: seed for choosing the ``num_fewshot`` examples.

    Raises:
        SettingError: if a setting is invalid or a task is unknown. When the trainer is built, if the data of a task
            cannot be loaded, or if the model has no ``context_length`` or no ``logits``.
        ImportError: if the extra ``eval`` is not installed.
    """

    def __init__(
        self,
        tasks: Sequence[str] = ("cloze", "completion"),
        every_n_vals: int = 1,
        name: str = "downstream",
        task_dir: str | os.PathLike[str] | None = None,
        tokenizer: Tokenizer | None = None,
        batch_size: int = 16,
        limit: int | float | None = None,
        num_fewshot: int | None = None,
        gen_kwargs: Mapping[str, Any] | None = None,
        bootstrap_iters: int = 0,
        fewshot_seed: int = 1234,
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not name.strip("."):
            raise refuse("name", name, "a word of letters, digits and ._-, which also names a folder")
        super().__init__(every_n_vals, name)
        if isinstance(tasks, str) or not all(isinstance(task, str) for task in tasks) or not tasks:
            raise refuse("tasks", tasks, "names of tasks, such as [cloze, completion]")
        if len(set(tasks)) < len(tasks):
            raise refuse("tasks", list(tasks), "each task only once")
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float)):
            raise refuse_type("limit", limit, "a number of documents, a fraction below 1, or null for all")
        if limit is not None and not (0 < limit < 1 or (1 <= limit < math.inf and limit == int(limit))):
            raise refuse("limit", limit, "a number of documents, 1 or more, a fraction below 1, or null for all")
        self._tasks = tuple(tasks)
        self._task_dir = shipped_task_dir() if task_dir is None else Path(task_dir)
        check_tasks(self._tasks, self._task_dir)
        self._tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
        self._batch_size = check_count("batch_size", batch_size)
        self._limit = limit
        self._num_fewshot = None if num_fewshot is None else check_count("num_fewshot", num_fewshot, least=0)
        self._gen_kwargs = dict(gen_kwargs or {})
        self._bootstrap_iters = check_count("bootstrap_iters", bootstrap_iters, least=0)
        self._fewshot_seed = check_count("fewshot_seed", fewshot_seed, least=0)
        self._loop = EleutherEvalHarnessLoop()
        self._loaded: dict[str, Any] = {}
        self._answers: list[dict[str, Any]] | None = None

    def setup(self, trainer: Trainer) -> None:
        """Check that the model has the required methods, and load the tasks."""
        model = trainer.model
        if not isinstance(model, LanguageModel):
            expected = "a model with context_length and logits(tokens), for downstream evaluation"
            raise refuse_type(
                "model", type(model).__name__, expected, "use one, or leave out the callback EleutherEvalHarness"
            )
        size = getattr(model, "vocab_size", None)
        if isinstance(size, int) and size < self._tokenizer.vocab_size:
            expected = f"a tokenizer with at most the model's {size} tokens"
            raise refuse("tokenizer", f"{self._tokenizer.vocab_size} tokens", expected)
        with _quiet_harness():
            self._loaded = load_tasks(self._tasks, self._task_dir)
            for task in self._loaded["tasks"].values():
                self._set_up(task, model.context_length)
                check_documents(task, self._limit, self._fewshot_seed)

    def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
        """Run the tasks, log the results as metrics and as a table, and write the results to a file."""
        import lm_eval  # optional dependency

        assert isinstance(trainer.model, LanguageModel), "checked in setup"

        def ask(kind: str, batches: Batches) -> list[dict[str, Any]]:
            return self._ask(trainer, kind, batches)

        for task in self._loaded["tasks"].values():
            task.set_fewshot_seed(self._fewshot_seed)  # every evaluation uses the same examples
        model = TrainedModel(ask, self._tokenizer, trainer.model.context_length, self._batch_size)
        with _quiet_harness(), sandboxed():
            results = lm_eval.evaluate(
                model,
                self._loaded,
                limit=self._limit,
                bootstrap_iters=self._bootstrap_iters,
                log_samples=False,
            )
        self._report(trainer, results)

    def on_eleuther_eval_harness_step_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any
    ) -> None:
        """Collect the answers to a batch of requests, if this callback made the requests."""
        if self._answers is not None:
            self._answers.append(outputs)

    def _set_up(self, task: Any, context_length: int) -> None:
        """Override settings of a task like the command-line program of the harness, and check the settings."""
        if getattr(task, "UNSAFE_CODE", False):
            raise refuse("tasks", task.task_name, "tasks that do not execute code from the model's answers")
        if task.get_config("output_type") == "generate_until":
            task.set_config(key="generation_kwargs", value=self._gen_kwargs, update=True)
            Generation(task.get_config("generation_kwargs"), self._tokenizer, context_length)
        own = task.get_config("num_fewshot")
        if self._num_fewshot is not None and own != 0:  # a task's setting of 0 is kept
            task.set_config(key="num_fewshot", value=self._num_fewshot)
        elif own is None:
            task.set_config(key="num_fewshot", value=0)

    def _ask(self, trainer: Trainer, kind: str, batches: Batches) -> list[dict[str, Any]]:
        if not len(batches):
            return []
        outer, self._answers = self._answers, []
        try:
            trainer.validate({kind: batches}, loop=self._loop)
            return self._answers
        finally:
            self._answers = outer

    def _report(self, trainer: Trainer, results: Mapping[str, Any]) -> None:
        measured = {**results["results"], **results.get("groups", {})}
        metrics = {
            f"{self.name}/{task}/{name}": value
            for task, entries in measured.items()
            for name, value in _metrics(entries).items()
        }
        trainer.log_metrics(**metrics)
        table = _table(measured)
        for logger in trainer.loggers:
            logger.log_text({f"{self.name}/results": table}, trainer.global_step)
        if trainer.run_dir is not None:
            self._save(trainer, trainer.run_dir / "downstream" / str(self.name), results, measured)

    def _save(
        self, trainer: Trainer, folder: Path, results: Mapping[str, Any], measured: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Write the results as JSON. In a validation of a checkpoint, do not overwrite a file: use a new file name."""
        checkpoint = trainer.validation_checkpoint
        kept = {
            "step": trainer.global_step,
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "results": {task: _metrics(entries) for task, entries in measured.items()},
            "num_documents": results["n-samples"],
            "num_fewshot": results["n-shot"],
            "versions": results["versions"],
            "higher_is_better": results["higher_is_better"],
        }
        path, number = folder / f"step_{trainer.global_step:08d}.json", 1
        while checkpoint is not None and os.path.lexists(path):
            number += 1
            path = folder / f"step_{trainer.global_step:08d}_{number}.json"
        try:
            for place in (folder.parent, folder):
                if place.is_symlink():
                    raise OSError(errno.ELOOP, f"{place.name} is a link; remove it or move it away")
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, (json.dumps(kept, indent=1, default=str) + "\n").encode())
        except OSError as error:  # only a warning, because the metrics are already logged
            _log.warning("%s: cannot be written: %s.", path, error.strerror or error)


def _metrics(entries: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers in the harness's results of one task.

    Keys of ``entries`` have the form ``metric,filter``. Keys of the result have the form ``metric/filter``, or
    ``metric`` if the filter is ``none``.
    """
    metrics = {}
    for key, value in entries.items():
        metric, _, chosen = key.partition(",")
        if chosen and isinstance(value, int | float):
            metrics[metric if chosen == "none" else f"{metric}/{chosen}"] = float(value)
    return metrics


def _table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table with one line for each number: ``task  metric  value``."""
    lines = [
        (task, name, f"{value:.4g}") for task, entries in measured.items() for name, value in _metrics(entries).items()
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(2)]
    return "\n".join(f"{task:<{widths[0]}}  {name:<{widths[1]}}  {value}" for task, name, value in lines)


@contextmanager
def _quiet_harness() -> Iterator[None]:
    """Within this context, disable the harness's progress bars and log the harness's warnings to ``loopwright``."""
    import lm_eval.api.task  # optional dependency

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(lm_eval.api.task, "tqdm", lambda documents, **_: documents))
        handler = _ToOurLog()
        for name in ("lm_eval", "datasets", "huggingface_hub"):
            logger = logging.getLogger(name)
            stack.enter_context(mock.patch.object(logger, "handlers", new=[handler]))
            stack.enter_context(mock.patch.object(logger, "propagate", new=False))
        yield


class _ToOurLog(logging.Handler):
    """Logs the harness's warnings at level INFO, because the warnings address authors of tasks."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            _log.info("%s: %s", record.name, on_one_line(record.getMessage()))
