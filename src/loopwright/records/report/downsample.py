"""`downsample`, which reduces a series to a number of points that a chart can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

Point = tuple[float, float | None]  # x, and y; None where the value is NaN or infinite


def downsample(steps: Sequence[float], values: Sequence[float], max_points: int) -> list[Point]:
    """Return the smallest and the largest value of each of equally many buckets of points, in the order of the steps.

    A peak of one step stays visible. A bucket with a value that is NaN or infinite also has a point without a value.
    The first and the last point are always kept. With at most ``max_points`` points, all points are returned.

    Args:
        steps: x of each point, in ascending order.
        values: y of each point.
        max_points: maximum number of returned points, at least 8.
    """
    points = [(x, y if math.isfinite(y) else None) for x, y in zip(steps, values, strict=True)]
    if len(points) <= max_points:
        return points
    num_buckets = (max_points - 2) // 3  # a bucket gives up to three points
    inner = points[1:-1]
    bounds = [len(inner) * index // num_buckets for index in range(num_buckets + 1)]
    kept = [points[0]]
    for start, stop in pairwise(bounds):
        kept += _extremes(inner[start:stop])
    return [*kept, points[-1]]


def _extremes(points: Sequence[Point]) -> list[Point]:
    finite = [(y, index) for index, (_, y) in enumerate(points) if y is not None]
    chosen = {min(finite)[1], max(finite)[1]} if finite else set()
    missing = next((index for index, (_, y) in enumerate(points) if y is None), None)
    if missing is not None:
        chosen.add(missing)
    return [points[index] for index in sorted(chosen)]
