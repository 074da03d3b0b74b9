"""Batches depend only on rows, seed and step; epochs have every row at most once, or balanced classes."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from config import FrontEnd
from data import batches
from data.arrays import RowReader, RowWriter
from data.batches import Features, TrainingBatches
from data.normalisation import Standardisation, own_statistics
from data.store import FeatureStore, Row
from utils import UserError

N, F, T = 53, 5, 7
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store on disk with 53 utterances of noise, of the classes 0 1 2 0 1 2 ..."""
    folder: Path = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(0)
    writer = RowWriter(folder / "features.npy", (F, T))
    writer.append(rng.normal(rng.normal(0, 50, (1, F, 1)), rng.uniform(0.1, 9, (1, F, 1)), (N, F, T)))
    writer.close()
    plain = {
        "session": "",
        "split": "",
        "duration": 1.0,
        "text": "",
        "copy": "",
        "start": 0.0,
        "stamp": "",
        "end": 1.0,
    }
    manifest = [
        Row(utterance=f"u{i:02d}", file=f"u{i:02d}.wav", speaker=f"S{i % 4}", emotion="abc"[i % 3], **plain)
        for i in range(N)
    ]
    front_end = FrontEnd(
        sample_rate=8000, n_fft=256, hop_length=128, n_mels=8, n_mfcc=F, duration=1, frames=T
    )
    reader = RowReader(folder / "features.npy")
    return FeatureStore(folder, "noise", front_end, ("a", "b", "c"), manifest, reader, [])


def unchanged(rows: int, coefficients: int) -> Standardisation:
    """A standardisation that changes nothing."""
    shape = 1, coefficients
    return Standardisation(np.zeros(shape, np.float32), np.ones(shape, np.float32), np.zeros(rows, np.int64))


def plain_features(store: FeatureStore) -> Features:
    """Features that are not standardised, so that their values show which row they are."""
    return Features(store, unchanged(N, F), CPU)


@pytest.fixture(scope="module")
def from_disk(store: FeatureStore) -> Features:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(batches.RESIDENT_BYTES, "cpu", 0)
        return plain_features(store)


@pytest.fixture(scope="module", params=["in memory", "on disk"])
def features(store: FeatureStore, from_disk: Features, request) -> Features:
    return from_disk if request.param == "on disk" else plain_features(store)


def rows_in(store: FeatureStore, x: torch.Tensor) -> list[int]:
    """The rows of the store that a batch holds."""
    first = {float(store.features[i][0, 0]): i for i in range(N)}
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
def test_a_batch_depends_on_the_seed_and_the_step_alone(features, workers: int):
    rows, steps = np.arange(0, N, 2), list(range(20))
    in_order = TrainingBatches(features, rows, 5, seed=3)
    expected = {step: in_order[step] for step in steps}
    other = TrainingBatches(features, rows, 5, 3, workers)
    for step in np.random.default_rng(0).permutation(steps):
        assert equal(other[int(step)], expected[step])
    assert equal(other[7], expected[7]), "the second read of a step differs"


def test_batches_do_not_use_the_global_random_states(features):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    TrainingBatches(features, np.arange(N), 5, seed=3)[11]
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002


@settings(max_examples=60)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 9), st.integers(0, 4))
def test_an_epoch_has_every_row_once_except_those_that_fill_no_batch(
    count: int, size: int, seed: int, epoch: int
):
    rows = np.sort(np.random.default_rng(seed).permutation(N)[:count])
    if size > count:
        return
    shuffled = TrainingBatches(Features(FAKE, unchanged(N, F), CPU), rows, size, seed)
    assert len(shuffled) == count // size
    seen = np.array(epoch_rows(shuffled, epoch))
    assert len(seen) == len(set(seen)) == len(shuffled) * size
    assert set(seen) <= set(rows)


class FAKE:
    """The attributes of a store that `Features` uses."""

    features, labels = np.zeros((N, F, T), np.float32), np.zeros(N, np.int64)


def epoch_rows(shuffled: TrainingBatches, epoch: int) -> list[int]:
    steps = range(epoch * len(shuffled), (epoch + 1) * len(shuffled))
    return [row for step in steps for row in shuffled.rows_of(step).tolist()]


def test_epochs_differ_in_their_order_and_their_dropped_rows(features):
    shuffled = TrainingBatches(features, np.arange(N), 10, seed=0)
    epochs = [epoch_rows(shuffled, epoch) for epoch in range(6)]
    dropped = {frozenset(range(N)) - set(rows) for rows in epochs}
    assert len({tuple(rows) for rows in epochs}) == 6
    assert len(dropped) == 6
    assert all(len(rows) == 3 for rows in dropped)


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_processes_together_have_the_whole_batch(features, store, processes: int, workers: int):
    whole = TrainingBatches(features, np.arange(N), 12, seed=5)
    ranks = range(processes)
    shares = [TrainingBatches(features, np.arange(N), 12, 5, workers, (rank, processes)) for rank in ranks]
    for step in (0, 3, 4, 9):
        parts = [share[step] for share in shares]
        assert all(len(x) == 12 // processes for x, _ in parts)
        rows = [row for x, _ in parts for row in rows_in(store, x)]
        assert sorted(rows) == sorted(rows_in(store, whole[step][0]))
        together = torch.cat([y for _, y in parts])
        assert torch.equal(together.sort().values, whole[step][1].sort().values)
    assert {len(share) for share in shares} == {len(whole)}


def test_threads_return_the_same_batches_and_read_two_ahead(from_disk, monkeypatch):
    read = []
    recorded = lambda rows: read.append(tuple(rows)) or Features.read(from_disk, rows)  # noqa: E731
    monkeypatch.setattr(from_disk, "read", recorded)
    plain, threaded = (TrainingBatches(from_disk, np.arange(N), 8, 2, workers) for workers in (0, 2))
    for step in range(15):
        assert equal(threaded[step], plain[step])
    threaded.threads.shutdown()
    ahead = [tuple(threaded.rows_of(step)) for step in range(17)]
    assert set(ahead) <= set(read), "the two batches after the last were not read"


def test_features_are_standardised_by_the_statistics_of_their_group(store):
    rng = np.random.default_rng(1)
    mean, std = rng.normal(0, 50, (3, F)).astype(np.float32), rng.uniform(1, 9, (3, F)).astype(np.float32)
    group = rng.integers(0, 3, N)
    features = Features(store, Standardisation(mean, std, group), CPU)
    rows = np.array([0, 52, 1])
    x, y = features.fetch(rows)
    by_hand = (store.features[rows] - mean[group[rows], :, None]) / std[group[rows], :, None]
    np.testing.assert_allclose(x[:, 0].numpy(), by_hand, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(y.numpy(), store.labels[rows])


@pytest.mark.parametrize("size", [1, 4, 19, 100])
def test_in_order_yields_every_row_once(features, store, size: int):
    rows = np.array([9, 3, 50, *range(20, 36)])
    parts = list(features.in_order(rows, size))
    assert [len(y) for _, y in parts] == [min(size, len(rows) - start) for start in range(0, len(rows), size)]
    assert [row for x, _ in parts for row in rows_in(store, x)] == rows.tolist()
    np.testing.assert_array_equal(torch.cat([y for _, y in parts]), store.labels[rows])


def test_a_batch_is_a_copy(features, store):
    before = store.features[:]
    x, y = features.fetch(np.array([0, 1]))
    x.zero_()
    y.fill_(9)
    again = features.fetch(np.array([0, 1]))
    np.testing.assert_array_equal(again[0][:, 0], before[:2])
    assert again[1].tolist() == [0, 1]
    np.testing.assert_array_equal(store.features[:], before)
    assert store.labels.tolist()[:2] == [0, 1]


def test_a_batch_has_at_most_all_rows(features):
    assert len(TrainingBatches(features, np.arange(8), 8, seed=0)) == 1
    with pytest.raises(UserError, match="--batch_size 9 is more than the 8 training utterances"):
        TrainingBatches(features, np.arange(8), 9, seed=0)


@pytest.mark.parametrize(("size", "processes"), [(8, 3), (2, 2), (3, 3), (1, 1)])
def test_every_process_gets_the_same_number_of_rows_two_or_more(features, size: int, processes: int):
    message = f"--batch_size {size} must give each of {processes} processes the same"
    with pytest.raises(UserError, match=message):
        TrainingBatches(features, np.arange(N), size, seed=0, share=(0, processes))
    _, y = TrainingBatches(features, np.arange(N), 2 * processes, seed=0, share=(0, processes))[0]
    assert len(y) == 2


def test_every_seed_and_stream_is_another_shuffle(features) -> None:
    drawn = [
        tuple(TrainingBatches(features, np.arange(N), N, seed, stream=stream).rows_of(0))
        for seed in range(4)
        for stream in range(4)
    ]
    assert len(set(drawn)) == 16


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_features_in_memory_and_from_disk_are_the_same_bits(store, monkeypatch, balanced: bool, workers: int):
    own = own_statistics(store, "speaker")
    kept = Features(store, own, CPU)
    monkeypatch.setitem(batches.RESIDENT_BYTES, "cpu", store.features.nbytes - 1)
    read = Features(store, own, CPU)
    assert (kept.resident is None, read.resident is None) == (False, True)
    one, other = (TrainingBatches(f, np.arange(N), 8, 4, workers, balanced=balanced) for f in (kept, read))
    assert all(equal(one[step], other[step]) for step in range(14))
    pairs = zip(kept.in_order(np.arange(N), 10), read.in_order(np.arange(N), 10), strict=True)
    assert all(equal(*pair) for pair in pairs)


def test_features_up_to_the_limit_are_kept_in_memory(store, monkeypatch):
    for limit, kept in [(store.features.nbytes, True), (store.features.nbytes - 1, False)]:
        monkeypatch.setitem(batches.RESIDENT_BYTES, "cpu", limit)
        assert (plain_features(store).resident is not None) == kept
        threads = TrainingBatches(plain_features(store), np.arange(N), 8, 0, workers=2).threads
        assert (threads is None) == kept, "threads are started only to read from disk"


READ_AN_EPOCH = """
import sys
from pathlib import Path
import numpy as np, torch
from data.arrays import RowReader
from data.batches import Features, TrainingBatches
from data.normalisation import Standardisation

class Store:
    features = RowReader(Path(sys.argv[1]))
    labels = np.arange(len(features)) % 4

def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) / 256  # MB, of pages of 4 kB
flat = np.zeros((1, 128), np.float32), np.ones((1, 128), np.float32), np.zeros(len(Store.labels), np.int64)
features = Features(Store, Standardisation(*flat), torch.device("cpu"))
assert features.resident is None
batches = TrainingBatches(features, np.arange(len(Store.features)), 32, 0, int(sys.argv[2]))
for step in range(5): batches[step]
before = most = resident()
for step in range(5, len(batches)):
    batch = batches[step]
    most = max(most, resident())
print(most - before)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("large") / "features.npy"
    rows = np.zeros((128, 128, 128), np.float32)  # 8 MB
    writer = RowWriter(path, rows.shape[1:])
    for _ in range(38):
        writer.append(rows)
    writer.close()
    assert path.stat().st_size > 300e6
    yield path
    path.unlink()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system has no /proc")
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_does_not_grow_while_a_large_store_is_read(large: Path, workers: int):
    line = [sys.executable, "-c", READ_AN_EPOCH, str(large), str(workers)]
    done = subprocess.run(line, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 50, "MB"


def labelled(labels: np.ndarray) -> Features:
    """Features of rows with these labels."""

    class Labelled:
        features = np.zeros((len(labels), 1, 1), np.float32)

    Labelled.labels = labels
    return Features(Labelled, unchanged(len(labels), 1), CPU)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=80), st.integers(0, 99), st.integers(0, 4))
def test_a_balanced_epoch_has_each_class_and_each_row_of_a_class_equally_often(
    labels: list[int], seed: int, epoch: int
):
    labels = np.array(labels)
    rows = np.flatnonzero(np.arange(len(labels)) % 5 != 1)  # the other rows are of another part
    drawn = TrainingBatches(labelled(labels), rows, 2, seed, balanced=True)
    assert len(drawn) == len(rows) // 2
    whole = drawn.permutation(epoch)
    assert set(whole) <= set(rows)
    assert epoch_rows(drawn, epoch) == whole[: 2 * len(drawn)].tolist()
    per_class = Counter(labels[whole].tolist())
    assert set(per_class) == set(labels[rows])
    assert max(per_class.values()) == min(per_class.values()) == -(-len(rows) // len(per_class))
    for label in per_class:
        per_row = [np.count_nonzero(whole == row) for row in rows[labels[rows] == label]]
        assert max(per_row) - min(per_row) <= 1


UNBALANCED = np.repeat([0, 1, 2], [70, 20, 10])


def test_balanced_epochs_draw_different_rows_of_a_large_class():
    drawn = TrainingBatches(labelled(UNBALANCED), np.arange(100), 10, seed=1, balanced=True)
    epochs = [epoch_rows(drawn, epoch) for epoch in range(12)]
    large = [frozenset(row for row in rows if UNBALANCED[row] == 0) for rows in epochs]
    assert len(set(large)) == len(epochs)
    assert frozenset.union(*large) == set(range(70)), "some rows never occur"
    for rows in epochs:
        assert {row for row in rows if UNBALANCED[row] == 2} == set(range(90, 100))
        assert len({row for row in rows if UNBALANCED[row] == 0}) == sum(UNBALANCED[row] == 0 for row in rows)


def test_the_classes_of_a_balanced_epoch_are_mixed():
    drawn = TrainingBatches(labelled(UNBALANCED), np.arange(100), 25, seed=1, balanced=True)
    assert all(len(set(UNBALANCED[drawn.rows_of(step)])) == 3 for step in range(40))


def test_balanced_batches_depend_on_seed_stream_and_step_alone():
    def batch(seed: int, stream: int, step: int) -> tuple[int, ...]:
        fresh = TrainingBatches(labelled(UNBALANCED), np.arange(100), 10, seed, stream=stream, balanced=True)
        return tuple(fresh.rows_of(step).tolist())

    keys = list(product((0, 1), (0, 1), (0, 7, 10, 31)))
    drawn = [batch(*key) for key in keys]
    assert len(set(drawn)) == len(keys)
    assert [batch(*key) for key in keys[::-1]] == drawn[::-1]


def test_the_processes_together_have_the_whole_balanced_batch():
    whole, first, second = (
        TrainingBatches(labelled(UNBALANCED), np.arange(100), 10, 3, share=share, balanced=True)
        for share in ((0, 1), (0, 2), (1, 2))
    )
    for step in range(25):
        assert sorted(whole.rows_of(step)) == sorted([*first.rows_of(step), *second.rows_of(step)])
