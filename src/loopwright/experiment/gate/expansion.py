"""How much text the interpolations of a configuration would write, worked out without writing it.

Thirty texts that each name the one before twice are 10⁹ copies of the first. Following them one by one would never
end, so the sizes are added up beforehand, each text once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from loopwright.experiment.gate.budget import Budget
from loopwright.experiment.gate.tree import walk

_REFERENCE = re.compile(r"\$\{\s*(\.*)([^${}:\s]*)\s*\}")
_LEAF_RESOLVER = re.compile(r"\$\{\s*(?:oc\.env|now|hydra|python_version)\s*:[^${}]*\}")  # these read no settings
_STEP = re.compile(r"[^.\[\]]+")

_Place = tuple[str, ...]


def check_expansion(raw: object) -> None:
    """Refuse interpolations that multiply.

    Args:
        raw: the configuration as plain data, interpolations in place.

    Raises:
        SettingError: where texts would hold more than 1,000,000 characters, or where that cannot be told because too
            many interpolations choose at run time what they name.
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
            # Each choice may lead to any other text that chooses, and to each of them once.
            budget.check_combinations(path, most_choices**num_choosing)


@dataclass(frozen=True, slots=True)
class _Size:
    num_characters: int
    num_choices: int  # interpolations in the written text of which it is not known what they name


@dataclass(slots=True)
class _Expansion:
    raw: object
    budget: Budget
    known: dict[_Place, _Size] = field(default_factory=dict)

    def size(self, place: _Place, text: str, length: int = 0) -> _Size:
        if place in self.known:
            return self.known[place]
        self.known[place] = _Size(0, 0)  # for a text that names itself, which OmegaConf refuses
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
        """The node at ``place``; None where the way there leads through another interpolation, or nowhere."""
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
    """Interpolations in ``text`` that are neither a plain reference nor a resolver that reads no settings."""
    return text.count("${") - len(_REFERENCE.findall(text)) - len(_LEAF_RESOLVER.findall(text))
