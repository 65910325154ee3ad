"""`draw_curve`: draws a curve as one line of characters."""

from __future__ import annotations

from collections.abc import Sequence

from loopwright.terminal_text import BARS


def draw_curve(values: Sequence[float], width: int = 48) -> str:
    """Draw ``values`` as bars between 0 and the largest value.

    If there are more values than ``width``, each character shows the maximum of several consecutive values.

    Args:
        values: values of at least 0, at equal distances on the horizontal axis.
        width: maximum number of characters.

    >>> draw_curve([0, 1, 2, 3, 4, 3, 2, 1, 0])
    '▁▂▄▆█▆▄▂▁'
    """
    num = min(width, len(values))
    heights = [max(values[i * len(values) // num : (i + 1) * len(values) // num]) for i in range(num)]
    highest = max(heights, default=0.0)
    if not highest > 0:
        return BARS[0] * num
    return "".join(BARS[max(0, min(7, int(height / highest * 8 + 0.5) - 1))] for height in heights)
