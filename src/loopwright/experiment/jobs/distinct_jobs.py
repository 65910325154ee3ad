"""`DistinctJobs`, which refuses equal jobs of a sweep, and `labels_of`, which tells the jobs of a sweep apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from loopwright.errors import SettingError
from loopwright.experiment.console.messages import joined

_MOST_PAIRS = 10  # number of different pairs that are named in the message


class DistinctJobs:
    """The configurations of the jobs of a sweep, and the pairs of jobs whose configurations are equal."""

    def __init__(self) -> None:
        self._sections: dict[str, Any] = {}  # by the text of a section: the first section with this text
        self._numbers: dict[bytes, int] = {}  # by the digest of a configuration: the first job that has it
        self._equal: list[tuple[int, int]] = []  # numbers of two jobs with equal configurations

    def add(self, number: int, config: Mapping[str, Any]) -> dict[str, Any]:
        """Add the configuration of a job. Return an equal configuration that shares sections with earlier jobs.

        The sections must not be changed in place.

        Args:
            number: index of the job in its sweep, from 0.
            config: resolved configuration.
        """
        digest = hashlib.sha256()
        shared = {}
        for name, section in config.items():
            text = repr(section)  # also shows the types of values: 1, 1.0 and True are equal
            digest.update(f"{name}: {text}\n".encode(errors="surrogatepass"))
            is_scalar = not isinstance(section, dict | list)
            shared[name] = section if is_scalar else self._sections.setdefault(text, section)
        first = self._numbers.setdefault(digest.digest(), number)
        if first != number:
            self._equal.append((first, number))
        return shared

    def refuse_equal(self, jobs: Sequence[Sequence[str]]) -> None:
        """Refuse the sweep if two jobs have equal configurations.

        Args:
            jobs: overrides of all jobs.

        Raises:
            SettingError: the message names the jobs, and the overrides that are equal.
        """
        same_words = {(first, second) for first, second in self._equal if list(jobs[first]) == list(jobs[second])}
        twice = _given_twice(sorted(first for first, _ in same_words), jobs)
        found: dict[str, tuple[int, int]] = {}
        for first, second in self._equal:
            is_same = (first, second) in same_words
            found.setdefault(twice if is_same else _differing(jobs[first], jobs[second]), (first, second))
        problems = [
            f"jobs {first} and {second} have the same configuration: {words}; give each value once."
            for words, (first, second) in found.items()
        ]
        if problems:
            num_left = len(problems) - _MOST_PAIRS
            more = f" and {num_left} more" if num_left > 0 else ""
            raise SettingError(f"{joined(problems[:_MOST_PAIRS])}{more}", "")


def _differing(first: Sequence[str], second: Sequence[str]) -> str:
    """Return the overrides that only one of two jobs has, such as ``optimizer.lr=1e-3 and optimizer.lr=0.001``."""
    own = (" ".join(word for word in job if word not in other) for job, other in ((first, second), (second, first)))
    return " and ".join(each or "as configured" for each in own)


def _given_twice(numbers: Sequence[int], jobs: Sequence[Sequence[str]]) -> str:
    """Return the overrides that all these jobs have. If possible, leave out the overrides that all jobs have.

    If a value is listed twice, such as ``optimizer.lr=0.1,0.1,0.2``, these jobs differ in the other swept values.
    """
    if not numbers:
        return ""
    for words in (_own_words(jobs), [[word for word in job if not word.startswith("hydra")] for job in jobs]):
        common = set.intersection(*(set(words[number]) for number in numbers))
        if common:
            return " ".join(word for word in words[numbers[0]] if word in common)
    return "as configured"


def labels_of(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return for each job the overrides that at least one job lacks.

    If a job has no such overrides, return all its overrides except Hydra's settings.
    """
    return [" ".join(own) or "as configured" for own in _own_words(jobs)]


def _own_words(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    common = set(jobs[0]).intersection(*jobs) if jobs else set()
    return [
        [word for word in overrides if word not in common]
        or [word for word in overrides if not word.startswith("hydra")]
        for overrides in jobs
    ]
