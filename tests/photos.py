"""Small images in folders, for tests of `image_folder` and of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def write_photos(folder: Path, num_images: Mapping[str, int] | None = None, size: tuple[int, int] = (6, 4)) -> None:
    """Write images of ``size`` (width, height). Image *i* of a class is dark on the left, in its own green."""
    for name, num in (num_images or {"cat": 3, "dog": 4}).items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(num):
            pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
            pixels[:, size[0] // 2 :, 0] = 255
            pixels[..., 1] = 10 * (index % 25)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
