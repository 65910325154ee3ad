"""`setup_differences`, which finds what differs between the configurations, environments, sources and data of runs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from loopwright.records.comparison.run_setup import RunSetup
from loopwright.records.environments import comparable, section


class _NotSet:
    """Type of `NOT_SET`."""

    def __repr__(self) -> str:
        return "not set"


NOT_SET: Final = _NotSet()  # value of a name that a run has not set; the value None is a recorded null
CONFIGURATION = "configuration"
ENVIRONMENT = "environment"
PACKAGES = "packages"
SOURCE = "source"
DATA = "data"
SECTIONS = (CONFIGURATION, ENVIRONMENT, PACKAGES, SOURCE, DATA)
_ENVIRONMENT_NAMES = ("loopwright", "python", "platform", "torch", "num_threads")

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that is not equal in all runs.

    Attributes:
        section: entry of `SECTIONS`.
        name: path of a setting, or name of a package or another value.
        values: value of each run; `NOT_SET` if the run has no such value.
    """

    section: str
    name: str
    values: tuple[Any, ...]


def setup_differences(setups: Sequence[RunSetup], leave_out: Collection[str] = ()) -> list[Difference]:
    """Return what differs between runs, in the order of `SECTIONS`.

    A run that has not recorded a section is not compared in this section. Values that cannot change the results, such
    as the number of a Slurm job, are left out. Values are equal if they have equal types, so 1 differs from 1.0 and
    from true. NaN is equal to NaN.

    Args:
        setups: what each run was made from.
        leave_out: paths of settings that are not compared. A path also stands for all settings below it.
    """
    found: list[Difference] = []
    for name, values in _sections(setups).items():
        for difference in _differences(name, values):
            is_left_out = any(difference.name == path or difference.name.startswith(f"{path}.") for path in leave_out)
            if not (name == CONFIGURATION and is_left_out):
                found.append(difference)
    return found


def missing_sections(setups: Sequence[RunSetup]) -> list[tuple[str, list[int]]]:
    """Return each section that a run has not recorded, with the positions of these runs."""
    parts = {
        CONFIGURATION: [each.configuration for each in setups],
        ENVIRONMENT: [each.environment for each in setups],
        DATA: [each.data for each in setups],
    }
    found = [(name, [place for place, each in enumerate(values) if each is None]) for name, values in parts.items()]
    return [(name, places) for name, places in found if places]


def has_equal_values(values: Sequence[Any]) -> bool:
    """Return whether all values are equal and have equal types."""
    return len({_text(value) for value in values}) <= 1


def _sections(setups: Sequence[RunSetup]) -> dict[str, list[Values | None]]:
    """Return the values of each run by section; None for a run that has not recorded the section."""
    known = comparable([each.environment for each in setups if each.environment is not None])
    remaining = iter(known)
    environments = [None if each.environment is None else next(remaining) for each in setups]
    return {
        CONFIGURATION: [each.configuration for each in setups],
        ENVIRONMENT: [None if each is None else _environment(each) for each in environments],
        PACKAGES: [None if each is None else section(each, "packages") for each in environments],
        SOURCE: [
            None if environment is None else _source(environment, each.diff)
            for environment, each in zip(environments, setups, strict=True)
        ],
        DATA: [each.data for each in setups],
    }


def _environment(environment: Values) -> dict[str, Any]:
    """Return the values of an environment by path, without the packages and the source."""
    found = {name: environment[name] for name in _ENVIRONMENT_NAMES if name in environment}
    for part in ("hardware", "variables"):
        found |= {f"{part}.{name}": value for name, value in section(environment, part).items()}
    return found


def _source(environment: Values, diff: tuple[int, str] | None) -> dict[str, Any]:
    """Return the git commit, the uncommitted changes, and the digest of each package."""
    found = {f"git.{name}": value for name, value in section(environment, "git").items()}
    if diff is not None:
        found["git.diff"] = {"num_lines": diff[0], "sha256": diff[1]}
    return found | {f"digest of {name}": value for name, value in section(environment, "source").items()}


def _differences(name: str, values: Sequence[Values | None]) -> Iterator[Difference]:
    known = [each for each in values if each is not None]
    keys = dict.fromkeys(key for each in known for key in each)
    places = {top: place for place, top in enumerate(dict.fromkeys(key.partition(".")[0] for key in keys))}
    for key in sorted(keys, key=lambda key: places[key.partition(".")[0]]):  # settings of a group stay together
        if not has_equal_values([each.get(key, NOT_SET) for each in known]):
            yield Difference(name, key, tuple(NOT_SET if each is None else each.get(key, NOT_SET) for each in values))


def _text(value: Any) -> str:
    """Return a text that is equal for equal values of equal types."""
    return repr(value) if value is NOT_SET else json.dumps(value, sort_keys=True, default=str)
