"""`read_signature`, which reads the arguments of a class or function of Loopwright from its syntax tree.

Importing the module of a target would import torch. The syntax tree contains the same annotations, defaults and
docstrings. Targets of other packages are not read.
"""

from __future__ import annotations

import ast
import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import loopwright

_PACKAGE = "loopwright"
_ENTRY = re.compile(r"^(\w+): (.*)$")
NO_DEFAULT = object()


class Argument(NamedTuple):
    """An argument of a class or function.

    Attributes:
        annotation: type as the source shows it, such as ``int | None``; empty if there is none.
        options: strings that the annotation allows with ``Literal``.
        default: default value; `NO_DEFAULT` if the argument must be given, or its default is not a plain value.
        meaning: entry of the docstring's section ``Args`` or ``Attributes``; empty if there is none.
    """

    annotation: str
    options: tuple[str, ...]
    default: Any
    meaning: str


class Signature(NamedTuple):
    """Arguments of a class or function of Loopwright.

    Attributes:
        name: name of the class or function, such as ``TrainingLoop``.
        summary: first sentence of its docstring.
        arguments: arguments by name.
    """

    name: str
    summary: str
    arguments: Mapping[str, Argument]


def read_signature(target: str) -> Signature | None:
    """Read the signature of a class or function.

    Args:
        target: value of a ``_target_``, such as ``loopwright.models.MLP``.

    Returns:
        The signature. None if the target is not part of Loopwright, or is not found in its source.
    """
    module, _, name = target.rpartition(".")
    found = _find(module, name) if module.split(".")[0] == _PACKAGE else None
    if found is None:
        return None
    tree, node = found
    aliases = dict(_assignments(tree))
    documented = _documented(ast.get_docstring(node) or "")
    arguments = {
        argument: Argument(
            annotation=_text_of(annotation, aliases),
            options=_options(annotation, aliases),
            default=_value_of(default),
            meaning=documented.get(argument, ""),
        )
        for argument, annotation, default in _arguments(node)
    }
    return Signature(name=node.name, summary=_first_sentence(ast.get_docstring(node) or ""), arguments=arguments)


_Definition = ast.ClassDef | ast.FunctionDef


def _find(module: str, name: str) -> tuple[ast.Module, _Definition] | None:
    """Return the definition of a name, and the syntax tree of its module. Follow the imports of the name."""
    for _ in range(4):  # a name is re-exported by at most a few packages
        file = _file_of(module)
        if file is None:
            return None
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, _Definition) and node.name == name:
                return tree, node
        source = next((each.module for each in ast.walk(tree) if _imports(each, name)), None)  # type: ignore[attr-defined]
        if source is None:
            return None
        module = source
    return None


def _file_of(module: str) -> Path | None:
    first, *parts = module.split(".")
    if first != _PACKAGE or not all(part.isidentifier() for part in parts):
        return None
    path = Path(loopwright.__file__).parent.joinpath(*parts)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imports(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names)


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def _arguments(node: _Definition) -> Iterator[tuple[str, ast.expr | None, ast.expr | None]]:
    """Yield the name, the annotation and the default of each argument."""
    if isinstance(node, ast.FunctionDef):
        yield from _parameters(node.args)
        return
    constructors = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    if constructors:
        yield from list(_parameters(constructors[0].args))[1:]
        return
    for each in node.body:  # the fields of a dataclass
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            yield each.target.id, each.annotation, each.value


def _parameters(args: ast.arguments) -> Iterator[tuple[str, ast.expr | None, ast.expr | None]]:
    by_position = [*args.posonlyargs, *args.args]
    missing: list[ast.expr | None] = [None] * (len(by_position) - len(args.defaults))
    for argument, default in zip(by_position, [*missing, *args.defaults], strict=True):
        yield argument.arg, argument.annotation, default
    for argument, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield argument.arg, argument.annotation, default


def _resolved(annotation: ast.expr, aliases: Mapping[str, ast.expr]) -> ast.expr:
    """Replace the name of a type alias in the same module by its definition."""
    if isinstance(annotation, ast.Name) and annotation.id in aliases:
        return aliases[annotation.id]
    return annotation


def _members(annotation: ast.expr | None, aliases: Mapping[str, ast.expr]) -> Iterator[ast.expr]:
    """Yield the members of a union."""
    if annotation is None:
        return
    annotation = _resolved(annotation, aliases)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        yield from _members(annotation.left, aliases)
        yield from _members(annotation.right, aliases)
    else:
        yield annotation


def _literals(member: ast.expr) -> list[Any] | None:
    """Return the values of a ``Literal``; None for another type."""
    if not (isinstance(member, ast.Subscript) and ast.unparse(member.value) == "Literal"):
        return None
    values = member.slice.elts if isinstance(member.slice, ast.Tuple) else [member.slice]
    return [each.value for each in values if isinstance(each, ast.Constant)]


def _text_of(annotation: ast.expr | None, aliases: Mapping[str, ast.expr]) -> str:
    shown: list[str] = []
    for member in _members(annotation, aliases):
        literals = _literals(member)
        shown += [ast.unparse(member)] if literals is None else map(str, literals)
    return " | ".join(shown)


def _options(annotation: ast.expr | None, aliases: Mapping[str, ast.expr]) -> tuple[str, ...]:
    found = [each for member in _members(annotation, aliases) for each in _literals(member) or ()]
    return tuple(each for each in found if isinstance(each, str))


def _value_of(default: ast.expr | None) -> Any:
    """Return a default as a plain value, with a list instead of a tuple."""
    try:
        value = NO_DEFAULT if default is None else ast.literal_eval(default)
    except ValueError:
        return NO_DEFAULT
    return list(value) if isinstance(value, tuple) else value


def _first_sentence(docstring: str) -> str:
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return _plain(re.split(r"(?<=\.)\s+(?=[A-Z])", paragraph)[0])


def _plain(text: str) -> str:
    """Remove the marks around names in a docstring."""
    return text.replace("`", "")


def _documented(docstring: str) -> dict[str, str]:
    """Return the entries of the section ``Args`` or ``Attributes`` of a docstring, each on one line."""
    lines = docstring.splitlines()
    heading = next((each for each in ("Args:", "Attributes:") if each in lines), None)
    if heading is None:
        return {}
    entries = itertools.takewhile(lambda line: not line or line.startswith(" "), lines[lines.index(heading) + 1 :])
    found: dict[str, list[str]] = {}
    name = ""
    for line in textwrap.dedent("\n".join(entries)).splitlines():
        match = _ENTRY.match(line)
        if match:
            name, text = match.groups()
            found[name] = [text]
        elif name:
            found[name].append(line.strip())
    return {name: _plain(" ".join(filter(None, texts))) for name, texts in found.items()}
