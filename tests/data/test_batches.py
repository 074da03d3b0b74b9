"""Batches: a function of rows, seed and step; every row at most once an epoch; standardised as NumPy would."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batches import Features, TrainingBatches
from data.front_end import FrontEnd
from data.store import FeatureStore, Row, statistics
from utils import UserError

N, F, T = 53, 5, 7
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of 53 utterances of noise, memory-mapped as a real one, whose classes are 0 1 2 0 1 2 ..."""
    folder: Path = tmp_path_factory.mktemp("store")
    array = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, (N, F, T))
    rng = np.random.default_rng(0)
    array[:] = rng.normal(rng.normal(0, 50, (1, F, 1)), rng.uniform(0.1, 9, (1, F, 1)), (N, F, T))
    array.flush()
    manifest = [Row(f"u{i:02d}", f"u{i:02d}.wav", f"S{i % 4}", "", "abc"[i % 3], "", 1.0) for i in range(N)]
    front_end = FrontEnd(sample_rate=8000, n_fft=256, hop_length=128, n_mels=8, n_mfcc=F, duration=1, frames=T)
    mapped = np.lib.format.open_memmap(folder / "features.npy", mode="r")
    return FeatureStore(folder, "noise", front_end, ("a", "b", "c"), manifest, mapped, [])


@pytest.fixture(scope="module")
def features(store: FeatureStore) -> Features:
    """Not standardised, so that a row can be told from its values."""
    return Features(store, np.zeros(F, np.float32), np.ones(F, np.float32), CPU)


def rows_in(store: FeatureStore, x: torch.Tensor) -> list[int]:
    """Which utterances a batch holds."""
    first = {float(store.features[i, 0, 0]): i for i in range(N)}
    return [first[float(value)] for value in x[:, 0, 0, 0]]


def equal(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_holds_whole_utterances_and_their_labels(store, features):
    x, y = TrainingBatches(features, np.arange(N), 6, seed=1)[4]
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((6, 1, F, T), torch.float32, (6,), torch.int64)
    rows = rows_in(store, x)
    np.testing.assert_array_equal(x[:, 0].numpy(), store.features[rows])
    np.testing.assert_array_equal(y.numpy(), store.labels[rows])


@pytest.mark.parametrize("workers", [0, 3])
def test_a_batch_is_a_function_of_seed_and_step_alone(features, workers: int):
    rows, steps = np.arange(0, N, 2), list(range(20))
    in_order = TrainingBatches(features, rows, 5, seed=3)
    expected = {step: in_order[step] for step in steps}
    other = TrainingBatches(features, rows, 5, 3, workers)
    for step in np.random.default_rng(0).permutation(steps):
        assert equal(other[int(step)], expected[step])
    assert equal(other[7], expected[7]), "a second reading"


def test_the_global_random_state_is_neither_used_nor_moved(features):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    TrainingBatches(features, np.arange(N), 5, seed=3)[11]
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 9), st.integers(0, 4))
def test_an_epoch_has_every_row_once_but_for_those_that_fill_no_batch(count: int, size: int, seed: int, epoch: int):
    rows = np.sort(np.random.default_rng(seed).permutation(N)[:count])
    if size > count:
        return
    batches = TrainingBatches(Features(FAKE, np.zeros(F, np.float32), np.ones(F, np.float32), CPU), rows, size, seed)
    assert len(batches) == count // size
    seen = np.concatenate([batches.rows_of(epoch * len(batches) + i) for i in range(len(batches))])
    assert len(seen) == len(set(seen)) == len(batches) * size
    assert set(seen) <= set(rows)


class FAKE:
    """As much of a store as `Features` looks at."""

    features, labels = np.zeros((N, F, T), np.float32), np.zeros(N, np.int64)


def epoch_rows(batches: TrainingBatches, epoch: int) -> list[int]:
    return [row for i in range(len(batches)) for row in batches.rows_of(epoch * len(batches) + i).tolist()]


def test_epochs_differ_in_their_order_and_in_what_they_drop(features):
    batches = TrainingBatches(features, np.arange(N), 10, seed=0)
    epochs = [epoch_rows(batches, epoch) for epoch in range(6)]
    dropped = {frozenset(range(N)) - set(rows) for rows in epochs}
    assert len({tuple(rows) for rows in epochs}) == 6
    assert len(dropped) == 6
    assert all(len(rows) == 3 for rows in dropped)


def test_seeds_differ(features):
    first, second = (epoch_rows(TrainingBatches(features, np.arange(N), 10, seed=s), 0) for s in (0, 1))
    assert first != second


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_shares_of_the_processes_are_the_whole_batch(features, store, processes: int, workers: int):
    whole = TrainingBatches(features, np.arange(N), 12, seed=5)
    shares = [TrainingBatches(features, np.arange(N), 12, 5, workers, (rank, processes)) for rank in range(processes)]
    for step in (0, 3, 4, 9):
        parts = [share[step] for share in shares]
        assert all(len(x) == 12 // processes for x, _ in parts)
        assert sorted(row for x, _ in parts for row in rows_in(store, x)) == sorted(rows_in(store, whole[step][0]))
        together = torch.cat([y for _, y in parts])
        assert torch.equal(together.sort().values, whole[step][1].sort().values)
    assert {len(share) for share in shares} == {len(whole)}


def test_threads_give_the_same_and_read_ahead(features, monkeypatch):
    read = []
    monkeypatch.setattr(features, "read", lambda rows: read.append(tuple(rows)) or Features.read(features, rows))
    plain, threaded = (TrainingBatches(features, np.arange(N), 8, 2, workers) for workers in (0, 2))
    for step in range(15):
        assert equal(threaded[step], plain[step])
    threaded.threads.shutdown()
    ahead = [tuple(threaded.rows_of(step)) for step in range(17)]
    assert set(ahead) <= set(read), "two batches after the last are on their way"


def test_standardisation_is_numpys_on_the_training_rows(store):
    rows = np.arange(3, 40, 2)
    mean, std = statistics(store.features, rows)
    train = np.asarray(store.features[rows], dtype=np.float64)
    np.testing.assert_allclose(mean, train.mean(axis=(0, 2)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(std, train.std(axis=(0, 2)), rtol=1e-5)
    features = Features(store, mean, std, CPU)
    test = np.array([0, 1, 52])
    x, y = features.fetch(test)
    by_hand = (store.features[test] - train.mean(axis=(0, 2))[:, None]) / train.std(axis=(0, 2))[:, None]
    np.testing.assert_allclose(x[:, 0].numpy(), by_hand, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(y.numpy(), store.labels[test])
    inside = torch.cat([x for x, _ in features.in_order(rows, 8)])
    assert inside.mean(dim=(0, 1, 3)).abs().max() < 1e-4
    assert (inside.std(dim=(0, 1, 3), correction=0) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("size", [1, 4, 19, 100])
def test_in_order_is_every_row_once_in_order(features, store, size: int):
    rows = np.array([9, 3, 50, *range(20, 36)])
    batches = list(features.in_order(rows, size))
    assert [len(y) for _, y in batches] == [min(size, len(rows) - start) for start in range(0, len(rows), size)]
    assert [row for x, _ in batches for row in rows_in(store, x)] == rows.tolist()
    np.testing.assert_array_equal(torch.cat([y for _, y in batches]), store.labels[rows])


def test_a_batch_is_a_copy(features, store):
    before = np.array(store.features)
    x, y = features.fetch(np.array([0, 1]))
    x.zero_()
    y.fill_(9)
    np.testing.assert_array_equal(store.features, before)
    assert features.fetch(np.array([0, 1]))[1].tolist() == [0, 1]


def test_a_batch_may_be_all_the_rows_and_no_larger(features):
    assert len(TrainingBatches(features, np.arange(8), 8, seed=0)) == 1
    with pytest.raises(UserError, match="--batch_size 9 is more than the 8 training utterances"):
        TrainingBatches(features, np.arange(8), 9, seed=0)


@pytest.mark.parametrize(("size", "processes"), [(8, 3), (2, 2), (3, 3), (1, 1)])
def test_every_process_gets_the_same_share_of_two_at_least(features, size: int, processes: int):
    with pytest.raises(UserError, match=f"--batch_size {size} must give each of {processes} processes the same"):
        TrainingBatches(features, np.arange(N), size, seed=0, share=(0, processes))
    assert len(TrainingBatches(features, np.arange(N), 2 * processes, seed=0, share=(0, processes))[0][1]) == 2


def test_the_streams_of_all_seeds_are_different_shuffles(features) -> None:
    drawn = [
        tuple(TrainingBatches(features, np.arange(N), N, seed, stream=stream).rows_of(0))
        for seed in range(4)
        for stream in range(4)
    ]
    assert len(set(drawn)) == 16
