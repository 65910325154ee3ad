"""Functions that load tasks of the Evaluation Harness, from a directory or from the installed harness.

A task directory contains YAML and JSON Lines files. These files cannot run code: the YAML files may not name functions
or classes, templates run in a sandbox, and only metrics of the harness are accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from loopwright.errors import SettingError, did_you_mean, on_one_line, refuse
from loopwright.regular_files import read_regular

_NAME = re.compile(r"[A-Za-z0-9._:-]+")
_MAX_YAML_BYTES = 1_000_000
_MAX_ROWS_BYTES = 1 << 30  # the data of a task are read into memory
_MAX_INCLUDED = 10
_GROUP_KEYS = frozenset({"group", "group_alias", "task", "aggregate_metric_list", "metadata"})
_TASK_KEYS = """
    task task_alias tag dataset_path dataset_kwargs training_split validation_split test_split fewshot_split
    doc_to_text doc_to_target doc_to_choice description target_delimiter fewshot_delimiter fewshot_config num_fewshot
    metric_list output_type generation_kwargs repeats filter_list should_decontaminate doc_to_decontamination_query
    gen_prefix metadata
"""


def read_tasks(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the settings of the tasks and groups in the YAML files of ``folder``, by name.

    Raises:
        SettingError: if a file cannot be read or does not describe a task. The message contains the file's path.
    """
    if not folder.is_dir():
        raise refuse("task_dir", str(folder), "a directory with the YAML files of tasks")
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.yaml")):
        config = _read_file(file, folder)
        name = config.get("group") or config.get("task")
        if name is None:
            continue  # a file without a name contains settings that other files include
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise SettingError("task_dir", f": {file}: task={name!r}: expected a name of letters, digits and ._:-.")
        if name in found:
            raise SettingError("task_dir", f": {file}: another file defines {name} as well.")
        allowed = _GROUP_KEYS if "group" in config else frozenset(_TASK_KEYS.split())
        unknown = sorted(set(config) - allowed)
        if unknown:
            problem = f"{unknown[0]}: this key is not allowed in a task file"
            raise SettingError("task_dir", f": {file}: {problem}.{did_you_mean(unknown[0], allowed)}")
        found[name] = config
    return found


def check_tasks(names: Sequence[str], folder: Path) -> None:
    """Check that ``folder`` or the harness defines each task in ``names``. The data of the tasks are not read.

    Raises:
        SettingError: if a name is unknown, or if the directory cannot be read.
        ImportError: if the extra ``eval`` is not installed.
    """
    if find_spec("lm_eval") is None:
        raise ImportError("callbacks: EleutherEvalHarness needs lm_eval; pip install 'loopwright[eval]'.")
    own = read_tasks(folder)
    if any(name not in own for name in names):
        _find(names, own, folder)


def load_tasks(names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Load tasks and groups by name. A task in ``folder`` takes precedence over a task of the same name in the harness.

    Returns:
        The mapping that ``lm_eval.evaluate`` accepts, with ``tasks``, ``groups`` and ``group_map``.

    Raises:
        SettingError: if a name is unknown, or if the files or data of a task cannot be loaded.
    """
    own = read_tasks(folder)
    manager = _find(names, own, folder)
    with sandboxed():
        specs: list[Any] = []
        for name in names:
            specs += [_build(name, own, folder, ())] if name in own else _load_builtin(manager, name)
    try:
        loaded: dict[str, Any] = manager.load(specs)
    except ValueError as error:  # raised if a task occurs twice
        raise SettingError("tasks", f": {on_one_line(str(error))}") from error
    return loaded


def check_documents(task: Any, limit: int | float | None, fewshot_seed: int) -> None:
    """Build all requests of a task, to find errors in the task's data before training.

    Raises:
        SettingError: if the requests cannot be built, or if the index of an answer is outside the list of choices.
    """
    from lm_eval.evaluator_utils import get_sample_size  # optional dependency

    try:
        with sandboxed():
            task.set_fewshot_seed(fewshot_seed)
            task.build_all_requests(limit=get_sample_size(task, limit))
            if task.OUTPUT_TYPE == "multiple_choice" and not task.multiple_input:
                for number, document in enumerate(task.eval_docs, 1):
                    choices, answer = task.doc_to_choice(document), task.doc_to_target(document)
                    if type(answer) is int and not 0 <= answer < len(choices):
                        problem = f"the answer to document {number} is {answer}, but its {len(choices)} choices"
                        raise SettingError("tasks", f"={task.task_name}: {problem} are numbered from 0.")
    except SettingError:
        raise
    except Exception as error:
        problem = (
            f"its documents cannot be turned into requests: {type(error).__name__}: {on_one_line(str(error), 200)}"
        )
        raise SettingError("tasks", f"={task.task_name}: {problem}.") from error


@contextmanager
def sandboxed() -> Iterator[None]:
    """Run the templates of tasks in a sandbox within this context. A template can read only its arguments."""
    import lm_eval.utils  # optional dependency
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    theirs = lm_eval.utils.env
    ours = ImmutableSandboxedEnvironment(
        loader=theirs.loader, undefined=theirs.undefined, keep_trailing_newline=theirs.keep_trailing_newline
    )
    ours.filters.update(theirs.filters)
    with mock.patch.object(lm_eval.utils, "env", ours):
        yield


def _read_file(file: Path, folder: Path, depth: int = 0) -> dict[str, Any]:
    """Read a YAML file and merge it with the files that it includes. Included files must be in ``folder``."""
    try:
        config = yaml.safe_load(read_regular(file, _MAX_YAML_BYTES, follows_links=True).decode())
    except OSError as error:
        raise SettingError("task_dir", f": {file}: {error.strerror}.") from error
    # PyYAML raises errors of many types, for example for ``2024-99-99`` or a number of 5,000 digits.
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise SettingError("task_dir", f": {file}: {on_one_line(str(error))}") from error
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise SettingError("task_dir", f": {file}: expected a mapping with the settings of a task.")
    included = config.pop("include", None)
    if included is None:
        return config
    base = (folder / str(included)).resolve()
    if base.parent != folder.resolve() or not base.is_file() or depth == _MAX_INCLUDED:
        raise SettingError("task_dir", f": {file}: include={included!r}: expected a file in the same folder.")
    return {**_read_file(base, folder, depth + 1), **config}


def _find(names: Sequence[str], own: Mapping[str, Any], folder: Path) -> Any:
    """Return the harness's index of tasks. Refuse a name that is neither in the index nor in ``folder``."""
    others = [name for name in names if name not in own]
    manager = _manager(has_builtin=bool(others))
    for name in others:
        if name not in manager.all_tasks:
            known = f"a task in {folder} ({', '.join(own) or 'which has none'}) or a task of lm-eval"
            hint = did_you_mean(name, [*own, *manager.all_tasks])
            raise SettingError("tasks", f"={name}: expected {known}.{hint}")
    return manager


@cache
def _manager(*, has_builtin: bool) -> Any:
    """Return the harness's index of tasks. The index is cached, because building an index takes seconds."""
    from lm_eval.tasks import TaskManager  # optional dependency

    return TaskManager(include_defaults=has_builtin)


def _build(name: str, own: Mapping[str, dict[str, Any]], folder: Path, inside: tuple[str, ...]) -> Any:
    from lm_eval.api.group import Group  # optional dependency
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.config.group import GroupConfig

    config = own[name]
    if "group" not in config:
        try:
            return ConfigurableTask(config=_with_data(name, config, folder))
        except SettingError:
            raise
        except Exception as error:
            problem = f": task {name} of {folder}: {type(error).__name__}: {on_one_line(str(error), 200)}"
            raise SettingError("task_dir", problem) from error
    members = config.get("task")
    if not isinstance(members, list) or not members or not all(isinstance(member, str) for member in members):
        raise SettingError("task_dir", f": group {name} of {folder}: task: expected a list of names.")
    try:
        group = Group.from_config(GroupConfig(**config))
    except Exception as error:
        raise SettingError("task_dir", f": group {name} of {folder}: {on_one_line(str(error), 200)}") from error
    for member in members:
        if member not in own or member in (*inside, name) or members.count(member) > 1:
            problem = f": group {name} of {folder}: {member}: expected another task or group in the folder, listed once"
            raise SettingError("task_dir", f"{problem}.{did_you_mean(member, {*own} - {member})}")
        group.add(_build(member, own, folder, (*inside, name)))
    return group


def _with_data(name: str, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Read a task's data files. Return its settings, with a function that returns the data instead of the path."""
    from lm_eval.api.registry import AGGREGATION_REGISTRY, METRIC_REGISTRY  # optional dependency

    config = dict(config)
    where = f": task {name} of {folder}"
    path, keywords = config.pop("dataset_path", None), config.pop("dataset_kwargs", None)
    files = keywords.get("data_files") if isinstance(keywords, dict) else None
    if path != "json" or set(keywords or {}) != {"data_files"} or not isinstance(files, dict) or not files:
        expected = "expected dataset_path: json and dataset_kwargs: {data_files: {test: FILE}}"
        raise SettingError("task_dir", f"{where}: {expected}.")
    metrics = config.get("metric_list") or []
    if not isinstance(metrics, list) or not all(isinstance(entry, dict) for entry in metrics):
        raise SettingError("task_dir", f"{where}: metric_list: expected a list of mappings with the key metric.")
    for entry in metrics:
        for key, known in (("metric", METRIC_REGISTRY), ("aggregation", AGGREGATION_REGISTRY)):
            if key in entry and entry[key] not in known:
                hint = did_you_mean(str(entry[key]), known)
                raise SettingError("task_dir", f"{where}: {key} {entry[key]}: lm-eval has no such {key}.{hint}")
        if entry.get("hf_evaluate"):
            raise SettingError("task_dir", f"{where}: hf_evaluate: not allowed; use a metric of lm-eval.")
    if type(config.get("repeats", 1)) is not int or config.get("repeats", 1) < 1:
        raise SettingError("task_dir", f"{where}: repeats={config['repeats']!r}: expected a whole number, 1 or more.")
    rows = {}
    for split, file in files.items():
        path = (folder / str(file)).resolve()
        if folder.resolve() not in path.parents:
            raise SettingError("task_dir", f"{where}: data_files={file!r}: expected a file in the folder.")
        rows[str(split)] = _read_rows(path, where)
    return {**config, "custom_dataset": partial(_as_dataset, rows)}


def _read_rows(file: Path, where: str) -> list[dict[str, Any]]:
    """Read the objects of a JSON Lines file."""
    rows = []
    try:
        for number, line in enumerate(
            read_regular(file, _MAX_ROWS_BYTES, follows_links=True).decode("utf-8-sig").split("\n"), 1
        ):
            if line.strip():
                rows.append(json.loads(line))
                if not isinstance(rows[-1], dict):
                    raise SettingError("task_dir", f"{where}: {file}: line {number}: expected an object.")
    except json.JSONDecodeError as error:
        raise SettingError("task_dir", f"{where}: {file}: line {number}: {error}.") from error
    except OSError as error:
        raise SettingError("task_dir", f"{where}: {file}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SettingError("task_dir", f"{where}: {file}: {on_one_line(str(error))}") from error
    if not rows:
        raise SettingError("task_dir", f"{where}: {file}: expected a JSON object on each line, and at least one.")
    return rows


def _as_dataset(rows: Mapping[str, list[dict[str, Any]]], **_: Any) -> Any:
    from datasets import Dataset  # optional dependency

    return {split: Dataset.from_list(documents) for split, documents in rows.items()}


def _load_builtin(manager: Any, name: str) -> list[Any]:
    """Load a task or group of the harness, or all tasks with a tag. The harness may download the data."""
    try:
        loaded = manager.load([name])
        return [loaded["groups"][name]] if name in loaded["groups"] else [*loaded["tasks"].values()]
    except Exception as error:
        problem = f"{type(error).__name__}: {on_one_line(str(error), 200)}"
        raise SettingError("tasks", f"={name}: its data cannot be loaded or downloaded: {problem}") from error
