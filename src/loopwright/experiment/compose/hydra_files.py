"""Functions that write the files in the folder ``.hydra``, and set the log levels of ``hydra.verbose``.

Hydra's main function would write these files and set these levels, but Loopwright runs jobs without this function.
"""

from __future__ import annotations

import logging
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from loopwright.errors import SaveError
from loopwright.experiment.compose.overrides import without_interpolation


def write_hydra_files(directory: Path, source: DictConfig, job_number: int | None = None) -> None:
    """Write ``config.yaml``, ``hydra.yaml`` and ``overrides.yaml`` into ``directory/.hydra``.

    Args:
        directory: run directory of the job.
        source: composed configuration with its ``hydra`` node. This function sets the run directory and the job number
            in the node.
        job_number: index of the job in its sweep, from 0; None for a run outside a sweep.

    Raises:
        SaveError: if a file cannot be written.
    """
    hydra = source.hydra
    with read_write(source), open_dict(source):
        if job_number is None:
            hydra.run.dir = without_interpolation(str(directory))
        else:
            hydra.sweep.dir = without_interpolation(str(directory.parent))
            hydra.job.num, hydra.job.id = job_number, str(job_number)
        hydra.mode = RunMode.RUN if job_number is None else RunMode.MULTIRUN
        hydra.runtime.output_dir = without_interpolation(str(directory.resolve()))
        task = source.copy()
        del task["hydra"]
    texts = {
        "config.yaml": OmegaConf.to_yaml(task),
        "hydra.yaml": OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})),
        "overrides.yaml": OmegaConf.to_yaml(hydra.overrides.task),
    }
    folder = directory / ".hydra"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SaveError(f"{error.filename}: cannot be written: {error.strerror or error}") from error


def set_log_levels(source: DictConfig) -> None:
    """Set the level of each logger in ``hydra.verbose`` to DEBUG. With ``hydra.verbose=true``, set the root logger."""
    verbose = source.hydra.verbose
    names = [""] if verbose is True else [] if verbose is False else [verbose] if isinstance(verbose, str) else verbose
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
