"""`ResultWriter`: writes the tables, the page and the pictures of a sweep into its directory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from loopwright.errors import SaveError
from loopwright.experiment.compose.overrides import parse_overrides
from loopwright.experiment.console.help_text import config_groups
from loopwright.experiment.console.messages import one_line_of
from loopwright.experiment.sweep.factors import plain_value
from loopwright.experiment.sweep.job_files import read_choices
from loopwright.experiment.sweep.page.sweep_page import sweep_page
from loopwright.experiment.sweep.pictures.draw import draw_sweep
from loopwright.experiment.sweep.store import SweepStore
from loopwright.experiment.sweep.tables.best_file import BestFileSettings
from loopwright.experiment.sweep.tables.closing_lines import PAGE_FILE
from loopwright.experiment.sweep.tables.result_files import write_tables
from loopwright.records.report.uplot import read_uplot
from loopwright.regular_files import replace_file
from loopwright.shipped import conf_dir

_log = logging.getLogger("loopwright")


class ResultWriter:
    """Writes the tables and the page of a sweep after each tenth of its jobs, and at the end also its pictures.

    An error is only logged as a warning, because the index contains all results.

    Args:
        store: index of the sweep.
        num_threads: number of threads of the jobs; None if it is unknown.
        write_log: function that writes the journal of a search; None: there is none.
    """

    def __init__(self, store: SweepStore, num_threads: int | None, write_log: Callable[[], None] | None = None) -> None:
        self._store = store
        self._num_threads = num_threads
        self._write_log = write_log
        self._num_ended = 0

    def update(self) -> None:
        """Write the tables if a further tenth of the jobs has ended. Called after the end of each job."""
        self._num_ended += 1
        if self._num_ended % max(1, len(self._store.index.jobs) // 10) == 0:
            self._write_results()

    def finish(self) -> None:
        """Write the index, the tables, the page and the pictures."""
        self._store.flush()
        self._write_results()
        try:
            draw_sweep(self._store.directory, self._store.index)
        except Exception as error:  # noqa: BLE001  (a fault in a library or a font, or a full disk)
            _log.warning("The pictures of the sweep cannot be drawn: %s", one_line_of(error))

    def _write_results(self) -> None:
        directory, index = self._store.directory, self._store.index
        try:
            write_tables(directory, index, num_threads=self._num_threads, best_file=self._best_file())
            if self._write_log is not None:
                self._write_log()
        except (OSError, SaveError) as error:
            _log.warning("The tables of the sweep cannot be written: %s", one_line_of(error))
        try:
            page = sweep_page(directory, index, num_threads=self._num_threads, uplot=read_uplot())
            replace_file(directory / PAGE_FILE, page.encode())
        except Exception as error:  # noqa: BLE001  (a fault in the page must not end the sweep)
            _log.warning("The page of the sweep cannot be written: %s", one_line_of(error))

    def _best_file(self) -> BestFileSettings:
        """Return what the file of the best group needs to know about the configuration."""
        index = self._store.index
        directories = [conf_dir(), *([] if index.config_dir is None else [Path(index.config_dir)])]
        choices = read_choices(self._store.directory / "0") if index.jobs else {}
        experiment = choices.get("experiment") if isinstance(choices, dict) else None
        return BestFileSettings(
            read_value=lambda word: plain_value(parse_overrides([word])[0]),
            groups=tuple(config_groups(directories)),
            experiment=experiment if isinstance(experiment, str) and experiment != "null" else None,
        )
