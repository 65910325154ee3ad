"""`as_source` reads any dataloader from any micro-batch of any pass."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
    get_worker_info,
)

from loopwright import Callback, TrainingLoop
from loopwright.data import Loader, as_source
from loopwright.data.reading.order import index_batches, num_batches, pass_order
from loopwright.errors import DataError, SettingError
from loopwright.protocols import BatchSource
from tiny import rows, trainer


class Noisy(Dataset[Any]):
    """Rows with noise from Python's, NumPy's and torch's random generators."""

    def __len__(self) -> int:
        return 13

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor(
            [index, random.random(), float(np.random.rand()), torch.rand(()).item()], dtype=torch.float64
        )


class NoisyStream(IterableDataset[Any]):
    """An iterable data set that draws a random number for each sample."""

    def __iter__(self) -> Iterator[Tensor]:
        return (torch.tensor([index, torch.rand(()).item()]) for index in range(9))


class Subclass(DataLoader[Any]):
    """A subclass, which may read data differently from its base class."""


class OneByOne(Sampler[int]):
    """A sampler that draws each index when the index is read."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        return (int(torch.randint(13, (), generator=self.generator)) for _ in range(13))

    def __len__(self) -> int:
        return 13


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def first_column(batches: Iterator[Any]) -> list[int]:
    return [int(value) for batch in batches for value in batch[:, 0]]


def indices(source: BatchSource, pass_index: int = 0, first: int = 0) -> list[int]:
    return first_column(source.read(pass_index, first))


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


LOADERS: dict[str, Any] = {
    "ours": lambda: Loader(Noisy(), batch_size=4, shuffle=True),
    "ours, 2 workers": lambda: Loader(Noisy(), batch_size=4, shuffle=True, num_workers=2),
    "torch, plain": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True),
    "torch, kept workers": lambda: DataLoader(
        Noisy(), batch_size=4, shuffle=True, num_workers=1, persistent_workers=True
    ),
    "torch, sampler": lambda: DataLoader(Noisy(), batch_size=4, sampler=WeightedRandomSampler([1.0] * 13, 13)),
    "torch, replacement": lambda: DataLoader(Noisy(), batch_size=4, sampler=RandomSampler(Noisy(), replacement=True)),
    "torch, stream": lambda: DataLoader(NoisyStream(), batch_size=4),
    "torch, stream, generator": lambda: DataLoader(NoisyStream(), num_workers=1, generator=generator()),
    "torch, stream, kept workers": lambda: DataLoader(NoisyStream(), num_workers=1, persistent_workers=True),
    "subclass, generator": lambda: Subclass(Noisy(), batch_size=4, shuffle=True, generator=generator()),
    "subclass, slow sampler": lambda: Subclass(Noisy(), num_workers=1, sampler=OneByOne(generator())),
    "subclass, kept workers": lambda: Subclass(Noisy(), batch_size=4, num_workers=1, persistent_workers=True),
    "list": lambda: [torch.full((2, 1), float(index)) for index in range(5)],
}


@pytest.mark.parametrize("kind", LOADERS)
def test_reading_from_a_later_batch_gives_the_rest_of_the_pass(kind: str) -> None:
    whole = list(as_source(LOADERS[kind](), 5).read(2, 0))
    for first in range(len(whole)):
        assert equal(list(as_source(LOADERS[kind](), 5).read(2, first)), whole[first:])


@pytest.mark.parametrize("kind", [kind for kind in LOADERS if kind != "list"])
def test_passes_and_seeds_differ_and_global_generators_do_not_change(kind: str) -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # type: ignore[index]
    source = as_source(LOADERS[kind](), 5)
    passes = [list(source.read(index, 0)) for index in (0, 1, 0)]
    assert equal(passes[0], passes[2]) and not equal(passes[0], passes[1])
    assert not equal(list(as_source(LOADERS[kind](), 6).read(0, 0)), passes[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[:2]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_all_plain_loaders_read_a_shuffled_set_in_the_same_order() -> None:
    kinds = ["ours", "ours, 2 workers", "torch, plain", "torch, kept workers"]
    reference = list(as_source(LOADERS["ours"](), 5).read(1, 0))
    assert all(equal(list(as_source(LOADERS[kind](), 5).read(1, 0)), reference) for kind in kinds)


def test_a_generator_of_the_users_loader_decides_the_order() -> None:
    def order(seed: int) -> list[int]:
        return indices(as_source(DataLoader(Noisy(), shuffle=True, generator=torch.Generator().manual_seed(seed)), 0))

    assert order(1) == order(1) != order(2)


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Noisy(), batch_size=5, drop_last=True),
        DataLoader(Noisy(), batch_sampler=BatchSampler(SequentialSampler(Noisy()), 5, drop_last=True)),
        DataLoader(Noisy(), batch_sampler=[[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]),
        Loader(Noisy(), batch_size=5, drop_last=True),
    ],
)
def test_batch_size_and_drop_last_of_the_users_loader_are_kept(loader: Any) -> None:
    source = as_source(loader, 0)
    assert source.num_batches == 2
    assert [len(batch) for batch in source.read(0, 0)] == [5, 5]
    assert indices(source) == list(range(10))


def test_ready_batches_are_returned_unchanged() -> None:
    ready = [torch.full((3, 1), float(index)) for index in range(4)]
    source = as_source(DataLoader(ready, batch_size=None), 0)  # type: ignore[arg-type]
    assert source.num_batches == 4
    assert equal(list(source.read(0, 1)), ready[1:])


def test_the_users_collate_function_and_worker_function_are_used() -> None:
    def collate(samples: list[Tensor]) -> Tensor:
        return torch.stack(samples)[:, :1] * 10

    loader = DataLoader(Noisy(), batch_size=13, collate_fn=collate, num_workers=1, worker_init_fn=_seed_nothing)
    assert indices(as_source(loader, 0)) == [10 * index for index in range(13)]


def _seed_nothing(worker: int) -> None:
    torch.manual_seed(worker)


def test_set_epoch_of_a_sampler_is_called_with_the_pass() -> None:
    class Rotating(SequentialSampler):
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __iter__(self) -> Iterator[int]:
            return iter([(index + self.epoch) % 13 for index in range(13)])

    source = as_source(DataLoader(Noisy(), sampler=Rotating(Noisy()), batch_size=2), 0)
    assert [indices(source, pass_index)[0] for pass_index in (0, 3, 0)] == [0, 3, 0]


class Epochs(Dataset[Any]):
    """Rows (index, epoch), where the epoch is the one that `set_epoch` received; it may draw a random number."""

    is_random = False
    epoch = -1

    def __len__(self) -> int:
        return 13

    def set_epoch(self, epoch: int) -> None:
        np.random.randn()
        self.epoch = epoch

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([index, self.epoch])


class StreamedEpochs(Epochs, IterableDataset[Any]):
    """The same rows as a stream; the first worker yields all of them."""

    def __iter__(self) -> Iterator[Tensor]:
        info = get_worker_info()
        return iter([self[index] for index in range(13)] if info is None or info.id == 0 else [])


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["sampler", "stream", "ours", "torch"])
def test_set_epoch_of_a_data_set_is_called_with_the_pass(kind: str, num_workers: int) -> None:
    """Catches a stream that shuffles alike in each pass, and persistent workers that keep the epoch of their start."""
    options: Any = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    if kind == "ours":
        loader: Any = Loader(Epochs(), 2, num_workers=num_workers)
    elif kind == "stream":
        loader = DataLoader(StreamedEpochs(), 2, **options)
    else:
        sampler = {"sampler": SequentialSampler(range(13))} if kind == "sampler" else {}
        loader = DataLoader(Epochs(), 2, **sampler, **options)
    source = as_source(loader, 0)
    for pass_index, first in ((0, 0), (3, 0), (1, 2)):
        np.random.seed(1)
        rows = torch.cat([*source.read(pass_index, first)])
        assert rows[:, 1].tolist() == [pass_index] * (13 - 2 * first)
        drawn = np.random.rand()
        np.random.seed(1)
        assert drawn == np.random.rand()


class Shares(IterableDataset[Any]):
    """Rows with a true length; each worker yields every nth row."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[Tensor]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return (torch.ones(2) * index for index in range(first, self.num_rows, step))


@pytest.mark.parametrize(
    ("num_rows", "num_workers", "num_batches", "max_batches"),
    [(10, 0, 3, 3), (10, 1, 3, 3), (10, 2, None, 4), (16, 2, 4, 4), (9, 2, None, 4)],
)
def test_the_length_of_a_stream_is_known_if_workers_share_it_evenly(
    num_rows: int, num_workers: int, num_batches: int | None, max_batches: int
) -> None:
    """Catches torch's guess, which counts batches as if one worker read all rows."""
    source = as_source(DataLoader(Shares(num_rows), 4, num_workers=num_workers), 0)
    assert (source.num_batches, source.max_batches) == (num_batches, max_batches)


@pytest.mark.slow
@pytest.mark.parametrize("num_rows", [9, 10, 16])
def test_a_stream_that_workers_share_is_trained_and_validated_to_its_end(num_rows: int) -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            return {"loss": self.weight * 0, "row": batch[:, 0].mean()}

    seen: list[float] = []

    class Seeing(Callback):
        def on_train_batch_start(self, trainer: Any, model: Any, batch: Tensor, batch_idx: int) -> None:
            seen.extend(batch[:, 0].tolist())

    loader = DataLoader(Shares(num_rows), 4, num_workers=2)
    num_steps = len(list(loader))
    ours = trainer(TrainingLoop(num_steps=num_steps), model=Mean, callbacks=[Seeing()])
    ours.fit(loader, loader)
    assert sorted(seen) == list(range(num_rows))
    assert ours.metrics["val/row"] == pytest.approx((num_rows - 1) / 2)


def test_an_endless_sampler_is_read_step_by_step() -> None:
    class Endless(SequentialSampler):
        def __iter__(self) -> Iterator[int]:
            return itertools.cycle(range(13))

    batches = as_source(DataLoader(Noisy(), sampler=Endless(Noisy())), 0).read(0, 0)
    assert first_column(itertools.islice(batches, 30)) == [index % 13 for index in range(30)]


def test_a_set_with_is_random_false_is_read_without_seeding() -> None:
    class Fixed(Noisy):
        is_random = False

    torch.manual_seed(1)
    expected = torch.rand(())
    torch.manual_seed(1)
    noisy, fixed = next(iter(Loader(Noisy()))), next(iter(Loader(Fixed())))
    assert fixed[0, 3] == expected.double() != noisy[0, 3]


def test_getitems_is_called_once_for_each_batch() -> None:
    asked: list[list[int]] = []

    class Many:
        is_random = False

        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Tensor:
            raise AssertionError("asked one by one")

        def __getitems__(self, indices: list[int]) -> list[Tensor]:
            asked.append(indices)
            return [torch.tensor([float(index)]) for index in indices]

    assert indices(as_source(Loader(Many(), batch_size=4), 0)) == list(range(6))
    assert asked == [[0, 1, 2, 3], [4, 5]]

    class Fewer(Many):
        def __getitems__(self, indices: list[int]) -> list[Tensor]:
            return super().__getitems__(indices)[1:]

    with pytest.raises(DataError, match=r"^Fewer: __getitems__ returned 3 samples for 4 indices\.$"):
        next(as_source(Loader(Fewer(), batch_size=4), 0).read(0, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": 3}, "dataset=3"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": True}, "batch_size=True"),
        ({"num_workers": -1}, "num_workers=-1"),
    ],
)
def test_invalid_arguments_of_a_loader_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Loader(**({"dataset": rows(3)} | arguments))


def test_an_object_that_is_not_iterable_is_refused() -> None:
    with pytest.raises(SettingError, match="dataloader=3: expected an iterable"):
        as_source(3, 0)


@given(st.integers(1, 300), st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.integers(1, 40), st.booleans())
@settings(max_examples=60)
def test_batches_tile_a_permutation(num_samples: int, seed: int, pass_index: int, size: int, drop_last: bool) -> None:
    order = pass_order(num_samples, is_shuffled=True, seed=seed, pass_index=pass_index)
    cut = list(index_batches(order, size, 0, drop_last=drop_last))
    read = [index for batch in cut for index in batch]
    assert len(cut) == num_batches(num_samples, size, drop_last=drop_last)
    assert len(set(read)) == len(read) == (num_samples - num_samples % size if drop_last else num_samples)
    for first in range(len(cut) + 1):
        assert list(index_batches(order, size, first, drop_last=drop_last)) == cut[first:]


def test_the_first_index_of_a_pass_is_uniform() -> None:
    counts = Counter(int(pass_order(5, is_shuffled=True, seed=0, pass_index=index)[0]) for index in range(2000))
    assert all(abs(count - 400) < 100 for count in counts.values()) and len(counts) == 5


def test_keys_of_samplers_reach_the_data_set_unchanged() -> None:
    """As in torch, a key may be a list for a ready batch, a whole number of any type, or a name."""
    ready = DataLoader(rows(10), batch_size=None, sampler=BatchSampler(SequentialSampler(range(10)), 4, False))
    assert [len(batch[0]) for batch in as_source(ready, 0).read(0, 0)] == [4, 4, 2]

    class Named(Noisy):
        def __getitem__(self, index: Any) -> Tensor:
            return super().__getitem__(int(index.removeprefix("row") if isinstance(index, str) else index))

    for keys in (np.arange(4), torch.arange(4), ["row0", "row1", "row2", "row3"]):
        loader = DataLoader(Named(), batch_size=2, sampler=keys)
        assert indices(as_source(loader, 0)) == [0, 1, 2, 3]
    for batch in (np.arange(2), (0, 1), torch.arange(2)):
        assert indices(as_source(DataLoader(Noisy(), batch_sampler=[batch]), 0)) == [0, 1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_sampler_with_its_own_random_numbers_is_read_once_in_a_pass(num_workers: int) -> None:
    class Own(SequentialSampler):
        chance = random.Random(3)

        def __iter__(self) -> Iterator[int]:
            return iter(self.chance.sample(range(13), 13))

    source = as_source(DataLoader(Noisy(), sampler=Own(Noisy()), num_workers=num_workers), 0)
    begun = source.read(0, 0)
    first = [int(next(begun)[0, 0]) for _ in range(5)]
    del begun
    assert sorted(first + indices(source, 0, 5)) == list(range(13))


def test_a_sampler_with_a_generator_repeats_the_order_of_a_pass() -> None:
    def loader() -> Any:
        sampler = WeightedRandomSampler([1.0] * 13, 13, generator=torch.Generator().manual_seed(4))
        return DataLoader(Noisy(), batch_size=2, sampler=sampler)

    whole = [indices(as_source(loader(), 0), pass_index) for pass_index in range(3)]
    assert whole[0] != whole[1] != whole[2]
    assert indices(as_source(loader(), 0), 2, 3) == whole[2][6:]


@pytest.mark.parametrize("kind", [DataLoader, Subclass])
def test_the_users_generators_are_in_place_and_unchanged_after_a_batch(kind: Any) -> None:
    own, of_sampler = generator(), generator()
    sampler = OneByOne(of_sampler)
    loader = kind(Noisy(), batch_size=2, sampler=sampler, generator=own)
    next(as_source(loader, 0).read(0, 0))
    assert (loader.generator, sampler.generator) == (own, of_sampler)
    assert all(torch.equal(each.get_state(), generator().get_state()) for each in (own, of_sampler))


def test_a_sampler_that_draws_step_by_step_does_not_repeat_itself() -> None:
    class Long(OneByOne):
        def __iter__(self) -> Iterator[int]:
            return (int(torch.randint(13, (), generator=self.generator)) for _ in range(128))

    drawn = indices(as_source(DataLoader(Noisy(), sampler=Long(generator())), 0))
    assert drawn[:64] != drawn[64:]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_collate_function_may_draw_random_numbers(num_workers: int) -> None:
    reference = list(as_source(DataLoader(rows(12), batch_size=4, collate_fn=_mixed), 0).read(0, 0))
    loader = DataLoader(rows(12), batch_size=4, collate_fn=_mixed, num_workers=num_workers)
    assert equal(list(as_source(loader, 0).read(0, 0)), reference)
    assert equal(list(as_source(loader, 0).read(0, 1)), reference[1:])


class Broken(Noisy):
    """A data set in which the sixth sample and all later ones cannot be read."""

    def __getitem__(self, index: int) -> Any:
        if index >= 5:
            raise ValueError(f"row {index} is broken")
        return super().__getitem__(index)


@pytest.mark.parametrize("persistent_workers", [False, True])
def test_an_error_ends_all_workers_and_the_loader_can_be_read_again(
    persistent_workers: bool, num_workers_left: Callable[..., int]
) -> None:
    loader = Subclass(Broken(), batch_size=4, num_workers=2, persistent_workers=persistent_workers)
    batches = as_source(loader, 0).read(0, 0)
    next(batches)
    with pytest.raises(ValueError, match="row 5 is broken"):
        next(batches)
    assert num_workers_left(within_seconds=10) == 0  # although the error still refers to the iterator
    assert len(next(iter(loader))) == 4
    loader._iterator = None  # ends its workers now: the error, in a reference cycle, refers to the loader


def _mixed(samples: list[Any]) -> Tensor:
    features = torch.stack([sample[0] for sample in samples])
    return features * torch.rand(()) + features.flip(0) * float(np.random.rand()) * random.random()


def test_get_worker_info_returns_the_users_data_set() -> None:
    loader = DataLoader(Noisy(), batch_size=13, num_workers=1, worker_init_fn=_check_worker)
    assert indices(as_source(loader, 0)) == list(range(13))


def _check_worker(worker: int) -> None:
    info = torch.utils.data.get_worker_info()
    assert info is not None and isinstance(info.dataset, Noisy)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_numpys_cached_normal_number_does_not_depend_on_workers(num_workers: int) -> None:
    np.random.seed(0)
    batches = as_source(Loader(Noisy(), batch_size=4, num_workers=num_workers), 0).read(0, 0)
    drawn = [float(np.random.randn()) for _ in batches for _ in range(3)]
    np.random.seed(0)
    again = as_source(Loader(Noisy(), batch_size=4, num_workers=1 - num_workers), 0).read(0, 0)
    assert drawn == [float(np.random.randn()) for _ in again for _ in range(3)]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_noise_of_a_sample_differs_between_passes(num_workers: int) -> None:
    source = as_source(Loader(Noisy(), batch_size=13, num_workers=num_workers), 0)
    (first,), (second,) = source.read(0, 0), source.read(1, 0)
    assert torch.equal(first[:, 0], second[:, 0]) and not (first[:, 1:] == second[:, 1:]).any()
