"""Reports in a real browser: no errors and no requests, tables that sort and filter, charts, themes, accessibility.

The test needs the headless Chromium of the system, playwright and axe-core.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from command import run_in, small_run
from loopwright.experiment.sweep.page.sweep_page import sweep_page
from loopwright.records.report.run_files import read_run_files
from loopwright.records.report.run_page import run_page
from loopwright.records.report.uplot import UPlot, read_uplot
from records.report.pages import make_run
from swept import swept

pytestmark = pytest.mark.extras

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
HOSTILE = (
    "</script><script>document.title='hacked'</script><img src=https://a.example/x onerror=document.title='hacked'>"
)
PAGES = ("run", "sweep", "many_points", "hostile", "killed")
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 780}


@pytest.fixture(scope="module")
def uplot() -> UPlot:
    found = read_uplot()
    if found is None:
        pytest.skip("needs the extra: pip install 'loopwright[report]'")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs the extra: pip install 'loopwright[browser]'")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs a headless Chromium, such as the Debian package chromium-headless-shell")
    with api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, uplot: UPlot) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    texts = {
        "run": _run(root / "real", uplot),
        "sweep": _sweep(root / "swept", uplot),
        "many_points": _page(make_run(root / "many", {"train/loss": _million()}), uplot),
        "hostile": _page(_hostile(root / "hostile"), uplot),
        "killed": _page(make_run(root / "killed", {"val/loss": [(1, 0.5), (2, math.nan)]}, state="running"), uplot),
    }
    for name, text in texts.items():
        (root / f"{name}.html").write_text(text)
    pictures = os.environ.get("LOOPWRIGHT_PICTURES")  # a folder in which the pages are kept
    if pictures:
        for name in texts:
            shutil.copy(root / f"{name}.html", pictures)
    return {name: root / f"{name}.html" for name in texts}


def _page(run: Path, uplot: UPlot | None) -> str:
    commands = [(label, f"loopwright {label.lower()} {run.name}") for label in ("Resume", "Validate", "Reproduce")]
    return run_page(read_run_files(run), commands, "2026-12-01 10:00", uplot)


def _run(root: Path, uplot: UPlot) -> str:
    root.mkdir()
    words = small_run(
        "loop.max_steps=60", "loop.eval_frequency=10", "optimizer.lr=0.01", "hydra.run.dir=run", "log_every_n_steps=10"
    )
    assert run_in(root, *words).code == 0
    assert run_in(root, "resume", "run", "loop.max_steps=80").code == 0
    return _page(root / "run", uplot)


def _sweep(root: Path, uplot: UPlot) -> str:
    values = [
        {"optimizer.lr": lr, "model.dropout": 0.1, "data.batch_size": size}
        for lr in (0.001, 0.01, 0.1)
        for size in (16, 32)
    ]
    results: list[list[float | str]] = [
        [0.4, 0.45],
        [0.3, 0.31],
        [0.1, "failed"],
        [0.2, 0.21],
        ["failed", "failed"],
        [0.15, 0.12],
    ]
    index = swept(values, results)
    root.mkdir()
    for job in index.jobs:
        (root / job.directory).mkdir()
        end = job.objective if job.objective is not None else 2.0
        lines = [{"step": s, "name": "val/loss", "value": end + 5 / s} for s in range(10, 210, 10)]
        (root / job.directory / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return sweep_page(root, index, uplot=uplot)


def _million() -> list[tuple[int, float]]:
    points = [(step, 1.0 + math.sin(step / 50_000)) for step in range(1_000_000)]
    points[777_777] = (777_777, 99.0)
    return points


def _hostile(root: Path) -> Path:
    names = ("config.yaml", "plan.txt", "git.diff", "run.log")
    return make_run(
        root,
        {f"val/{HOSTILE}": [(1, 0.5), (2, 0.25)], HOSTILE: [(1, 1.0), (2, 2.0)]},
        files=dict.fromkeys(names, f"{HOSTILE}\n") | {"environment.json": json.dumps({HOSTILE: HOSTILE})},
        error=HOSTILE,
        command=HOSTILE,
        changes={HOSTILE: [HOSTILE, HOSTILE]},
        state="failed",
    )


class Tab:
    """A page in the browser, with everything that it complained about.

    Attributes:
        page: the page.
        faults: errors of scripts, messages of the console, violations of the policy, and requests beside the file.
    """

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.faults: list[str] = []
        self._context = browser.new_context(**{"viewport": WIDE, **options})
        self.page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda said: self.faults.append(said.text))
        self.page.on("request", lambda request: self._note(request.url, file))
        self.page.goto(file.as_uri())
        self.page.wait_for_timeout(100)  # charts are drawn when the page has its size

    def _note(self, url: str, file: Path) -> None:
        if url != file.as_uri():
            self.faults.append(f"request: {url}")

    def close(self) -> None:
        self._context.close()


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    tabs: list[Tab] = []

    def open_page(name: str, **options: Any) -> Tab:
        tabs.append(Tab(browser, pages[name], **options))
        return tabs[-1]

    yield open_page
    for tab in tabs:
        tab.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE])
def test_a_page_has_no_faults_and_fits(opened: Any, name: str, scheme: str, viewport: dict[str, int]) -> None:
    tab = opened(name, color_scheme=scheme, viewport=viewport)
    assert tab.faults == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert tab.page.title() != "hacked" and tab.page.locator(".u-over").count() > 0
    ground = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(opened: Any, name: str) -> None:
    spec = find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("needs the extra: pip install 'loopwright[browser]'")
    for scheme in ("light", "dark"):
        tab = opened(name, color_scheme=scheme, bypass_csp=True)
        tab.page.add_script_tag(content=(Path(spec.origin).parent / "axe.min.js").read_text())
        found = tab.page.evaluate("async () => (await axe.run()).violations")
        assert [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found] == []


def test_the_first_screen_of_a_run_holds_its_state_its_curves_and_its_commands(opened: Any) -> None:
    page = opened("run").page
    for selector in (
        "h1",
        ".state",
        ".facts",
        ".charts.main figure >> nth=0",
        ".charts.main figure >> nth=1",
        ".commands",
    ):
        box = page.locator(selector).first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= WIDE["height"], selector


def test_the_first_screen_of_a_sweep_holds_the_best_group_and_its_table(opened: Any) -> None:
    page = opened("sweep").page
    for selector in (".state", ".facts", "#best-groups", ".commands"):
        box = page.locator(selector).first.bounding_box()
        assert box["y"] + box["height"] <= WIDE["height"], selector


def test_a_click_sorts_and_a_word_filters(opened: Any) -> None:
    tab = opened("sweep")
    page, header = tab.page, tab.page.locator("#jobs th", has_text="val/loss").first
    column = header.evaluate("cell => cell.cellIndex")
    for direction in ("ascending", "descending"):
        header.locator("button").click()
        assert header.get_attribute("aria-sort") == direction
        cells = page.locator("#jobs tbody tr").evaluate_all(
            f"rows => rows.map(row => row.cells[{column}].dataset.value)"
        )
        values = [float(cell) for cell in cells if cell]
        assert values == sorted(values, reverse=direction == "descending") and len(values) == 9
        assert cells[-1] == ""  # jobs without a value are last
    page.locator("input[data-filters=jobs]").fill("failed 0.1")
    shown = page.locator("#jobs tbody tr:visible")
    assert shown.count() == 3 and all("failed" in text for text in shown.all_inner_texts())
    page.locator("input[data-table=jobs] >> nth=0").uncheck()
    assert not page.locator("#jobs th").first.is_visible()
    assert tab.faults == []


def test_the_cursor_shows_the_values_of_its_step_in_every_panel(opened: Any) -> None:
    tab = opened("run")
    tab.page.locator("#metrics ~ .charts figure .u-over").first.hover()
    steps = tab.page.locator("#metrics ~ .charts figure").evaluate_all(
        "figures => figures.map(figure => figure.querySelector('.u-legend .u-value').textContent)"
    )
    assert len(set(steps)) == 1 and 0 < float(steps[0]) < 80 and len(steps) >= 2
    assert tab.faults == []


def test_the_controls_of_the_charts_work_without_faults(opened: Any) -> None:
    tab = opened("run")
    for unit in tab.page.locator("#x-axis option").all_inner_texts():
        tab.page.select_option("#x-axis", unit)
        label = tab.page.locator(".charts .u-legend th").first.inner_text()
        assert label.startswith(unit)
    tab.page.select_option("#smoothing", "0.9")
    tab.page.check("#log")
    tab.page.click("#theme")
    assert tab.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert tab.faults == []


def test_a_selection_on_an_axis_filters_the_jobs(opened: Any) -> None:
    tab = opened("sweep")
    tab.page.locator("svg.parallel").scroll_into_view_if_needed()
    box = tab.page.locator("rect.brush").first.bounding_box()
    tab.page.mouse.move(box["x"] + 9, box["y"] + box["height"] - 2)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 9, box["y"] + box["height"] * 0.8, steps=4)
    tab.page.mouse.up()
    rates = tab.page.locator("#jobs tbody tr:visible").evaluate_all("rows => rows.map(row => row.cells[1].textContent)")
    assert set(rates) == {"0.001"} and len(rates) == 4
    assert tab.faults == []


def test_a_page_without_scripts_has_every_chart_and_no_controls(opened: Any) -> None:
    page = opened("run", java_script_enabled=False).page
    assert page.locator("svg.chart:visible").count() == page.locator("figure").count() >= 4
    assert page.locator(".controls:visible").count() == 0 and page.locator("button.script:visible").count() == 0


def test_without_uplot_the_charts_are_svg_and_have_no_controls(browser: Any, tmp_path: Path) -> None:
    points = [(step, 1 / step) for step in range(1, 30)]
    (tmp_path / "page.html").write_text(_page(make_run(tmp_path, {"train/loss": points}), None))
    tab = Tab(browser, tmp_path / "page.html")
    assert tab.page.locator("svg.chart:visible").count() == tab.page.locator("figure").count() >= 2
    assert tab.page.locator(".needs-plot:visible").count() == 0 and tab.page.locator("#theme:visible").count() == 1
    assert tab.faults == []
    tab.close()


def test_a_printed_page_is_light_and_complete(opened: Any, tmp_path: Path) -> None:
    tab = opened("run", color_scheme="dark")
    tab.page.pdf(path=tmp_path / "page.pdf")
    tab.page.emulate_media(media="print")
    assert (tmp_path / "page.pdf").stat().st_size > 20_000
    assert tab.page.locator(".controls:visible").count() == 0
    assert tab.page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert tab.faults == []
