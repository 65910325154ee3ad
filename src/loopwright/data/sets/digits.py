"""`digits`: reads the default data set, the handwritten digits that come with scikit-learn."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch

from loopwright.data.reading.loader import Loader
from loopwright.data.sets.splits import Splits
from loopwright.data.sets.tensors import TensorData

# Every fifth row is held out. Reported accuracies refer to this split: do not change the split, and do not tune
# settings on the validation rows.
_VALIDATION_EVERY_ROWS = 5
_MAX_INTENSITY = 16
_NUM_CLASSES = 10


def digits(batch_size: int = 32, num_workers: int = 0) -> Splits:
    """Read the 1797 handwritten digits of 8 x 8 pixels that come with scikit-learn.

    Row *i* of the set is validation data if *i* is a multiple of 5 (360 rows), otherwise training data (1437 rows).
    A batch is a dict with two entries: ``image``, a float32 tensor of shape (batch, 1, 8, 8) with values in [0, 1], and
    ``label``, an int64 tensor of shape (batch,) with values in [0, 9].

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998. The 1797 digits in scikit-learn are the test set of that data set.

    Args:
        batch_size: number of images in a micro-batch, and in a validation batch.
        num_workers: number of dataloader worker processes; 0: the main process reads.

    Raises:
        SettingError: for an invalid batch size or number of workers.
        FileNotFoundError: if scikit-learn or its data files are not installed.
    """
    table = np.loadtxt(_find_table(), delimiter=",", dtype=np.float32)
    image = torch.from_numpy(table[:, :-1] / _MAX_INTENSITY).reshape(-1, 1, 8, 8)
    label = torch.from_numpy(table[:, -1].astype(np.int64))
    is_validation = torch.arange(len(label)) % _VALIDATION_EVERY_ROWS == 0
    train = TensorData({"image": image[~is_validation], "label": label[~is_validation]})
    val = TensorData({"image": image[is_validation], "label": label[is_validation]})
    return Splits(
        train=Loader(train, batch_size=batch_size, shuffle=True, num_workers=num_workers),
        val=Loader(val, batch_size=batch_size, num_workers=num_workers),
        encoding={
            "data": "digits",
            "image": {"channels": 1, "image_size": 8, "pixels": f"divided by {_MAX_INTENSITY}"},
            "target": {"name": "label", "kind": "category", "classes": [str(digit) for digit in range(_NUM_CLASSES)]},
        },
    )


def _find_table() -> Path:
    # The package is located without an import, because importing scikit-learn would add 0.8 s to each start.
    package = importlib.util.find_spec("sklearn")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return path
    raise FileNotFoundError(
        "data=digits: expected scikit-learn with its data sets; install it: pip install scikit-learn."
    )
