"""`carry_on`: runs all jobs of a sweep that are left, shows them, and writes the tables.

If each job has a process of its own on the CPU, this process does not import torch.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loopwright.errors import SettingError, refuse
from loopwright.experiment.console.command_line import shell_line, words_on
from loopwright.experiment.console.messages import complain, output_width, tell
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.recorded import read_recorded
from loopwright.experiment.jobs.workspace import deterministic_workspace
from loopwright.experiment.sweep.index import JobEntry, SweepIndex
from loopwright.experiment.sweep.launchers import Launcher, Processes
from loopwright.experiment.sweep.read_sweep import Sweep
from loopwright.experiment.sweep.result_writer import ResultWriter
from loopwright.experiment.sweep.runner import Runner
from loopwright.experiment.sweep.screen.following import num_jobs_of
from loopwright.experiment.sweep.screen.lines import head, logged_line
from loopwright.experiment.sweep.screen.screen import Screen, is_same_output
from loopwright.experiment.sweep.search.pruning_watch import pruning_watch
from loopwright.experiment.sweep.settings import SweepSettings
from loopwright.experiment.sweep.slots import make_slots
from loopwright.experiment.sweep.slurm import make_slurm
from loopwright.experiment.sweep.slurm_executor import LOCAL
from loopwright.experiment.sweep.slurm_queue import open_slurm_ids
from loopwright.experiment.sweep.store import opened_store
from loopwright.experiment.sweep.sweep_log import SweepLog
from loopwright.experiment.sweep.sweep_loggers import logged_sweep
from loopwright.experiment.sweep.tables.results_table import results_text
from loopwright.experiment.sweep.with_torch import check_search, count_accelerators, make_inline, make_searching

_CPU = "cpu"
_KINDS = {"gpu": "cuda"}  # torch's names of kinds of devices


def carry_on(
    directory: Path,
    index: SweepIndex,
    sweep: Sweep,
    trust: Trust,
    *,
    only: Collection[int] | None = None,
    first_config: Mapping[str, Any] | None = None,
) -> int:
    """Run the jobs that are left, and return the exit code of the sweep.

    Args:
        directory: directory of the sweep.
        index: index of the sweep.
        sweep: settings and factors of the sweep.
        trust: packages that the user trusts.
        only: numbers of the jobs to run; None: all that are left.
        first_config: configuration of a job, if the index has no job yet.

    Raises:
        CheckpointError: if another process runs this sweep.
        SettingError: if the sweep cannot be run with its settings on this machine.
    """
    config = read_recorded(directory / index.jobs[0].directory) if index.jobs else first_config or {}
    kind, threads, num_processes = _device_of(config)
    taken = open_slurm_ids(index)
    settings, launcher = _launcher(directory, sweep.settings, (kind, threads, num_processes), trust, taken)
    if settings.launcher != "inline":
        gc.enable()  # the command disables it for the time before a run in this process
    is_deterministic = _is_deterministic(index, config)
    with opened_store(directory, index) as store, deterministic_workspace(is_needed=is_deterministic):
        num_parallel = launcher.num_free
        if launcher.outlives_runner:
            num_parallel = min(num_parallel, settings.slurm.max_parallel, num_jobs_of(store.index))
        _warn_about_threads(launcher, threads, num_parallel, kind)
        log, beginning = SweepLog(directory), head(store.index, num_parallel, threads, directory)
        tell(beginning)
        log.write(beginning)
        with Screen(lambda: store.index, directory, stream=sys.stdout) as screen:
            searching = make_searching(store, sweep, trust, threads) if settings.is_search else None
            results = ResultWriter(store, threads, None if searching is None else searching.write_log)

            def say(message: str) -> None:
                screen.say(message)
                log.write(message)

            def on_end(entry: JobEntry) -> None:
                screen.job_ended(entry)
                log.write(logged_line(store.index, entry))
                results.update()

            pruning = pruning_watch(store, settings.pruner)
            runner = Runner(
                store,
                launcher,
                settings,
                on_end=on_end,
                say=say,
                propose=None if searching is None else searching.propose,
                only=only,
                watch=None if pruning is None else pruning.look,
                taken=taken,
            )
            with logged_sweep(directory, config, trust, lambda: store.index.state):
                code = runner.run()
        results.finish()
        is_said = sys.stdout.isatty() or is_same_output(sys.stdout, sys.stderr)  # the screen has printed the errors
        text = results_text(store.index, str(directory), width=output_width(), with_failures=not is_said)
        tell(text, wraps=False)
        log.write(text)
        if open_slurm_ids(store.index):
            tell(_still_in_slurm(directory, index.trust))
    return code


def check_runnable(sweep: Sweep, config: Mapping[str, Any], mode: str, trust: Trust) -> None:
    """Check that jobs can be started and proposed on this machine. Called before files are written or renamed.

    Args:
        sweep: settings and factors of the sweep.
        config: configuration of a job.
        mode: mode of the objective.
        trust: packages that the user trusts.

    Raises:
        SettingError: for devices that this machine lacks, and for a search whose package is not installed.
    """
    _launcher(Path(), sweep.settings, _device_of(config), trust, {})
    if sweep.settings.is_search:
        check_search(sweep, mode)


def _is_deterministic(index: SweepIndex, config: Mapping[str, Any]) -> bool:
    """Return whether any job is deterministic. cuBLAS reads the setting of its workspace only once in a process."""
    words = {word.lower() for job in index.jobs for word in job.overrides}
    return bool(config.get("deterministic")) or "deterministic=true" in words


def _device_of(config: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return the kind of device of a job, its number of threads, and its number of processes."""
    device = config.get("device") or {}
    return str(device.get("kind", _CPU)), device.get("num_threads") or 1, device.get("num_processes") or 1


def _launcher(
    directory: Path, settings: SweepSettings, device: tuple[str, int, int], trust: Trust, taken: Mapping[int, str]
) -> tuple[SweepSettings, Launcher]:
    """Return the settings with the chosen launcher, and the launcher. ``taken`` are the jobs still in Slurm."""
    kind, threads, num_processes = device
    chosen = settings.launcher
    if chosen == "none":
        raise refuse("sweep.launcher", chosen, "a launcher that starts jobs", "use sweep.launcher=process")
    if chosen == "auto":
        chosen = "inline" if kind == _CPU and not settings.uses_processes else "process"
    settings = replace(settings, launcher=chosen)
    if taken and (chosen != "slurm" or settings.slurm.executor == LOCAL):
        problem = f"={chosen}: {len(taken)} jobs of this sweep are still in Slurm; use sweep.launcher=slurm"
        raise SettingError("sweep.launcher", f"{problem}, or end them with loopwright sweep stop.")
    if chosen == "slurm":
        return settings, make_slurm(directory, settings, threads, trust, taken)
    if chosen == "inline":
        return settings, make_inline(directory, trust)
    kind = _KINDS.get(kind, kind)
    slots = make_slots(
        kind,
        settings.devices,
        settings.jobs_per_device,
        settings.num_parallel,
        num_visible=0 if kind == _CPU else count_accelerators(kind),
        num_cpu_slots=max(1, (os.cpu_count() or 1) // (threads * num_processes)),
        devices_per_job=num_processes,
    )
    return settings, Processes(directory, trust, slots)


def _still_in_slurm(directory: Path, permissions: Sequence[str]) -> str:
    """Return what a user can do with jobs that continue after the runner has ended."""
    words = [words_on(verb, directory, flags) for verb, flags in (("show", ()), ("resume", permissions), ("stop", ()))]
    show, resume, stop = (shell_line(["loopwright", "sweep", *each]) for each in words)
    return f"The jobs continue in Slurm. To see them: {show}. To wait for them: {resume}. To end them: {stop}."


def _warn_about_threads(launcher: Launcher, threads: int, num_parallel: int, kind: str) -> None:
    if launcher.outlives_runner:  # Slurm decides how many jobs share a machine
        return
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if kind == _CPU and num_parallel > 1 and threads * num_parallel > num_cores:
        problem = f"{num_parallel} jobs at a time with {threads} threads each on {num_cores} cores"
        complain(f"{problem}: use device.num_threads={max(1, num_cores // num_parallel)}, or fewer jobs at a time.")
