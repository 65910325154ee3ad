"""Unsafe operations that the source must not contain, found by its syntax trees (item 37 of safety)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import loopwright

SOURCE = Path(loopwright.__file__).parent
BANNED_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}
BANNED_NAMES = {
    "torch.load",
    "torch.save",
    "torch.hub",
    "yaml.load",
    "yaml.load_all",
    "yaml.full_load",
    "yaml.unsafe_load",
    "os.system",
    "os.popen",
    "numpy.load",
    "np.load",
    "joblib.load",
}
DOOR = "checkpoint/foreign.py"
BANNED_ANYWHERE = {"get_method", "get_class", "get_object", "get_static_method"}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted(SOURCE.rglob("*.py")):
        yield file, ast.parse(file.read_text(encoding="utf-8"))


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the full name of each import and the name it is bound to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, name.asname or name.name
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield f"{node.module}.{name.name}", name.asname or name.name


def faults_in(tree: ast.Module) -> Iterator[str]:
    for full, _ in imported(tree):
        parts = set(full.split("."))
        if parts & BANNED_MODULES or full in BANNED_NAMES or parts & BANNED_ANYWHERE:
            yield f"imports {full}"
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)):
            name = dotted(node)
            last = name.rpartition(".")[2]
            if name in BANNED_NAMES or last in BANNED_ANYWHERE or name.partition(".")[0] in BANNED_MODULES:
                yield f"line {node.lineno}: {name}"
            is_read = isinstance(node.ctx, ast.Load)  # a field named compile is no use of the function
            if (isinstance(node, ast.Name) and node.id in BANNED_CALLS and is_read) or name.startswith("builtins."):
                yield f"line {node.lineno}: {name}"
        if isinstance(node, ast.keyword) and node.arg == "shell":
            yield f"line {node.value.lineno}: shell="


def hydra_instantiate_calls(tree: ast.Module) -> int:
    names = {given for full, given in imported(tree) if full in ("hydra.utils.instantiate", "hydra.utils.call")}
    modules = {given for full, given in imported(tree) if full in ("hydra", "hydra.utils")}
    count = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            through_module = name.endswith((".instantiate", ".call")) and name.rpartition(".")[0] in {
                *modules,
                *(f"{module}.utils" for module in modules),
            }
            count += name in names or through_module
    return count


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell() -> None:
    faults = [f"{file.relative_to(SOURCE)}: {fault}" for file, tree in trees() for fault in faults_in(tree)]
    assert [fault for fault in faults if not (fault.startswith(f"{DOOR}:") and fault.endswith(" torch.load"))] == []


def test_only_one_module_calls_torch_load_and_with_weights_only() -> None:
    calls = [
        (file.relative_to(SOURCE).as_posix(), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords})
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and dotted(node.func) == "torch.load"
    ]
    assert [(file, keywords["weights_only"]) for file, keywords in calls] == [(DOOR, "True")]


def test_hydra_instantiates_in_one_place() -> None:
    calls = {file.relative_to(SOURCE).as_posix(): hydra_instantiate_calls(tree) for file, tree in trees()}
    assert {file: count for file, count in calls.items() if count} == {"experiment/gate/instantiate.py": 1}


def test_the_search_finds_planted_calls() -> None:
    bad = """
import pickle, torch, yaml, subprocess
from torch import load
from hydra.utils import instantiate as build, get_class
import hydra
torch.load("x"); eval("1"); yaml.load("x"); subprocess.run("x", shell=True); hydra.utils.get_method("x")
build({}); hydra.utils.instantiate({}); hydra.utils.call({})
"""
    tree = ast.parse(bad)
    assert len(list(faults_in(tree))) == 8
    assert hydra_instantiate_calls(tree) == 3
    harmless = "model.eval(); re.compile('x'); torch.compile(model); path.load()\nclass A:\n    compile: str = ''"
    assert list(faults_in(ast.parse(harmless))) == []
    assert len(list(faults_in(ast.parse("run = compile")))) == 1
