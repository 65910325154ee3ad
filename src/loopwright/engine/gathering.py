"""`gather_values`, which gives every process the values of all processes."""

from __future__ import annotations

import json
from typing import Any

from loopwright.protocols import Ranks


def gather_values(ranks: Ranks, value: Any) -> list[Any]:
    """Return the values of all processes, in the order of their ranks. Every process must call this function.

    Args:
        ranks: processes that train together.
        value: value of this process, which JSON can represent. NaN and infinite numbers are allowed. The result
            contains lists in place of tuples.
    """
    if ranks.world_size == 1:
        return [value]
    return [json.loads(each) for each in ranks.gather_bytes(json.dumps(value).encode())]
