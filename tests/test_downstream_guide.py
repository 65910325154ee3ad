"""The example of docs/downstream.md runs as printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOC = (Path(__file__).parents[1] / "docs" / "downstream.md").read_text(encoding="utf-8")
PARTS, USE = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)


def test_it_is_short_and_runs() -> None:
    assert len(PARTS.splitlines()) < 60
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(PARTS + USE, "downstream.md", "exec"), names)
    metrics, plan = names["trainer"].metrics, names["trainer"].plan
    accuracies = [metrics["val/accuracy"], *(metrics[f"noise/{strength}/accuracy"] for strength in ("0.1", "0.3", "1"))]
    assert accuracies[0] > 0.9 and accuracies[1] > accuracies[3] and 0.05 < accuracies[3] < accuracies[0] - 0.1
    assert 0.1 <= metrics["noise/1/largest_share"] <= 1
    assert [stage.step for stage in plan if type(stage).__name__ == "Downstream"] == [200, 400]
    rows = names["trainer"].validate_all(names["data"].val)
    assert [row.dataloader for row in rows] == ["val", "noise"]
    assert rows[1].metrics["noise/0.3/accuracy"] == metrics["noise/0.3/accuracy"]
