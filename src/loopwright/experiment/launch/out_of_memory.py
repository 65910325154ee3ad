"""`count_oom_kills`, which tells whether the kernel has killed processes because the memory was used up."""

from __future__ import annotations

from pathlib import Path

_OWN_GROUP = Path("/proc/self/cgroup")
_ALL_GROUPS = Path("/sys/fs/cgroup")
_WHOLE_MACHINE = Path("/proc/vmstat")


def count_oom_kills() -> int | None:
    """Return how many processes the kernel has killed because the memory was used up; None if it does not tell.

    Linux counts them for each control group (cgroup v2), such as a container, and for the whole machine. If the group
    of this process has no count, the count of the machine is returned.
    """
    for line in _text(_OWN_GROUP).splitlines():
        if line.startswith("0::/"):
            group = _ALL_GROUPS / line.removeprefix("0::/") / "memory.events"
            count = _counter(_text(group))
            if count is not None:
                return count
    return _counter(_text(_WHOLE_MACHINE))


def _counter(text: str) -> int | None:
    """Return the value of the line ``oom_kill N``."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
