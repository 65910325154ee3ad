"""The page of a run: its policy, its content, its size, and what it does with hostile files."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from pathlib import Path

import pytest

from loopwright.records.report import shell
from loopwright.records.report.masks import masked
from loopwright.records.report.run_files import read_run_files
from loopwright.records.report.run_page import run_page
from loopwright.records.report.uplot import UPlot
from loopwright.run_lock import hold
from records.report.pages import Page, make_run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
FAKE = UPlot("/* a script that draws */", ".uplot {}")
LOSSES = {"train/loss": [(s, 1 / s) for s in range(10, 210, 10)], "val/loss": [(s, 2 / s) for s in range(50, 250, 50)]}
COMMANDS = [("Resume", "loopwright resume x"), ("Validate", "loopwright validate x")]


def page_of(directory: Path, uplot: UPlot | None = None) -> tuple[str, Page]:
    text = run_page(read_run_files(directory), COMMANDS, "2026-12-01 10:00", uplot)
    return text, Page(text)


@pytest.mark.parametrize("uplot", [None, FAKE])
def test_the_policy_allows_exactly_the_scripts_of_the_page(tmp_path: Path, uplot: UPlot | None) -> None:
    text, page = page_of(make_run(tmp_path, LOSSES), uplot)
    scripts = [script for attributes, script in page.scripts if "type" not in attributes]
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    (policy,) = [value for name, value in page.attributes if name == "content" and "default-src" in str(value)]
    assert policy is not None and policy.startswith(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-"
    )
    assert re.findall(r"'sha256-([^']+)'", policy) == digests and len(digests) == (2 if uplot else 1)
    assert page.is_balanced and "http" not in re.sub(r"http-equiv", "", text)


def test_the_head_shows_the_state_the_best_value_and_the_commands(tmp_path: Path) -> None:
    best = {"name": "val/loss", "value": 0.01, "step": 200}
    run = make_run(
        tmp_path, LOSSES, best=best, objective=0.01, global_step=200, changes={"optimizer.lr": [0.003, 0.01]}
    )
    _, page = page_of(run)
    for part in (
        "digits",
        "c623ba",
        "✓ completed",
        "at step 200",
        "0.01",
        "optimizer.lr=0.01",
        *dict(COMMANDS).values(),
    ):
        assert part in page.text
    charts = page.data["charts"].values()
    assert [[each["name"] for each in chart["series"]] for chart in charts] == [["train", "val"]] * 2
    assert {tuple(chart["best"]) for chart in charts} == {(200, 0.01)}


def test_hostile_texts_stay_texts_everywhere(tmp_path: Path) -> None:
    files = dict.fromkeys(("config.yaml", "plan.txt", "git.diff", "run.log"), f"a: {HOSTILE}\n")
    files["environment.json"] = json.dumps({"torch": HOSTILE, "packages": {HOSTILE: HOSTILE}, HOSTILE: [HOSTILE]})
    run = make_run(
        tmp_path,
        {f"val/{HOSTILE}": [(1, 0.5), (2, 0.25)], HOSTILE: [(1, math.nan)]},
        files=files,
        error=HOSTILE,
        command=HOSTILE,
        changes={HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]},
        data={HOSTILE: HOSTILE},
        origins={HOSTILE: HOSTILE},
        resumes=[{"checkpoint": HOSTILE}],
        best={"name": HOSTILE, "value": 1, "step": 1},
        state="failed",
    )
    (run / "checkpoints" / "step_00000002").mkdir(parents=True)
    (run / "checkpoints" / "step_00000002" / "manifest.json").write_text("{}")
    (run / "<img src=x>.txt").write_text("x")
    text, page = page_of(run, FAKE)
    assert page.is_balanced and page.tags.count("script") == 3 and "img" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes) and "<img" not in text
    assert page.text.count("alert(1)") > 10


@pytest.mark.parametrize(
    "name", ["summary.json", "config.yaml", "plan.txt", "environment.json", "run.log", "timing.jsonl"]
)
def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path, LOSSES)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to("/etc/passwd")
    _, page = page_of(run)
    assert "root:" not in page.text and "charts" in page.data


def test_secret_values_are_masked(tmp_path: Path) -> None:
    secret = "hunter2hunter2"
    run = make_run(
        tmp_path,
        LOSSES,
        files={
            "config.yaml": f"logger:\n  api_key: {secret}\n",
            "run.log": f"password={secret}",
            "git.diff": f'+token = "{secret}"',
        },
        command=f"loopwright logger.api_key={secret}",
        changes={"logger.api_key": [None, secret]},
    )
    text, _ = page_of(run)
    assert secret not in text and text.count("•••") >= 5


@pytest.mark.parametrize("line", ["api_key: null", "monkey_business: x", "key_size: 8", "tokens: 3"])
def test_other_values_are_not_masked(line: str) -> None:
    assert masked(line) == line


def test_a_running_run_says_when_the_page_was_drawn(tmp_path: Path) -> None:
    run = make_run(tmp_path, LOSSES, state="running")
    with hold(run):
        assert "drawn at 2026-12-01 10:00 while the run continued" in page_of(run)[1].text
    assert "? lost" in page_of(run)[1].text


def test_a_lost_run_shows_its_last_logged_values(tmp_path: Path) -> None:
    seconds = [{"step": step, "name": "train/seconds", "value": 30.0} for step in (50, 100, 150, 200)]
    files = {"timing.jsonl": "\n".join(map(json.dumps, seconds))}
    page = page_of(make_run(tmp_path, LOSSES, state="running", objective_mode="min", files=files))[1]
    for part in ("has ended without recording an end", "training time2:00", "steps200", "val/loss0.01last"):
        assert part in page.text


def test_a_run_without_metrics_has_a_page(tmp_path: Path) -> None:
    run = make_run(tmp_path, {})
    (run / "metrics.jsonl").unlink()
    assert "This run has logged no metrics." in page_of(run)[1].text


def test_validated_checkpoints_are_a_table_with_the_best_marked(tmp_path: Path) -> None:
    losses = {"a/step_00000100": 0.3, "a/step_00000200": 0.1, "a/step_00000300": "NaN", "a/step_00000400": 0.2}
    rows = [
        {"checkpoint": name, "dataloader": "val", "metrics": {"val/loss": loss, "val/accuracy": 0.5}}
        for name, loss in losses.items()
    ]
    text, page = page_of(make_run(tmp_path, LOSSES, rows=rows))
    assert page.is_balanced and "Validated checkpoints" in page.text
    (best,) = re.findall(r'<tr class="best">(.*?)</tr>', text)
    assert "a/step_00000200" in best and "0.1" in best
    assert all(name in page.text for name in losses)
    assert "Validated checkpoints" not in page_of(make_run(tmp_path / "one", LOSSES, rows=rows[:1]))[1].text
    damaged: list[object] = [3, {"checkpoint": None, "metrics": "x"}, {"metrics": {"<b>": []}}]
    assert page_of(make_run(tmp_path / "damaged", LOSSES, rows=damaged))[1].is_balanced


def test_many_metrics_stay_below_a_megabyte(tmp_path: Path) -> None:
    metrics = {f"val/m{number}": [(s, math.sin(s * number)) for s in range(1, 1200)] for number in range(80)}
    text, page = page_of(make_run(tmp_path, metrics), UPlot("x" * 120_000, ""))
    assert len(text.encode()) < 1_500_000 and len(page.data["charts"]) == 62 and "20 more metrics" in page.text


@pytest.mark.slow
def test_a_million_points_stay_below_a_megabyte_and_a_spike_stays_visible(tmp_path: Path) -> None:
    points = [(step, 1.0) for step in range(1_000_000)]
    points[777_777] = (777_777, 99.0)
    text, page = page_of(make_run(tmp_path, {"train/loss": points}), UPlot("x" * 120_000, ""))
    assert len(text.encode()) < 1_000_000
    (series,) = page.data["charts"]["chart0"]["series"]
    assert (777_777, 99.0) in zip(series["x"], series["y"], strict=True)


def test_colours_have_enough_contrast_on_both_grounds() -> None:
    css = (Path(shell.__file__).parent / "page.css").read_text()
    light, dark = (dict(re.findall(r"--([\w]+): (#[0-9a-f]{6})", block)) for block in re.split(r"@media", css)[:2])
    for theme in (light, dark):
        for ground in ("ground", "panel"):
            for name in ("text", "pale", "link", "good", "bad", "warn"):
                assert contrast(theme[name], theme[ground]) >= 4.5, name
            for number in range(6):
                assert contrast(theme[f"c{number}"], theme[ground]) >= 3, number
        assert contrast(theme["text"], theme["soft"]) >= 4.5 and contrast(theme["pale"], theme["soft"]) >= 4.5


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.1)."""
    bright, dim = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
