"""`image_folder`: reads images from a folder that contains a folder for each class."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from loopwright.data.reading.loader import Loader
from loopwright.data.sets.held_out import hold_out
from loopwright.data.sets.paths import find_folder
from loopwright.data.sets.splits import Splits
from loopwright.errors import DataError, SettingError, check_count, did_you_mean, refuse, refuse_type
from loopwright.regular_files import open_regular, regular_size

_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Pillow's names of the accepted formats. Other formats are unsafe: Pillow runs a program to read PostScript.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SPLITS = frozenset({"test", "train", "val", "valid", "validation"})  # names of folders that are not classes
_MODES = {1: "L", 3: "RGB"}  # Pillow's image mode by number of channels


class ImageFolder:
    """Data set of image files, which are decoded when they are read.

    A sample is a dict with two entries: ``image``, a float32 tensor of shape (channels, image_size, image_size) with
    values in [0, 1], and ``label``, a scalar int64 tensor. An image that is not square is cropped to its central
    square. Each image is then scaled to ``image_size``. Images with 8 or 16 bits per channel are accepted. Images with
    32 bits per channel are refused, because the pixel value of white is unknown. Transparency is ignored: the stored
    colour of a transparent pixel is used.

    Args:
        files: paths of the images.
        labels: label of each image, in the order of ``files``.
        image_size: height and width of an image in pixels.
        channels: 3 for red, green and blue; 1 for brightness.
        flip_fraction: probability in [0, 1] that an image is mirrored left to right. Each read of an image draws a new
            random number.

    Raises:
        SettingError: for an invalid size, other channels, or a fraction outside [0, 1].
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
        """Paths of the images."""
        return self._files

    @property
    def labels(self) -> Sequence[int]:
        """Label of each image."""
        return self._labels

    @property
    def is_random(self) -> bool:
        """Whether reading a sample draws a random number."""
        return self._flip_fraction > 0

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one image and its label.

        Raises:
            DataError: for a file that cannot be decoded or has 32 bits per channel; the message contains the path.
        """
        image = self._decode(self._files[index])
        if self.is_random and torch.rand(()) < self._flip_fraction:
            image = image.flip(-1)
        return {"image": image, "label": torch.tensor(self._labels[index])}

    def _decode(self, file: str) -> Tensor:
        size = (self._image_size, self._image_size)
        try:
            descriptor = open_regular(file, follows_links=True)
            with open(descriptor, "rb") as content, Image.open(content, formats=_FORMATS) as opened:
                whole, white = _whole_image(opened, self._mode)
                pixels = np.array(ImageOps.fit(whole, size, Image.Resampling.BILINEAR))
        except UnidentifiedImageError as error:
            expected = f"expected an image of one of the formats {', '.join(_FORMATS)}"
            raise DataError(f"{file}: cannot be read as an image: {expected}") from error
        except Exception as error:
            # Pillow raises many types of errors for incomplete images, and for files that are not images.
            raise DataError(f"{file}: cannot be read as an image: {_reason(error)}") from error
        channels_last = torch.from_numpy(pixels).reshape(*size, -1).expand(*size, len(self._mode))
        return channels_last.permute(2, 0, 1).float() / white


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _whole_image(opened: Image.Image, mode: str) -> tuple[Image.Image, int]:
    """Return an image, rotated according to its EXIF data, and the pixel value that represents white.

    Grey images of 16 bits are not converted to ``mode``, because Pillow would clip them to 8 bits. Colour images of 16
    bits need no special case: Pillow's decoder keeps the upper 8 bits.
    """
    upright = ImageOps.exif_transpose(opened)
    # Pillow opens PNG and PPM files of 16 bits in mode I. These formats have no 32-bit pixels.
    if upright.mode.startswith("I;16") or (upright.mode == "I" and opened.format in ("PNG", "PPM")):
        return Image.fromarray(np.array(upright).astype(np.float32)), 2**16 - 1
    if upright.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits, so the value of white is unknown; convert it to 8 or 16 bits")
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

    A batch is a dict with two entries: ``image``, a float32 tensor of shape (batch, channels, image_size, image_size)
    with values in [0, 1], and ``label``, an int64 tensor of shape (batch,). A label is the position of the class, from
    0, in the sorted folder names. Files are decoded when they are read. A file is ignored if its name begins with a
    dot, or does not end like the name of an image file (``.jpg``, ``.png``, …). The format is detected from the content
    of the file, not from its name. A file may be a link to an image. Labels and split depend only on the
    sorted names. Equal files therefore give equal data on every machine.

    A run records a hash of the names and sizes of all files, and a hash of their content if the content has at most 256
    MiB. The run can be resumed only if these hashes have not changed.

    Args:
        path: path of the folder, relative to the current directory.
        batch_size: number of images in a micro-batch, and in a validation batch.
        num_workers: number of dataloader worker processes; 0: the main process reads.
        image_size: height and width of an image in pixels, after cropping and scaling.
        channels: 3 for red, green and blue; 1 for brightness.
        flip_fraction: probability that a training image is mirrored left to right, independently in each pass.
        val_path: path of a folder with validation images of the same classes. None: images of ``path`` are held out.
        val_fraction: fraction of the images held out for validation, at regular intervals (0.2: every fifth image);
            ignored if ``val_path`` is given.

    Raises:
        SettingError: for a missing folder, a folder without class folders, a class folder without images, or an image
            that is a link to a missing file, a pipe or a device.
        DataError: raised later, when an image that cannot be decoded is read.
    """
    files, labels, classes = list_labelled_images("path", path)
    hashes = {"listing_sha256": _hash_listing("path", path, files)}
    if val_path is None:
        train_part, val_part = hold_out(len(files), val_fraction)
        train_rows, val_rows = train_part.all_rows().tolist(), val_part.all_rows().tolist()
        val_files, val_labels = [files[row] for row in val_rows], [labels[row] for row in val_rows]
        files, labels = [files[row] for row in train_rows], [labels[row] for row in train_rows]
    else:
        val_files, val_labels, _ = list_labelled_images("val_path", val_path, classes)
        hashes["val_listing_sha256"] = _hash_listing("val_path", val_path, val_files)
    train = ImageFolder(files, labels, image_size, channels, flip_fraction)
    val = ImageFolder(val_files, val_labels, image_size, channels)
    return Splits(
        train=Loader(train, batch_size=batch_size, shuffle=True, num_workers=num_workers),
        val=Loader(val, batch_size=batch_size, num_workers=num_workers),
        facts={"path": path, "classes": ", ".join(classes), **hashes},
        encoding={
            "data": "image_folder",
            "image": {
                "channels": channels,
                "image_size": image_size,
                "pixels": "divided by the value of white: 255, or 65535 for grey images of 16 bits",
            },
            "target": {"name": "label", "kind": "category", "classes": list(classes)},
        },
    )


def list_labelled_images(
    setting: str, path: str, classes: Sequence[str] | None = None
) -> tuple[list[str], list[int], Sequence[str]]:
    """Return the files and labels, sorted by class and file name, and the classes.

    If ``classes`` is None, the folders in ``path`` are the classes. Otherwise, folders that are not in ``classes`` are
    refused.

    Raises:
        SettingError: for a missing folder, a folder without class folders, or a class folder without images.
    """
    folder = find_folder(setting, path)
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        problem = f"={path!r}: expected a folder for each class, with images in it; found no folders."
        raise SettingError(setting, problem)
    if classes is None and len(found) > 1 and _SPLITS.issuperset(found) and "train" in found:
        val = next(name for name in ("val", "valid", "validation", "test") if name in found)
        problem = f"={path!r}: contains the folders {', '.join(found)}, which look like splits; expected a folder for "
        remedy = shlex.join([f"data.path={path}/train", f"data.val_path={path}/{val}"])
        raise SettingError(setting, f"{problem}each class. Use {remedy}")
    classes = found if classes is None else classes
    files: list[str] = []
    labels: list[int] = []
    for name in found:
        if name not in classes:
            problem = f"={path!r}: has a class {name}; expected classes of the training images: {', '.join(classes)}."
            raise SettingError(setting, problem + did_you_mean(name, classes))
        images = _images_in(folder / name)
        if not images:
            problem = f"={path!r}: the class {name} has no images; expected files that end in {' '.join(_ENDINGS)}."
            raise SettingError(setting, problem)
        files += images
        labels += [classes.index(name)] * len(images)
    return files, labels, classes


def list_images(setting: str, path: str) -> list[str]:
    """Return the paths of the images in a folder and its subfolders. Names that begin with a dot are ignored.

    Raises:
        SettingError: for a missing folder, and for a folder without images.
    """
    found: list[str] = []
    for folder, folders, _ in os.walk(find_folder(setting, path)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += _images_in(Path(folder))
    if not found:
        raise refuse(setting, path, f"a folder with images, whose names end in {' '.join(_ENDINGS)}")
    return found


def _images_in(folder: Path) -> list[str]:
    names = sorted(name for name in os.listdir(folder) if not name.startswith(".") and name.lower().endswith(_ENDINGS))
    return [str(folder / name) for name in names]


def _hash_listing(setting: str, path: str, files: Sequence[str]) -> str:
    """Return the SHA-256 of the name (class folder and file) and size of each file, without reading the files."""
    digest = hashlib.sha256()
    for file in files:
        name = "/".join(Path(file).parts[-2:])
        try:
            size = regular_size(file)
        except OSError as error:
            raise SettingError(setting, f"={path!r}: {name} cannot be read: {error.strerror}.") from None
        digest.update(os.fsencode(f"{name}\0{size}\n"))
    return digest.hexdigest()
