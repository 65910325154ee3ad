"""The output and the records of a short `experiment=gpt_stdlib`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loopwright.cli import main
from loopwright.data import stdlib_text

SHORT = (
    "experiment=gpt_stdlib",
    "model.width=8",
    "model.num_layers=1",
    "model.num_heads=2",
    "data.window_length=32",
    "callbacks.sample_text.num_tokens=12",
    "loop.max_steps=4",
    "loop.eval_frequency=2",
    "loop.eval_steps=2",
    "hydra.run.dir=run",
)

COMPRESSORS = ("", "gzip_9/", "xz_9e/", "xz_9e_after_train/")


@pytest.mark.slow
def test_compressors_are_logged_with_the_result_and_the_text_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SHORT]) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["data"] == dict(stdlib_text().facts)
    bits = {name: summary["metrics"][f"val/{name}bits_per_byte"] for name in COMPRESSORS}
    assert 1 < bits["xz_9e_after_train/"] < bits["xz_9e/"] < bits["gzip_9/"] < 4 < bits[""]
    out = capsys.readouterr().out
    (final,) = [line for line in out.splitlines() if line.startswith("Final:")]
    assert all(f"val/{name}bits_per_byte " in final for name in COMPRESSORS)
    assert out.count("val/sample") == 2
    assert (tmp_path / "run/run.log").read_text().count("val/sample") == 2
