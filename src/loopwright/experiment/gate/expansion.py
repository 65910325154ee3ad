"""`check_expansion`, which refuses interpolations that would produce too many characters.

If each of thirty strings refers twice to the previous string, the last string contains 10⁹ copies of the first string.
OmegaConf would not finish resolving these strings in an acceptable time. Before OmegaConf resolves a configuration,
this module computes an upper bound on the total length of the resolved strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from loopwright.experiment.gate.budget import Budget
from loopwright.experiment.gate.tree import walk

_REFERENCE = re.compile(r"\$\{\s*(\.*)([^${}:\s]*)\s*\}")
# Matches interpolations whose resolvers do not read a setting.
_LEAF_RESOLVER = re.compile(r"\$\{\s*(?:oc\.env|now|hydra|python_version)\s*:[^${}]*\}")
_STEP = re.compile(r"[^.\[\]]+")

_Place = tuple[str, ...]


def check_expansion(raw: object) -> None:
    """Refuse interpolations that would produce too many characters.

    Args:
        raw: configuration as nested dicts, lists and scalars, with unresolved interpolations.

    Raises:
        SettingError: if the resolved strings could have more than 1,000,000 characters in total, if more than 200
            interpolations form a chain, or if nested interpolations such as ``${a.${b}}`` could refer to each other in
            more than 10,000 ways.
    """
    budget = Budget()
    expansion = _Expansion(raw, budget)
    num_choosing = most_choices = 0
    for path, node in walk(raw):
        if isinstance(node, str) and "${" in node:
            size = expansion.size(tuple(_STEP.findall(path)), node)
            budget.spend_text(path, size.num_characters)
            num_choosing += _num_choices(node) > 0
            most_choices = max(most_choices, size.num_choices)
            # In the worst case, each nested interpolation refers to another string with nested interpolations. Each
            # such string then multiplies the number of copies by `most_choices`.
            budget.check_combinations(path, most_choices**num_choosing)


@dataclass(frozen=True, slots=True)
class _Size:
    num_characters: int
    num_choices: int  # number of nested interpolations in the string and in all strings to which it refers


@dataclass(slots=True)
class _Expansion:
    raw: object
    budget: Budget
    known: dict[_Place, _Size] = field(default_factory=dict)

    def size(self, place: _Place, text: str, length: int = 0) -> _Size:
        if place in self.known:
            return self.known[place]
        # This entry ends the recursion if a string refers to itself. OmegaConf refuses such a string later.
        self.known[place] = _Size(0, 0)
        num_characters, num_choices = len(text), _num_choices(text)
        self.budget.check_chain(".".join(place), length)
        for dots, name in _REFERENCE.findall(text):
            base = place[: len(place) - len(dots)] if dots else ()
            target = (*base, *_STEP.findall(name))
            node = self.at(target)
            if node is None:
                num_choices += 1
            elif isinstance(node, str):
                inner = self.size(target, node, length + 1)
                num_characters += inner.num_characters
                num_choices += inner.num_choices
        self.known[place] = _Size(num_characters, num_choices)
        return self.known[place]

    def at(self, place: _Place) -> object:
        """Return the node at ``place``, or None if the unresolved configuration has no such node."""
        node: object = self.raw
        for step in place:
            if isinstance(node, dict):
                by_text = {str(key): value for key, value in node.items()}
                node = by_text.get(step)
            elif isinstance(node, list) and step.isdecimal() and int(step) < len(node):
                node = node[int(step)]
            else:
                return None
        return "" if node is None else node


def _num_choices(text: str) -> int:
    """Count the interpolations in ``text`` whose setting is unknown before they are resolved, such as ``${a.${b}}``.

    Plain references such as ``${a.b}``, and resolvers that do not read a setting, are not counted.
    """
    return text.count("${") - len(_REFERENCE.findall(text)) - len(_LEAF_RESOLVER.findall(text))
