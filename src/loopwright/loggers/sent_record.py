"""`SentRecord`, the content of ``wandb.json`` or ``mlflow.json``: which values of a run were sent, and to which run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loopwright.errors import CheckpointError
from loopwright.records import read_mapping
from loopwright.regular_files import replace_file


@dataclass(slots=True)
class SentRecord:
    """What a logger has sent.

    Attributes:
        run_id: ID of the run at the receiver; None if no run was created there.
        place: path of the database of the receiver; None if the receiver is not a file.
        last_steps: last step that was sent, by the name of the value.
    """

    run_id: str | None = None
    place: str | None = None
    last_steps: Mapping[str, int] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Replace the file.

        Raises:
            OSError: if the file cannot be written.
        """
        found = {"run_id": self.run_id, "place": self.place, "sent": dict(self.last_steps)}
        replace_file(file, (json.dumps(found, indent=2) + "\n").encode())


def read_sent(file: Path) -> SentRecord | None:
    """Read what a logger has sent. Return None if the file is missing or damaged. Values of other types are ignored."""
    try:
        found = read_mapping(file)
    except CheckpointError:
        return None
    if not found:
        return None
    run_id, place, sent = found.get("run_id"), found.get("place"), found.get("sent")
    steps = sent.items() if isinstance(sent, dict) else ()
    return SentRecord(
        run_id=run_id if isinstance(run_id, str) and run_id else None,
        place=place if isinstance(place, str) else None,
        last_steps={name: step for name, step in steps if type(step) is int and step >= 0},
    )
