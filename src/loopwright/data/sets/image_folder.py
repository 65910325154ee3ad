"""`image_folder`: images in a folder per class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from loopwright.data.reading.loader import Loader
from loopwright.data.sets.held_out import hold_out
from loopwright.data.sets.paths import find_folder
from loopwright.data.sets.splits import Splits
from loopwright.errors import DataError, SettingError, check_count, did_you_mean, refuse, refuse_type

_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_MODES = {1: "L", 3: "RGB"}  # by the number of channels


class ImageFolder:
    """Images that are decoded when they are read.

    A sample is a mapping: ``image``, float32, channels x image_size x image_size, in [0, 1]; ``label``, int64, scalar.
    An image that is not square loses what juts out on both sides; all are scaled to ``image_size``. Pixels of 8 or 16
    bits have known limits, others are refused; transparency is dropped, and leaves the colour that is stored below it.

    Args:
        files: of the images.
        labels: of the same images.
        image_size: height and width of an image in pixels.
        channels: 3 for red, green and blue, 1 for brightness.
        flip_fraction: probability with which an image is mirrored left to right, drawn anew at each reading, in [0, 1].

    Raises:
        SettingError: for a count that is none, other channels, a fraction outside [0, 1].
    """

    def __init__(
        self,
        files: Sequence[str],
        labels: Sequence[int],
        image_size: int = 64,
        channels: int = 3,
        flip_fraction: float = 0.0,
    ) -> None:
        self._files = list(files)
        self._labels = list(labels)
        self._image_size = check_count("image_size", image_size)
        if isinstance(channels, bool) or not isinstance(channels, int) or channels not in _MODES:
            raise refuse("channels", channels, "3 (red, green, blue) or 1 (brightness)")
        self._mode = _MODES[channels]
        if isinstance(flip_fraction, bool) or not isinstance(flip_fraction, int | float):
            raise refuse_type("flip_fraction", flip_fraction, "a fraction in [0, 1]")
        if not 0 <= flip_fraction <= 1:
            raise refuse("flip_fraction", flip_fraction, "a fraction in [0, 1]")
        self._flip_fraction = flip_fraction

    @property
    def files(self) -> Sequence[str]:
        """Of the images."""
        return self._files

    @property
    def labels(self) -> Sequence[int]:
        """Of the same images."""
        return self._labels

    @property
    def is_random(self) -> bool:
        """Whether reading a sample draws a random number."""
        return self._flip_fraction > 0

    def __len__(self) -> int:
        """Images."""
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One image and its label.

        Raises:
            DataError: for a file that cannot be decoded, or has pixels of 32 bits, with its path.
        """
        image = self._decode(self._files[index])
        if self.is_random and torch.rand(()) < self._flip_fraction:
            image = image.flip(-1)
        return {"image": image, "label": torch.tensor(self._labels[index])}

    def _decode(self, file: str) -> Tensor:
        size = (self._image_size, self._image_size)
        try:
            with Image.open(file) as opened:
                whole, white = _whole_image(opened, self._mode)
                pixels = np.array(ImageOps.fit(whole, size, Image.Resampling.BILINEAR))
        except Exception as error:
            # Pillow raises of many kinds for what is no image, or half of one.
            raise DataError(f"{file}: cannot be read as an image: {error}") from error
        channels_last = torch.from_numpy(pixels).reshape(*size, -1).expand(*size, len(self._mode))
        return channels_last.permute(2, 0, 1).float() / white


def _whole_image(opened: Image.Image, mode: str) -> tuple[Image.Image, int]:
    """An image as it is to be shown, and the value of its white; one of 16 bits, which is grey, stays so.

    Pillow would clip 16 bits to 8. Where it decodes colours of 16 bits it takes the upper 8 itself.
    """
    upright = ImageOps.exif_transpose(opened)
    # Neither format has 32 bits: in mode I they hold 16.
    if upright.mode.startswith("I;16") or (upright.mode == "I" and opened.format in ("PNG", "PPM")):
        return Image.fromarray(np.array(upright).astype(np.float32)), 2**16 - 1
    if upright.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits, which do not tell what is white; convert it to 8 or 16 bits")
    return upright.convert(mode), 2**8 - 1


def image_folder(
    path: str,
    batch_size: int = 32,
    num_workers: int = 0,
    image_size: int = 64,
    channels: int = 3,
    flip_fraction: float = 0.0,
    val_path: str | None = None,
    val_fraction: float = 0.2,
) -> Splits:
    """Read the images of a folder that has a folder for each class: ``photos/cat/1.jpg``, ``photos/dog/7.png``.

    A batch is a mapping: ``image``, float32, batch x channels x image_size x image_size, in [0, 1]; ``label``, int64,
    batch: the place of the class in the sorted names of the folders. Files are decoded when they are read; those whose
    name begins with a dot or does not end in that of an image format are left out. Labels and split follow the sorted
    names, so that the same files give the same data on every machine. The facts of a run have a hash of the names and
    sizes of all files, and of what is in them where that is at most 256 MiB; a run can only be resumed with the same.

    Args:
        path: of the folder, from the current directory.
        batch_size: images in a micro-batch, and in a validation batch.
        num_workers: processes that read ahead; 0 reads in this one.
        image_size: height and width in pixels to which an image is cut and scaled.
        channels: 3 for red, green and blue, 1 for brightness.
        flip_fraction: fraction of the training images that are mirrored left to right, others in each pass.
        val_path: a folder of validation images, with the same classes. None: some images of ``path`` are held out.
        val_fraction: of the images held out, evenly spread, for 0.2 every fifth; not used with ``val_path``.

    Raises:
        SettingError: for a folder that is not there, has no folders for classes, or one of them without images, or an
            image that is a link to nothing. A file that cannot be decoded is a `DataError` with its path when it is
            read.
    """
    files, labels, classes = _list_images("path", path)
    hashes = {"listing_sha256": _hash_listing("path", path, files)}
    if val_path is None:
        train_part, val_part = hold_out(len(files), val_fraction)
        train_rows, val_rows = train_part.all_rows().tolist(), val_part.all_rows().tolist()
        val_files, val_labels = [files[row] for row in val_rows], [labels[row] for row in val_rows]
        files, labels = [files[row] for row in train_rows], [labels[row] for row in train_rows]
    else:
        val_files, val_labels, _ = _list_images("val_path", val_path, classes)
        hashes["val_listing_sha256"] = _hash_listing("val_path", val_path, val_files)
    train = ImageFolder(files, labels, image_size, channels, flip_fraction)
    val = ImageFolder(val_files, val_labels, image_size, channels)
    return Splits(
        train=Loader(train, batch_size=batch_size, shuffle=True, num_workers=num_workers),
        val=Loader(val, batch_size=batch_size, num_workers=num_workers),
        facts={"path": path, "classes": ", ".join(classes), **hashes},
    )


def _list_images(
    setting: str, path: str, classes: Sequence[str] | None = None
) -> tuple[list[str], list[int], Sequence[str]]:
    """Files and labels in order of their classes, and the classes; these are the folder's own where none are given."""
    folder = find_folder(setting, path)
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        problem = f"={path!r}: expected a folder for each class, with images in it; found no folders."
        raise SettingError(setting, problem)
    classes = found if classes is None else classes
    files: list[str] = []
    labels: list[int] = []
    for name in found:
        if name not in classes:
            problem = f"={path!r}: has a class {name}; expected one of those to train: {', '.join(classes)}."
            raise SettingError(setting, problem + did_you_mean(name, classes))
        images = _images_in(folder / name)
        if not images:
            problem = f"={path!r}: the class {name} has no images; expected files that end in {' '.join(_ENDINGS)}."
            raise SettingError(setting, problem)
        files += images
        labels += [classes.index(name)] * len(images)
    return files, labels, classes


def _images_in(folder: Path) -> list[str]:
    names = sorted(name for name in os.listdir(folder) if not name.startswith(".") and name.lower().endswith(_ENDINGS))
    return [str(folder / name) for name in names]


def _hash_listing(setting: str, path: str, files: Sequence[str]) -> str:
    """SHA-256 of the name and the size of each file, from the folders of the classes on; not of what is in them."""
    digest = hashlib.sha256()
    for file in files:
        name = "/".join(Path(file).parts[-2:])
        try:
            size = os.path.getsize(file)
        except OSError as error:
            raise SettingError(setting, f"={path!r}: {name} cannot be read: {error.strerror}.") from None
        digest.update(os.fsencode(f"{name}\0{size}\n"))
    return digest.hexdigest()
