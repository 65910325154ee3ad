"""`swept`, which builds the index of a small sweep for tests, and strategies of hypothesis for such sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from loopwright.experiment.sweep.index import Attempt, Factor, Group, JobEntry, Objective, SweepIndex, with_results

Result = float | str  # the objective of a job that is done, or the state of another job
DIRECTORY = "outputs/digits/2026-11-30_10-02-11_7d1c4e_sweep"
STATES = ("pending", "running", "interrupted", "failed", "pruned", "skipped")


def swept(
    values: Sequence[Mapping[str, Any]],
    results: Sequence[Sequence[Result]],
    *,
    metrics: Mapping[int, Mapping[str, float]] | None = None,
    best: Mapping[int, float] | None = None,
    steps: Mapping[int, int] | None = None,
    mode: str = "min",
    state: str = "done",
    settings: Mapping[str, Any] | None = None,
    fixed: Sequence[str] = (),
    trust: Sequence[str] = (),
    own_values: Mapping[str, Any] | None = None,
    config_dir: str | None = None,
    error: str = "RuntimeError: boom at step 20. Raised in callback boom.on_train_batch_end.",
) -> SweepIndex:
    """Return the index of a sweep over ``val/loss``.

    Args:
        values: values of the factors of each group.
        results: results of the jobs of each group, by seed from 0.
        metrics, best, steps: metrics, best objective and number of steps, by the number of the job.
        mode: mode of the objective.
        state: state of the sweep.
        settings: settings of the sweep.
        fixed: overrides that all jobs have.
        trust: permission flags of the sweep.
        own_values: values of the factors in the configuration.
        config_dir: configuration directory of the sweep.
        error: error of the failed jobs.
    """
    keys = list(values[0])
    jobs: list[JobEntry] = []
    groups = []
    for number, (chosen, outcomes) in enumerate(zip(values, results, strict=True)):
        words = [f"{key}={value}" for key, value in chosen.items()]
        groups.append(Group(number=number, values=chosen, label=" ".join(words) or "as configured"))
        for seed, outcome in enumerate(outcomes):
            job = len(jobs)
            is_done = not isinstance(outcome, str)
            jobs.append(
                JobEntry(
                    number=job,
                    group=number,
                    seed=seed,
                    overrides=(*fixed, *words, f"seed={seed}"),
                    directory=str(job),
                    config_sha256="0" * 64,
                    state="done" if is_done else str(outcome),
                    error=error if outcome == "failed" else None,
                    objective=outcome if isinstance(outcome, float | int) else None,
                    metrics=(metrics or {}).get(job, {}),
                    best=None if job not in (best or {}) else _best((best or {})[job]),
                    global_step=(steps or {}).get(job, 2000),
                    attempts=(Attempt(started=_time(0), ended=_time(job + 1), host="here", where="pid 1"),),
                )
            )
    index = SweepIndex(
        id="7d1c4e7d1c4e",
        name="digits",
        created=_time(0),
        loopwright="0",
        command=("loopwright", "-m"),
        overrides=(),
        config_dir=config_dir,
        trust=tuple(trust),
        cwd="/",
        state=state,
        objective=Objective(name="val/loss", mode=mode),
        factors=tuple(Factor(key=key, values=tuple(group[key] for group in values)) for key in keys),
        own_values=own_values or {},
        seeds=tuple(range(max(map(len, results)))),
        settings=settings or {},
        groups=tuple(groups),
        best=None,
        jobs=tuple(jobs),
    )
    return with_results(index)


def _best(value: float) -> Mapping[str, Any]:
    return {"name": "val/loss", "step": 1600, "value": value}


def _time(seconds: int) -> str:
    return f"2026-11-30T10:{2 + seconds // 60:02}:{seconds % 60:02}+00:00"


@st.composite
def sweeps(draw: st.DrawFn, max_groups: int = 26) -> SweepIndex:
    """Draw a sweep with up to three factors, any states and any finite objectives."""
    keys = draw(
        st.lists(st.sampled_from(["model.width", "encoder.width", "optimizer.lr", "model"]), max_size=3, unique=True)
    )
    num_groups = draw(st.integers(1, max_groups)) if keys else 1
    texts = st.text("abc", min_size=1, max_size=30)
    value = st.one_of(st.integers(), st.floats(-1e6, 1e6), texts, st.lists(st.integers(0, 9), max_size=4), st.none())
    values = [{key: draw(value) for key in keys} for _ in range(num_groups)]
    num_seeds = draw(st.integers(1, 7))
    results = st.lists(st.one_of(st.sampled_from(STATES), st.floats(-1e6, 1e6)), min_size=num_seeds, max_size=num_seeds)
    found = st.dictionaries(st.sampled_from(["val/accuracy", "val/error", "lr"]), st.floats())
    num_jobs = num_groups * num_seeds
    return swept(
        values,
        [draw(results) for _ in range(num_groups)],
        metrics={job: draw(found) for job in range(min(num_jobs, 3))},
        mode=draw(st.sampled_from(["min", "max"])),
        best={0: draw(st.floats())},
    )
