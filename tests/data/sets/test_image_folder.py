"""`image_folder`: images are decoded to one form, mirrored reproducibly, and refused with their path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import special
from loopwright.data import ImageFolder, as_source, image_folder
from loopwright.errors import DataError, SettingError
from photos import write_photos


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    return "photos"


def read(splits: Any, pass_index: int = 0, seed: int = 0) -> list[dict[str, Tensor]]:
    return list(as_source(splits.train, seed).read(pass_index, 0))


def test_a_batch_has_the_documented_shapes_and_dtypes(photos: str) -> None:
    splits = image_folder(photos, batch_size=4, image_size=4)
    batch = next(iter(splits.train))
    assert (batch["image"].shape, batch["image"].dtype) == ((4, 3, 4, 4), torch.float32)
    assert (batch["label"].shape, batch["label"].dtype) == ((4,), torch.int64)
    assert (batch["image"].min(), batch["image"].max()) == (0, 1)
    assert splits.facts["classes"] == "cat, dog"


def test_labels_and_split_depend_on_the_sorted_names(photos: str) -> None:
    splits = image_folder(photos, image_size=4)
    greens = [round(float(row["image"][1].mean()) * 25.5) for row in splits.val.dataset]
    assert [int(row["label"]) for row in splits.train.dataset] == [0, 0, 0, 1, 1, 1]
    assert ([int(row["label"]) for row in splits.val.dataset], greens) == ([1], [1])


@pytest.mark.parametrize(("channels", "size"), [(1, 4), (3, 8)])
def test_images_become_squares_of_image_size(photos: str, channels: int, size: int) -> None:
    image = image_folder(photos, image_size=size, channels=channels).train.dataset[0]["image"]
    assert image.shape == (channels, size, size)
    assert image[0, :, 0].max() < 0.1 and image[0, :, -1].min() > 0.2


def test_an_image_that_is_not_square_is_cropped_on_both_sides(tmp_path: Path) -> None:
    pixels = np.zeros((2, 6), dtype=np.uint8)
    pixels[:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image = ImageFolder([str(tmp_path / "wide.png")], [0], image_size=2, channels=1)[0]["image"]
    assert image.tolist() == [[[1, 0], [1, 0]]]


def test_rotated_palette_and_transparent_images_are_converted(tmp_path: Path) -> None:
    upright = Image.new("L", (4, 8))
    upright.paste(255, (0, 0, 4, 4))
    turned = Image.Exif()
    turned[0x0112] = 3  # orientation: rotated by 180 degrees
    upright.save(tmp_path / "turned.jpg", exif=turned)
    Image.new("P", (4, 4)).save(tmp_path / "palette.gif")
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    names = ["turned.jpg", "palette.gif", "clear.png"]
    data = ImageFolder([str(tmp_path / name) for name in names], [0, 0, 0], image_size=4)
    assert [tuple(row["image"].shape) for row in data] == [(3, 4, 4)] * 3
    assert data[0]["image"][0, 0].max() < 0.1 and data[0]["image"][0, -1].min() > 0.9


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["<u2 png", "<u2 tif", ">u2 tif", ">u2 pgm"])
def test_grey_images_of_16_bits_keep_their_range(tmp_path: Path, kind: str, channels: int) -> None:
    dtype, ending = kind.split()
    file, grey = tmp_path / f"grey.{ending}", np.array([[0, 257], [32896, 65535]], dtype)
    if ending == "pgm":
        file.write_bytes(b"P5 2 2 65535\n" + grey.tobytes())
    else:
        Image.frombytes("I;16" if dtype == "<u2" else "I;16B", (2, 2), grey.tobytes()).save(file)
    image = ImageFolder([str(file)], [0], image_size=2, channels=channels)[0]["image"]
    expected = torch.tensor([[0, 1], [128, 255]]) / 255
    assert image.shape == (channels, 2, 2)
    torch.testing.assert_close(image, expected.expand(channels, 2, 2))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_known_white_are_refused(tmp_path: Path, dtype: Any) -> None:
    Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "depth.tif")
    with pytest.raises(
        DataError, match=r"depth\.tif: cannot be read as an image: its pixels have 32 bits, so the value"
    ):
        ImageFolder([str(tmp_path / "depth.tif")], [0])[0]


def test_transparency_is_dropped(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    image = ImageFolder([str(tmp_path / "clear.png")], [0], image_size=1)[0]["image"]
    assert image.flatten().tolist() == [1, 0, 0]


def test_only_a_set_with_mirrored_images_is_random(photos: str) -> None:
    splits = image_folder(photos, flip_fraction=0.5)
    assert (splits.train.dataset.is_random, splits.val.dataset.is_random) == (True, False)
    assert not image_folder(photos).train.dataset.is_random


def test_mirroring_depends_only_on_seed_pass_and_sample(photos: str) -> None:
    def is_flipped(num_workers: int, pass_index: int, seed: int = 0, batch_size: int = 2) -> dict[float, bool]:
        splits = image_folder(photos, batch_size, num_workers, image_size=4, flip_fraction=0.5)
        images = torch.cat([batch["image"] for batch in read(splits, pass_index, seed)])
        labels = torch.cat([batch["label"] for batch in read(splits, pass_index, seed)])
        flipped = (images[:, 0, :, 0] > 0.5).all(dim=1).tolist()
        keys = (labels + images[:, 1, 0, 0]).tolist()
        assert len(set(keys)) == 6
        return dict(zip(keys, flipped, strict=True))

    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = [is_flipped(0, pass_index) for pass_index in range(4)]
    assert torch.equal(torch.get_rng_state(), before)
    assert first == [is_flipped(1, pass_index, batch_size=3) for pass_index in range(4)]
    assert first[0] != first[1] or first[1] != first[2]
    drawn = [flip for flips in first for flip in flips.values()]
    assert 0 < sum(drawn) < len(drawn)
    assert first != [is_flipped(0, pass_index, seed=1) for pass_index in range(4)]


def test_a_flip_fraction_of_one_mirrors_all_images(photos: str) -> None:
    plain, mirrored = (image_folder(photos, flip_fraction=fraction).train.dataset for fraction in (0, 1))
    assert torch.equal(mirrored[0]["image"], plain[0]["image"].flip(-1))


def test_validation_images_can_come_from_a_second_folder(photos: str, tmp_path: Path) -> None:
    write_photos(tmp_path / "val", {"dog": 2})
    splits = image_folder(photos, val_path="val")
    assert (len(splits.train.dataset), [int(row["label"]) for row in splits.val.dataset]) == (7, [1, 1])


def test_the_recorded_hash_depends_on_names_and_sizes_of_the_files(photos: str, tmp_path: Path) -> None:
    write_photos(tmp_path / "val", {"dog": 1})

    def facts() -> list[str | int]:
        found = image_folder(photos, val_path="val").facts
        return [found["listing_sha256"], found["val_listing_sha256"]]

    first, cat = facts(), tmp_path / photos / "cat"
    (cat / "0.png").touch()
    assert facts() == first
    (cat / "0.png").rename(cat / "3.png")
    renamed = facts()
    (tmp_path / "val/dog/0.png").write_bytes(b"longer")
    changed = facts()
    assert renamed[0] != first[0] and renamed[1] == first[1]
    assert changed[0] == renamed[0] and changed[1] != renamed[1]


def test_a_link_to_a_missing_file_is_refused(photos: str, tmp_path: Path) -> None:
    (tmp_path / photos / "dog" / "9.png").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"^path='photos': dog/9\.png cannot be read: No such file or directory\.$"):
        image_folder(photos)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_error_for_a_broken_file_contains_its_path(photos: str, tmp_path: Path, num_workers: int) -> None:
    broken = tmp_path / photos / "cat" / "1.png"
    broken.write_bytes(broken.read_bytes()[:45])
    with pytest.raises(DataError, match=r"photos/cat/1\.png: cannot be read as an image"):
        read(image_folder(photos, num_workers=num_workers))


def test_files_that_are_not_images_are_ignored(photos: str, tmp_path: Path) -> None:
    for name in ("notes.txt", ".hidden.png"):
        (tmp_path / photos / "cat" / name).write_text("no image")
    (tmp_path / photos / ".cache").mkdir()
    assert len(image_folder(photos).train.dataset) == 6


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"path": "photo"}, "path='photo': no such folder. Did you mean photos?"),
        ({"path": "photos/cat/0.png"}, "path='photos/cat/0.png': expected a folder."),
        (
            {"path": "photos/cat"},
            "path='photos/cat': expected a folder for each class, with images in it; found no folders.",
        ),
        (
            {"path": "hollow"},
            "path='hollow': the class ant has no images; expected files that end in "
            ".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp.",
        ),
        (
            {"val_path": "other"},
            "val_path='other': has a class dogs; expected classes of the training images: cat, dog. Did you mean dog?",
        ),
        ({"image_size": 0}, "image_size=0: expected a whole number, 1 or more."),
        ({"channels": 2}, "channels=2: expected 3 (red, green, blue) or 1 (brightness)."),
        ({"channels": True}, "channels=True: expected 3 (red, green, blue) or 1 (brightness)."),
        ({"channels": [3]}, "channels=[3]: expected 3 (red, green, blue) or 1 (brightness)."),
        ({"flip_fraction": 1.5}, "flip_fraction=1.5: expected a fraction in [0, 1]."),
        ({"flip_fraction": "half"}, "flip_fraction='half': expected a fraction in [0, 1]."),
        ({"val_fraction": 0.01}, "val_fraction=0.01: expected a fraction that leaves at least one row for"),
    ],
)
def test_an_error_is_reported_in_one_line(photos: str, tmp_path: Path, settings: dict[str, Any], line: str) -> None:
    (tmp_path / "hollow" / "ant").mkdir(parents=True)
    write_photos(tmp_path / "other", {"dogs": 1})
    with pytest.raises(ValueError) as caught:
        image_folder(**{"path": photos, **settings})
    assert str(caught.value).startswith(line)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"
DISGUISED = {
    "PostScript": POSTSCRIPT,
    "PostScript with a header": b"\xc5\xd0\xd3\xc6" + (32).to_bytes(4, "little") + bytes(24) + POSTSCRIPT,
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", DISGUISED)
@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tiff"])
def test_an_image_of_another_format_runs_no_program(
    kind: str, ending: str, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/it_ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # Pillow looks for the program once
    (tmp_path / photos / "cat" / f"0.{ending}").write_bytes(DISGUISED[kind])
    (tmp_path / photos / "cat" / "0.png").write_bytes(DISGUISED[kind])
    with pytest.raises(DataError) as caught:
        read(image_folder(photos))
    assert not (tmp_path / "it_ran").exists()
    assert "cannot be read as an image: expected an image of one of the formats BMP, GIF, JPEG, " in str(caught.value)


def test_an_image_under_the_name_of_another_image_format_is_read(photos: str, tmp_path: Path) -> None:
    for ending, form in (("png", "JPEG"), ("jpg", "WEBP"), ("gif", "TIFF"), ("bmp", "PPM"), ("webp", "BMP")):
        Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / f"x.{ending}", format=form)
        image = ImageFolder([str(tmp_path / f"x.{ending}")], [0], image_size=1)[0]["image"]
        assert image[0].item() > 0.9 and image[1].item() < 0.1


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", special.KINDS)
def test_a_file_that_is_no_regular_file_is_refused(kind: str, photos: str, tmp_path: Path) -> None:
    special.make(tmp_path / photos / "cat" / "1.png", kind)
    with pytest.raises(SettingError) as caught:
        image_folder(photos)
    line = (
        "path='photos': cat/1.png cannot be read: not a regular file; folders, links, pipes and devices are not opened."
    )
    assert str(caught.value) == line


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", [*special.KINDS, "holes"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_was_replaced_after_the_start_does_not_block(
    kind: str, num_workers: int, photos: str, tmp_path: Path
) -> None:
    splits = image_folder(photos, num_workers=num_workers)
    special.make(tmp_path / photos / "cat" / "1.png", kind)
    with pytest.raises(DataError, match=r"photos/cat/1\.png: cannot be read as an image: "):
        read(splits)


def test_images_may_be_links_to_images(photos: str, tmp_path: Path) -> None:
    (tmp_path / photos / "cat" / "1.png").rename(tmp_path / "elsewhere.png")
    expected = image_folder(photos).facts["listing_sha256"]
    (tmp_path / photos / "cat" / "1.png").symlink_to(tmp_path / "elsewhere.png")
    splits = image_folder(photos)
    assert splits.facts["listing_sha256"] != expected
    assert len(read(splits)) == 1
