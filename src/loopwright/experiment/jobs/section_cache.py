"""`SectionCache`, which keeps what was built from sections of a configuration, and which sections were checked."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from loopwright.errors import SettingError

T = TypeVar("T")


class SectionCache:
    """Results for the previous job of a sweep. They are used again for the next job if its sections are equal."""

    def __init__(self) -> None:
        # By a name: sections as JSON, and the built object or the error of building it.
        self._built: dict[str, tuple[str, Any, SettingError | None]] = {}
        self._accepted: dict[str, dict[str, Any]] = {}  # by the name of a check: configuration that passed the check

    def once(
        self, config: Mapping[str, Any], sections: Sequence[str], make: Callable[[], T], name: str | None = None
    ) -> T:
        """Return the result of ``make``, or the result for the previous job if these sections have not changed.

        Args:
            config: configuration of the job.
            sections: names of the sections that ``make`` reads.
            make: function that builds an object. A `SettingError` is also kept, and raised again.
            name: name under which the result is kept; None: the names of the sections.
        """
        name = name or " ".join(sections)
        key = json.dumps([config.get(section) for section in sections], sort_keys=True)
        if name not in self._built or self._built[name][0] != key:
            if self._built.pop(name, None) is not None and name == "data":
                gc.collect()  # otherwise, an old data set in a reference cycle stays in memory during the next build
            self._built[name] = (key, *_result_of(make))
        _, made, refusal = self._built[name]
        if refusal is not None:
            raise refusal.with_traceback(None)
        return cast(T, made)

    @contextmanager
    def changed(self, check: str, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the sections that a check has to read: all that the previous job did not have.

        Only identical objects count as equal, so the sections of a configuration must not be changed in place. If the
        context raises no exception, all sections count as checked.

        Args:
            check: name of the check.
            config: configuration of the job.
        """
        accepted = self._accepted.get(check, {})
        yield {name: node for name, node in config.items() if name not in accepted or accepted[name] is not node}
        self._accepted[check] = dict(config)


def _result_of(make: Callable[[], T]) -> tuple[T | None, SettingError | None]:
    try:
        return make(), None
    except SettingError as error:
        return None, error
