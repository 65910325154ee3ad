"""Checks the structure of the source by its syntax trees: floors, sizes, and where modules may be used.

Every check is a function of parsed modules, so that a test can show that it finds a planted fault.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

import loopwright

SOURCE = Path(loopwright.__file__).parent

MAX_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 12

# Modules and packages directly under src/loopwright, by floor. A floor imports lower floors and, except for F2, itself.
FLOORS: Sequence[frozenset[str]] = (
    frozenset({"errors", "hooks", "loop", "plan", "records", "regular_files", "run_lock", "shipped", "terminal_text"}),
    frozenset({"run_state", "protocols", "seeding", "precision", "batch_rows", "text_protocols", "sharded_tensors"}),
    frozenset({"device", "data", "models", "optim", "checkpoint", "loggers", "callbacks", "downstream"}),
    frozenset({"engine"}),
    frozenset({"trainer"}),
    frozenset({"experiment", "cli", "__main__"}),
)
# Parts of F2 never import each other, and F3 gets their objects through protocols.
CLOSED_FLOOR = 2
FLOORS_OF_ENGINE = frozenset({0, 1, 3})

# The rooms of experiment/, from the lowest. A room imports only lower rooms: not rooms above it or in the same line.
ROOMS: Sequence[frozenset[str]] = (
    frozenset({"console"}),
    frozenset({"gate"}),
    frozenset({"compose"}),
    frozenset({"jobs"}),
    frozenset({"explain"}),
    frozenset({"rundir"}),
    frozenset({"runs"}),
    frozenset({"launch"}),
    frozenset({"sweep", "verify"}),
    frozenset({"reading"}),
    frozenset({"verbs"}),
)

# The plan is computed from settings alone. It imports neither hooks nor loops, which may implement hooks.
NOT_IN_THE_PLAN = frozenset({"hooks", "loop"})

# Only `device` names these modules of torch.
ACCELERATORS = frozenset({"torch.cuda", "torch.xpu", "torch.mps", "torch.backends.mps"})

# Only these modules and packages communicate with other processes, or start them.
COMMUNICATING = ("loopwright.device.ranks", "loopwright.device.strategies", "loopwright.experiment.launch")

STANDARD_LIBRARY_ONLY = frozenset({"errors", "hooks", "loop", "plan"})
HYDRA = frozenset({"hydra", "omegaconf"})
MUTABLE_CALLS = frozenset({"list", "dict", "set", "defaultdict", "OrderedDict", "Counter", "deque", "bytearray"})
MUTATING_METHODS = frozenset(
    {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove", "discard", "clear"}
)


@dataclass(frozen=True)
class Module:
    """A module of the package by its dotted name, such as ``loopwright.plan.build``."""

    name: str
    text: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def part(self) -> str:
        """Entry of `FLOORS` that contains the module; empty for the package itself."""
        return self.name.split(".")[1] if "." in self.name else ""

    @property
    def floor(self) -> int:
        return floor_of(self.part)


def floor_of(part: str) -> int:
    return next((number for number, parts in enumerate(FLOORS) if part in parts), -1)


def read_package() -> list[Module]:
    modules = []
    for file in sorted(SOURCE.rglob("*.py")):
        parts = ["loopwright", *file.relative_to(SOURCE).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(Module(name, file.read_text(encoding="utf-8"), is_package))
    return modules


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that runs: `ast.walk` without the nodes under ``if TYPE_CHECKING``."""
    yield node
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield from walk(other)
        else:
            yield from walk(child)


def imports(node: ast.AST) -> Iterator[str]:
    """Yield the dotted names of modules imported at run time; for ``from a import b`` both ``a`` and ``a.b``."""
    for found in walk(node):
        if isinstance(found, ast.Import):
            yield from (alias.name for alias in found.names)
        elif isinstance(found, ast.ImportFrom):
            yield f"{'.' * found.level}{found.module or ''}"
            if not found.level:
                yield from (f"{found.module}.{alias.name}" for alias in found.names)


def own_imports(module: Module, names: frozenset[str]) -> set[str]:
    """Return the modules in ``names`` that ``module`` imports."""
    return {name for name in imports(module.tree) if name in names and name != module.name}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


# The checks. Each yields one line per fault.


def upward_imports(module: Module) -> Iterator[str]:
    if not module.part:
        return
    if module.floor < 0:
        yield f"{module.name}: design.md has no floor with {module.part}"
        return
    for name in sorted(set(imports(module.tree))):
        if name.startswith("."):
            yield f"{module.name}: relative import {name}"
        if not name.startswith("loopwright."):
            continue
        part = name.split(".")[1]
        floor = floor_of(part)
        if floor < 0 or part == module.part:  # a name of the package itself, or in the same part
            continue
        is_allowed = floor <= module.floor
        if module.floor == CLOSED_FLOOR:
            is_allowed = floor < CLOSED_FLOOR
        if module.part == "engine":
            is_allowed = floor in FLOORS_OF_ENGINE
        if not is_allowed:
            yield f"{module.name} (F{module.floor}) imports {name} (F{floor})"


def misplaced_in_experiment(module: Module) -> Iterator[str]:
    """Find modules of ``experiment/`` outside the rooms, and imports of rooms that are not lower."""
    if not module.name.startswith("loopwright.experiment."):
        return
    own = module.name.split(".")[2]
    if room_of(own) < 0:
        yield f"{module.name}: no room in design.md has {own}"
        return
    for name in sorted(set(imports(module.tree))):
        room = name.removeprefix("loopwright.experiment.").split(".")[0]
        is_allowed = room == own or room_of(room) < room_of(own)
        if name.startswith("loopwright.experiment.") and not is_allowed:
            yield f"{module.name} imports {name}, which is above it or beside it"


def room_of(name: str) -> int:
    return next((number for number, rooms in enumerate(ROOMS) if name in rooms), -1)


def heavy_low_floors(module: Module) -> Iterator[str]:
    if module.part in STANDARD_LIBRARY_ONLY | {""}:
        for name in imports(module.tree):
            root = name.split(".")[0]
            if root != "loopwright" and root not in sys.stdlib_module_names:
                yield f"{module.name}: imports {name}, which is not in the standard library"


def hooks_in_the_plan(module: Module) -> Iterator[str]:
    """Find imports of hooks and loops under ``plan/``, also those under ``if TYPE_CHECKING``."""
    if module.part == "plan":
        for node in ast.walk(module.tree):
            for name in imports(node) if isinstance(node, ast.Import | ast.ImportFrom) else ():
                if name.startswith("loopwright.") and name.split(".")[1] in NOT_IN_THE_PLAN:
                    yield f"{module.name}: imports {name}"


def hydra_below(module: Module) -> Iterator[str]:
    if module.floor < len(FLOORS) - 1:
        yield from (f"{module.name}: imports {n}" for n in imports(module.tree) if n.split(".")[0] in HYDRA)


def accelerators_named(module: Module) -> Iterator[str]:
    if module.part == "device":
        return
    for node in walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ACCELERATORS:
            yield f"{module.name}:{node.lineno}: {ast.unparse(node)}"
    yield from (f"{module.name}: imports {n}" for n in imports(module.tree) if n.startswith("torch.cuda"))


def distributed_named(module: Module) -> Iterator[str]:
    """Only these modules communicate with other processes, or start them."""
    if module.name.startswith(
        ("loopwright.device.ranks", "loopwright.device.strategies", "loopwright.experiment.launch")
    ):
        return
    yield from (f"{module.name}: imports {n}" for n in imports(module.tree) if n.startswith("torch.distributed"))


def long_files(module: Module) -> Iterator[str]:
    num_lines = len(module.text.splitlines())
    if num_lines > MAX_LINES:
        yield f"{module.name}: {num_lines} lines"


def long_functions(module: Module) -> Iterator[str]:
    for function in functions(module.tree):
        first = function.body[0]
        is_documented = ast.get_docstring(function) is not None
        num_docstring = (first.end_lineno or 0) - first.lineno + 1 if is_documented else 0
        num_lines = (function.end_lineno or 0) - function.lineno + 1 - num_docstring
        if num_lines >= MAX_FUNCTION_LINES:
            yield f"{module.name}:{function.lineno}: {function.name} has {num_lines} lines"


def long_signatures(module: Module) -> Iterator[str]:
    for function in functions(module.tree):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        num = len(arguments) - (bool(arguments) and arguments[0].arg in ("self", "cls"))
        if num > MAX_PARAMETERS:
            yield f"{module.name}:{function.lineno}: {function.name} has {num} parameters"


# Most verbs import torch, which takes seconds, so they are imported after the configuration has been composed. The
# commands that only compose a configuration import nothing else. The runner of a sweep imports torch only if needed.
IMPORTS_LATE = frozenset(
    {
        "loopwright.__main__",
        "loopwright.cli",
        "loopwright.experiment.sweep.with_torch",
        "loopwright.experiment.verbs.composing_entry",
        "loopwright.experiment.verbs.entry",
    }
)


def own_imports_in_functions(module: Module) -> Iterator[str]:
    for function in functions(module.tree):
        for name in imports(function):
            if name.startswith("loopwright") and module.name not in IMPORTS_LATE:
                yield f"{module.name}:{function.lineno}: {function.name} imports {name}"


def busy_packages(module: Module) -> Iterator[str]:
    """Find code in the ``__init__`` of a sub-package other than re-exports; the top-level one has a lazy table."""
    if not module.is_package or not module.part:
        return
    has_all = False
    for node in module.tree.body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_assignment = isinstance(node, ast.Assign | ast.AnnAssign)
        is_all = is_assignment and ast.unparse(node).startswith(("__all__ =", "__all__:"))
        has_all |= is_all
        if not (is_docstring or is_all or isinstance(node, ast.ImportFrom)):
            yield f"{module.name}:{node.lineno}: {ast.unparse(node).splitlines()[0]}"
    if not has_all and module.tree.body[1:]:
        yield f"{module.name}: re-exports without __all__"


def module_state(module: Module) -> Iterator[str]:
    """Find ``global``, and containers at module level that are changed or not named like constants."""
    tree = module.tree
    containers: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and is_mutable(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            containers |= {target.id for target in targets if isinstance(target, ast.Name)}
    for name in sorted(containers - {"__all__"}):
        if not name.isupper():
            yield f"{module.name}: {name} is a container at module level, but not named as a constant"
    for found in ast.walk(tree):
        if isinstance(found, ast.Global):
            yield f"{module.name}:{found.lineno}: global {', '.join(found.names)}"
        elif (changed := mutated_name(found)) in containers:
            yield f"{module.name}: {changed} is changed: {ast.unparse(found).splitlines()[0]}"


def is_mutable(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).split(".")[-1] in MUTABLE_CALLS
    return isinstance(node, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


def mutated_name(node: ast.AST) -> str | None:
    """Return the name whose object ``node`` changes in place, or None."""
    changed: ast.expr | None = None
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        changed = node.value
    elif isinstance(node, ast.AugAssign):
        changed = node.target
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATING_METHODS:
        changed = node.func.value
    return changed.id if isinstance(changed, ast.Name) else None


def vague_names(module: Module) -> Iterator[str]:
    if module.name.split(".")[-1] in ("utils", "helpers", "util", "common", "misc"):
        yield f"{module.name}: the name is vague"


def cycles(modules: Sequence[Module]) -> Iterator[str]:
    """Yield import cycles. Imports of the packages that contain a module are ignored: they are imported first."""
    names = frozenset(module.name for module in modules)
    graph = {m.name: own_imports(m, names) - packages_of(m.name) for m in modules}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> Iterator[str]:
        if name in path:
            yield " -> ".join([*path[path.index(name) :], name])
        elif name not in done:
            for other in sorted(graph[name]):
                yield from visit(other, (*path, name))
            done.add(name)

    for name in sorted(graph):
        yield from visit(name, ())


def packages_of(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


CHECKS: Mapping[str, Callable[[Module], Iterator[str]]] = {
    check.__name__: check
    for check in (
        upward_imports,
        misplaced_in_experiment,
        heavy_low_floors,
        hooks_in_the_plan,
        hydra_below,
        accelerators_named,
        distributed_named,
        long_files,
        long_functions,
        long_signatures,
        own_imports_in_functions,
        busy_packages,
        module_state,
        vague_names,
    )
}

LONG_BODY = "".join(f"    x = {index}\n" for index in range(MAX_FUNCTION_LINES))
PLANTED: Sequence[tuple[str, Module]] = (
    ("upward_imports", Module("loopwright.plan.x", "from loopwright.trainer import Trainer")),
    ("upward_imports", Module("loopwright.engine.x", "import loopwright.data")),
    ("upward_imports", Module("loopwright.loggers.x", "from loopwright import models")),
    ("upward_imports", Module("loopwright.errors", "def f():\n    from loopwright.run_state import RunState")),
    ("upward_imports", Module("loopwright.data.x", "from . import loader")),
    ("upward_imports", Module("loopwright.misplaced.x", "")),
    ("misplaced_in_experiment", Module("loopwright.experiment.x", "")),
    ("misplaced_in_experiment", Module("loopwright.experiment.command.x", "")),
    ("misplaced_in_experiment", Module("loopwright.experiment.console.x", "import loopwright.experiment.gate.tree")),
    ("misplaced_in_experiment", Module("loopwright.experiment.jobs.x", "from loopwright.experiment import runs")),
    ("misplaced_in_experiment", Module("loopwright.experiment.sweep.x", "import loopwright.experiment.verify.found")),
    ("heavy_low_floors", Module("loopwright.plan.x", "import torch")),
    ("heavy_low_floors", Module("loopwright.hooks", "from numpy import ndarray")),
    ("hooks_in_the_plan", Module("loopwright.plan.x", "from loopwright.hooks import Callback")),
    (
        "hooks_in_the_plan",
        Module("loopwright.plan.x", "if TYPE_CHECKING:\n    from loopwright.loop import TrainingLoop"),
    ),
    ("hydra_below", Module("loopwright.trainer.x", "from omegaconf import OmegaConf")),
    ("accelerators_named", Module("loopwright.engine.x", "import torch\ntorch.cuda.synchronize()")),
    ("distributed_named", Module("loopwright.engine.x", "import torch.distributed as dist")),
    ("distributed_named", Module("loopwright.device.device", "from torch.distributed import all_reduce")),
    ("accelerators_named", Module("loopwright.engine.x", "import torch\ntorch.xpu.synchronize()")),
    ("accelerators_named", Module("loopwright.trainer.x", "from torch.cuda import amp")),
    ("long_files", Module("loopwright.run_state", "x = 1\n" * (MAX_LINES + 1))),
    ("long_functions", Module("loopwright.run_state", f"def f():\n{LONG_BODY}")),
    ("long_signatures", Module("loopwright.run_state", f"def f({', '.join(f'a{i}' for i in range(13))}): ...")),
    ("own_imports_in_functions", Module("loopwright.trainer.x", "def f():\n    import loopwright.trainer")),
    ("busy_packages", Module("loopwright.data", '"""Doc."""\nimport os\n__all__ = []', is_package=True)),
    ("busy_packages", Module("loopwright.data", '"""Doc."""\nfrom a import b', is_package=True)),
    ("module_state", Module("loopwright.run_state", "_cache = {}")),
    ("module_state", Module("loopwright.run_state", "CACHE = {}\ndef f(x):\n    CACHE[x] = 1")),
    ("module_state", Module("loopwright.run_state", "SEEN: set[int] = set()\ndef f(x):\n    SEEN.add(x)")),
    ("module_state", Module("loopwright.run_state", "count = 0\ndef f():\n    global count\n    count = 1")),
    ("vague_names", Module("loopwright.data.utils", "")),
)
ALLOWED: Sequence[Module] = (
    Module(
        "loopwright.plan.x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n    from loopwright.trainer import X",
    ),
    Module("loopwright.engine.x", "from loopwright.plan import Plan\nfrom loopwright.engine.step import Step"),
    Module("loopwright.experiment.jobs.x", "import hydra\nfrom loopwright.experiment.gate.tree import walk"),
    Module("loopwright.run_state", f"def f(self, {', '.join(f'a{i}' for i in range(12))}):\n    '''{LONG_BODY}'''"),
    Module(
        "loopwright.run_state",
        "TABLE = {1: 2}\n__all__ = ['TABLE']\ndef f(table):\n    table = {}\n    table[1] = 2",
    ),
)


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return read_package()


@pytest.mark.parametrize("name", CHECKS)
def test_the_source_is_built_as_designed(name: str, modules: list[Module]) -> None:
    assert [line for module in modules for line in CHECKS[name](module)] == []


def test_there_are_no_import_cycles(modules: list[Module]) -> None:
    assert list(cycles(modules)) == []


def test_the_whole_package_was_read(modules: list[Module]) -> None:
    names = {module.name for module in modules}
    assert {"loopwright", "loopwright.hooks", "loopwright.plan", "loopwright.data.sets.digits"} <= names


@pytest.mark.parametrize(("name", "module"), PLANTED, ids=[f"{name}-{i}" for i, (name, _) in enumerate(PLANTED)])
def test_each_check_finds_its_planted_faults(name: str, module: Module) -> None:
    assert list(CHECKS[name](module))


def test_every_check_has_a_planted_fault() -> None:
    assert {name for name, _ in PLANTED} == set(CHECKS)


@pytest.mark.parametrize("module", ALLOWED, ids=range(len(ALLOWED)))
def test_allowed_code_passes_every_check(module: Module) -> None:
    assert [line for check in CHECKS.values() for line in check(module)] == []


def test_a_planted_cycle_is_found() -> None:
    planted = [
        Module("loopwright.a", "from loopwright.b import c"),
        Module("loopwright.b", "import loopwright.d"),
        Module("loopwright.d", "def f():\n    from loopwright import a"),
    ]
    assert list(cycles(planted)) == ["loopwright.a -> loopwright.b -> loopwright.d -> loopwright.a"]
