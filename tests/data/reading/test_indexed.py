"""A data set that does not say whether it draws random numbers is read as if each sample were seeded."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler, default_collate

from loopwright import Checkpointing, TrainingLoop
from loopwright.data import Loader, as_source
from loopwright.errors import DataError
from loopwright.seeding import sample_seed, seed_host_streams
from tiny import Regression, is_bitwise_equal, rows, trainer, weights

NUM_ROWS = 24
SEED = 5

NOISES: dict[str, Callable[[], float]] = {
    "python": random.random,
    "python, normal": lambda: random.gauss(0, 1),
    "numpy": lambda: float(np.random.rand()),
    "numpy, normal": lambda: float(np.random.randn()),
    "torch": lambda: torch.rand((), dtype=torch.float64).item(),
    "torch, normal": lambda: torch.randn((), dtype=torch.float64).item(),
    "all": lambda: random.random() + float(np.random.rand()) + torch.rand((), dtype=torch.float64).item(),
}


class Rows(Dataset[Any]):
    """Rows, of which the rows in ``noisy`` have noise. Counts how often each row is read in this process."""

    def __init__(self, noisy: Sequence[int] = (), noise: str = "all") -> None:
        self.noisy = frozenset(noisy)
        self.noise = noise
        self.num_reads = [0] * NUM_ROWS

    def __len__(self) -> int:
        return NUM_ROWS

    def __getitem__(self, index: int) -> Any:
        self.num_reads[index] += 1
        noise = NOISES[self.noise]() if index in self.noisy else 0.0
        return {"index": index, "noise": torch.tensor(noise, dtype=torch.float64)}


class SeededRows(Rows):
    """The same, each sample of which is always seeded."""

    is_random = True


class Unreadable(Rows):
    """Some rows cannot be read, for some random numbers."""

    def __getitem__(self, index: int) -> Any:
        if index in self.noisy and random.random() < 0.5:
            raise ValueError(f"no luck with {index}")
        return {"index": index, "noise": torch.zeros(())}


class UnreadableSeeded(Unreadable):
    is_random = True


def read(dataset: Any, pass_index: int = 0, first: int = 0, **options: Any) -> list[Any]:
    loader = Loader(dataset, **({"batch_size": 4, "shuffle": True} | options))
    return list(as_source(loader, SEED).read(pass_index, first))


def samples(batches: Sequence[Any]) -> list[tuple[int, float]]:
    """Index and noise of each sample."""
    return [pair for batch in batches for pair in zip(batch["index"].tolist(), batch["noise"].tolist(), strict=True)]


def outcome(dataset: Any, **options: Any) -> list[Any]:
    """What is read of a pass up to its first error, and the error without its worker."""
    seen: list[Any] = []
    try:
        for batch in as_source(Loader(dataset, **({"batch_size": 4, "shuffle": True} | options)), SEED).read(0, 0):
            seen += samples([batch])
    except DataError as error:
        seen.append(
            str(error).replace(type(dataset).__name__, "").replace(" (worker 0)", "").replace(" (worker 1)", "")
        )
    return seen


def test_a_noisy_sample_is_read_under_streams_seeded_by_seed_pass_and_index() -> None:
    dataset = Rows(range(NUM_ROWS))
    for pass_index in (0, 2):
        for batch in read(dataset, pass_index):
            expected = []
            for index in batch["index"].tolist():
                seed_host_streams(sample_seed(SEED, pass_index, index))
                expected.append(dataset[index])
            assert torch.equal(batch["noise"], default_collate(expected)["noise"])


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("noise", NOISES)
def test_noise_is_what_seeding_each_sample_gives(noise: str, num_workers: int) -> None:
    noisy = range(0, NUM_ROWS, 5)  # the batches of four have none, one or two of them
    reference = samples(read(SeededRows(noisy, noise)))
    assert len({noise for _, noise in reference}) == 1 + len(noisy)
    assert samples(read(Rows(noisy, noise), num_workers=num_workers)) == reference


@pytest.mark.parametrize("place", range(4))
def test_one_noisy_sample_anywhere_in_a_batch_is_noticed(place: int) -> None:
    reference = samples(read(SeededRows(range(NUM_ROWS)), shuffle=False))
    dataset = Rows([8 + place])
    batches = read(dataset, shuffle=False)
    assert samples(batches) == [(i, noise if i == 8 + place else 0.0) for i, noise in reference]
    assert dataset.num_reads == [1] * 8 + [2] * 4 + [1] * 12


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 24])
def test_the_noise_of_a_sample_does_not_depend_on_the_batch_size(batch_size: int, num_workers: int) -> None:
    noisy = range(0, NUM_ROWS, 7)
    reference = samples(read(Rows(noisy)))
    assert samples(read(Rows(noisy), batch_size=batch_size, num_workers=num_workers)) == reference


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_pass_read_from_the_middle_has_the_same_noise(num_workers: int) -> None:
    noisy = range(0, NUM_ROWS, 7)
    whole = samples(read(Rows(noisy), 1))
    for first in range(6):
        assert samples(read(Rows(noisy), 1, first, num_workers=num_workers)) == whole[4 * first :]


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("unlucky", [[3], [7, 11], range(0, NUM_ROWS, 3)], ids=str)
def test_an_error_that_depends_on_noise_is_the_one_that_seeding_gives(unlucky: Sequence[int], num_workers: int) -> None:
    reference = outcome(UnreadableSeeded(unlucky))
    assert outcome(Unreadable(unlucky), num_workers=num_workers) == reference


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("fails_seeded", [False, True])
def test_whether_a_batch_fails_is_decided_by_the_seeded_reading(fails_seeded: bool, num_workers: int) -> None:
    seeded = []
    for index in range(NUM_ROWS):
        seed_host_streams(sample_seed(SEED, 0, index))
        seeded.append(random.random())

    class Failing(Rows):
        def __getitem__(self, index: int) -> Any:
            if (random.random() in seeded) == fails_seeded:
                raise ValueError("no luck")
            return {"index": index, "noise": torch.zeros(())}

    seen = outcome(Failing(), num_workers=num_workers, shuffle=False)
    if fails_seeded:
        assert seen == [": sample 0 cannot be read: ValueError: no luck"]
    else:
        assert seen == [(index, 0.0) for index in range(NUM_ROWS)]


def test_the_error_of_a_ragged_batch_that_depends_on_noise_is_the_one_that_seeding_gives() -> None:
    class Ragged(Rows):
        def __getitem__(self, index: int) -> Any:
            return {"index": index, "noise": torch.zeros(1 + (random.random() < 0.05))}

    class RaggedSeeded(Ragged):
        is_random = True

    assert outcome(Ragged()) == outcome(RaggedSeeded())


def test_a_kept_batch_is_read_once_and_after_the_first_draw_every_batch_is() -> None:
    dataset = Rows([9])
    source = as_source(Loader(dataset, batch_size=4), SEED)
    list(source.read(0, 0))
    assert dataset.num_reads == [1] * 8 + [2] * 4 + [1] * 12  # the third batch was read again, seeded
    list(source.read(1, 0))
    assert dataset.num_reads == [2] * 8 + [3] * 4 + [2] * 12
    quiet = Rows()
    read(quiet)
    assert quiet.num_reads == [1] * NUM_ROWS


def test_a_batch_that_cannot_be_read_is_read_twice_and_its_sample_named() -> None:
    class Broken(Rows):
        def __getitem__(self, index: int) -> Any:
            super().__getitem__(index)
            raise KeyError("no such row")

    dataset = Broken()
    with pytest.raises(DataError, match=r"^Broken: sample 0 cannot be read: KeyError: 'no such row'$"):
        read(dataset, shuffle=False)
    assert dataset.num_reads[:2] == [2, 0]


class Queue(SeededRows):
    """Returns the next value for any index, up to ``num_items``."""

    num_items = NUM_ROWS

    def __getitem__(self, index: int) -> Any:
        number = sum(self.num_reads)
        self.num_reads[index] += 1
        if number >= self.num_items:
            raise ValueError("the queue is empty")
        return number


def test_a_set_that_says_it_is_random_is_never_read_twice() -> None:
    dataset = Queue()
    assert [number for batch in read(dataset) for number in batch.tolist()] == list(range(NUM_ROWS))
    assert dataset.num_reads == [1] * NUM_ROWS
    dataset = Queue()
    dataset.num_items = 6
    with pytest.raises(DataError, match=r"^Queue: sample 6 cannot be read: ValueError: the queue is empty$"):
        read(dataset, shuffle=False)
    assert dataset.num_reads == [1] * 7 + [0] * 17


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_set_that_says_it_is_random_is_seeded_where_draws_cannot_be_seen(num_workers: int) -> None:
    class Hidden(SeededRows):
        """Draws, and puts the state back."""

        def __getitem__(self, index: int) -> Any:
            with torch.random.fork_rng(devices=[]):
                return {"index": index, "noise": torch.rand(())}

    batches = read(Hidden(), num_workers=num_workers)
    assert len({noise for _, noise in samples(batches)}) == NUM_ROWS
    assert samples(batches) == samples(read(Hidden()))


def test_many_samples_are_asked_for_at_once_only_of_a_set_that_says_it_is_not_random() -> None:
    class Many(Rows):
        def __getitems__(self, indices: list[int]) -> list[Any]:
            raise AssertionError("asked for many")

    dataset = Many()
    read(dataset)
    assert dataset.num_reads == [1] * NUM_ROWS


def mixed(drawn: list[Any]) -> Any:
    """Collates with noise of its own."""
    return default_collate(drawn) | {"mixed": NOISES["all"]()}


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("noisy", [(), (9,)], ids=["quiet", "noisy"])
def test_a_collate_function_that_draws_is_seeded_and_not_held_against_the_set(
    noisy: Sequence[int], num_workers: int
) -> None:
    dataset = Rows(noisy)
    batches = read(dataset, collate_fn=mixed, num_workers=num_workers, shuffle=False)
    reference = read(SeededRows(noisy), collate_fn=mixed, shuffle=False)
    assert samples(batches) == samples(reference)
    assert [batch["mixed"] for batch in batches] == [batch["mixed"] for batch in reference]
    if not num_workers:
        assert dataset.num_reads == ([1] * 8 + [2] * 4 + [1] * 12 if noisy else [1] * NUM_ROWS)


class Lazy(tuple[int, float]):
    """Draws its noise when it is unpacked."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self[0], torch.tensor(NOISES["all"]())))


def test_a_sample_that_draws_when_it_is_collated_is_noticed() -> None:
    class LazyRows(Rows):
        def __getitem__(self, index: int) -> Any:
            return Lazy((index, 0.0))

    class LazySeeded(LazyRows):
        is_random = True

    reference = [noise for _, noises in read(LazySeeded()) for noise in noises.tolist()]
    assert len(set(reference)) == NUM_ROWS
    assert [noise for _, noises in read(LazyRows()) for noise in noises.tolist()] == reference


@pytest.mark.parametrize("noisy", [(), (3, 17)], ids=["quiet", "noisy"])
def test_samplers_and_ready_batches_have_the_same_noise(noisy: Sequence[int]) -> None:
    def loaders(dataset: Any) -> list[Any]:
        sampler = WeightedRandomSampler([1.0] * NUM_ROWS, NUM_ROWS)
        return [DataLoader(dataset, batch_size=4, sampler=sampler), DataLoader(dataset, batch_size=None, shuffle=True)]

    for ours, seeded in zip(loaders(Rows(noisy)), loaders(SeededRows(noisy)), strict=True):
        found, expected = (list(as_source(loader, SEED).read(0, 0)) for loader in (ours, seeded))
        assert [batch["noise"].tolist() for batch in found] == [batch["noise"].tolist() for batch in expected]


def test_no_stream_of_the_training_moves() -> None:
    def drawn_between(dataset: Any) -> list[float]:
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        return [NOISES["python, normal"]() + NOISES["all"]() for _ in as_source(Loader(dataset, 4), SEED).read(0, 0)]

    reference = drawn_between(rows(NUM_ROWS))
    assert all(drawn_between(dataset) == reference for dataset in (Rows(), Rows([9]), SeededRows([9])))


class SometimesNoisy(Dataset[Any]):
    """Rows to train with, some of them with noise."""

    def __init__(self) -> None:
        self.rows = rows(40)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        features, target = self.rows[index]
        return features + 0.1 * NOISES["all"]() if index % 13 == 7 else features, target


def fitted(num_workers: int, run_dir: Path, **options: Any) -> dict[str, Tensor]:
    """The weights at the end of a run that is saved after each step."""
    ours = trainer(
        TrainingLoop(max_steps=14),
        model=lambda: Regression(dropout=0.3),
        checkpoint=Checkpointing(every_n_steps=1, keep_last=None),
        run_dir=run_dir,
    )
    ours.fit(Loader(SometimesNoisy(), batch_size=4, shuffle=True, num_workers=num_workers), **options)
    return weights(ours)


def test_weights_do_not_depend_on_workers_or_a_resume(tmp_path: Path) -> None:
    straight = fitted(0, tmp_path / "straight")
    assert is_bitwise_equal(fitted(2, tmp_path / "workers"), straight)
    for step in (1, 5, 11):  # of 10 in a pass
        for num_workers in (0, 1):
            ckpt_path = tmp_path / f"straight/checkpoints/step_{step:08d}"
            resumed = fitted(num_workers, tmp_path / f"{step}_{num_workers}", ckpt_path=ckpt_path)
            assert is_bitwise_equal(resumed, straight)
