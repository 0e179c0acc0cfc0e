"""The masks of SpecAugment: those of tensorflow-io, but drawn by seed, epoch and index alone."""

import functools
import itertools
import pathlib
import sys
import warnings
import zlib

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from common import dataset_reader
from tests.benchmarks.made_dataset import make_dataset
from tests.support.commands import run_module
from trainer.data import augment, reader
from trainer.data.augment import Augmentation

DRAWS = 2_000  # 50 and more of each mask
SIZES = {"freq": 9, "time": 11}
LIMIT = 4
MASKS = Augmentation(freq_mask=20, time_mask=30)


def masks_of(pictures: np.ndarray, kind: str) -> list[tuple[int, int]]:
    """(width, start) of the band or the stretch that is blanked in each picture of ones."""
    blank = (pictures == 0).all(axis=2 if kind == "freq" else 1)
    rows = blank[:, :, None] if kind == "freq" else blank[:, None, :]
    assert ((pictures == 0) == rows).all()  # nothing else is
    widths, starts = blank.sum(axis=1), blank.argmax(axis=1)
    for row, width, start in zip(blank, widths, starts, strict=True):
        assert row[start : start + width].all()
    return list(zip(widths.tolist(), np.where(widths, starts, 0).tolist(), strict=True))


def ours(kind: str) -> np.ndarray:
    """Pictures of ones after our masks of one kind."""
    limits = {"freq_mask": 0, "time_mask": 0, f"{kind}_mask": LIMIT}
    ones = tf.ones([DRAWS, *SIZES.values()], tf.uint8)
    return augment.mask(ones, tf.range(DRAWS, dtype=tf.int64), **limits, seed=3).numpy()


@functools.cache
def of_tensorflow_io(kind: str) -> np.ndarray:
    """The same after theirs, which have time first and draw below their parameter, not up to it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # its compiled ops are for another TensorFlow
        audio = pytest.importorskip("tensorflow_io", reason="no wheel for this Python").audio
    function = getattr(audio, f"{kind}_mask")
    picture = tf.ones(list(SIZES.values()), tf.uint8)
    tf.random.set_seed(5)
    draw = tf.function(
        lambda: tf.map_fn(
            lambda _: tf.transpose(function(tf.transpose(picture), LIMIT + 1)),
            tf.range(DRAWS),
            fn_output_signature=tf.uint8,
        )
    )
    return draw().numpy()


@pytest.mark.parametrize("kind", SIZES)
def test_they_are_distributed_as_those_of_tensorflow_io(kind):
    """So often each width and start, by Pearson's chi-squared."""
    size = SIZES[kind]
    expected = {
        (width, start): DRAWS / (LIMIT + 1) / (size - width)
        for width in range(1, LIMIT + 1)
        for start in range(size - width)
    }
    expected[0, 0] = DRAWS / (LIMIT + 1)
    for pictures in (ours(kind), of_tensorflow_io(kind)):
        found = masks_of(pictures, kind)
        counts = [found.count(pair) for pair in expected]
        assert sum(counts) == DRAWS
        assert stats.chisquare(counts, list(expected.values())).pvalue > 1e-3


@pytest.mark.parametrize("kind", SIZES)
def test_a_mask_does_what_one_of_tensorflow_io_does(kind):
    """Each that it drew, drawn by us."""
    theirs = of_tensorflow_io(kind)
    size = SIZES[kind]
    widths, starts = np.array(masks_of(theirs, kind)).T
    blank = augment.blanked(
        tf.constant((widths + 0.5) / (LIMIT + 1)),
        tf.constant((starts + 0.5) / (size - widths)),
        size=size,
        limit=LIMIT,
    ).numpy()
    rows = blank[:, :, None] if kind == "freq" else blank[:, None, :]
    np.testing.assert_array_equal(np.where(rows, 0, np.ones_like(theirs)), theirs)


def test_a_mask_may_be_the_whole_picture():
    ones = tf.ones([500, *SIZES.values()], tf.uint8)
    masked = augment.mask(
        ones, tf.range(500, dtype=tf.int64), freq_mask=SIZES["freq"], time_mask=0, seed=0
    )
    widths = {width for width, _ in masks_of(masked.numpy(), "freq")}
    assert widths == set(range(SIZES["freq"] + 1))


# ---- in a training


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of 60 clips in 3 shards, and its description."""
    folder = tmp_path_factory.mktemp("made") / "dataset"
    return folder, make_dataset(folder, num_shards=3, examples_a_shard=20)


def batches(made, *, epoch=1, masks=MASKS, **changes) -> list[dict[str, np.ndarray]]:
    folder, info = made
    arguments = (
        dict(batch_size=4, shuffle_buffer=30, seed=7, epoch=epoch, augmentation=masks) | changes
    )
    return list(reader.batches(info, str(folder), "train", **arguments).as_numpy_iterator())


def checksum(batches) -> int:
    return zlib.crc32(b"".join(batch["spectrogram"].tobytes() for batch in batches))


def test_the_same_bytes_whatever_was_drawn_before(made):
    tf.random.set_seed(0)  # as a training does, whose shuffles depend on it
    first = checksum(batches(made))
    others = [checksum(batches(made, epoch=epoch)) for epoch in (2, 3)]
    assert len({first, *others, checksum(batches(made, seed=8))}) == 4
    assert first != checksum(batches(made, masks=None))
    tf.random.normal([3])
    assert checksum(batches(made)) == first
    another = run_module("tests.trainer.test_augment", made[0])  # whose hashes differ
    assert int(another.stdout) == first


@pytest.fixture(scope="module")
def whole_pass(made):
    """The batches that one worker has of a pass with some masks; read once for each."""
    return functools.cache(lambda masks: batches(made, batch_size=8, masks=masks))


WORKERS = ([[0]], [[0], [1]], [[0, 1], [2, 3]])


@pytest.mark.parametrize(
    ("masks", "of_workers", "first_step"),
    [
        *itertools.product([MASKS], WORKERS, [0, 1, 4, 7, 8]),
        *itertools.product([None], WORKERS, [4]),
    ],
    ids=lambda value: "plain" if value is None else "masked" if value is MASKS else str(value),
)
def test_steps_left_out_and_workers_change_no_batch(
    made, whole_pass, masks, of_workers, first_step
):
    """Those of all workers, from any step on, are the rest of what one worker has of a pass."""
    num_replicas = sum(map(len, of_workers))
    size = 8 // num_replicas
    whole = whole_pass(masks)
    assert len(whole) == 8 and whole[-1]["weight"].sum() == 4  # the last one has padding
    workers = [
        batches(
            made,
            batch_size=size,
            masks=masks,
            first_step=first_step,
            num_replicas=num_replicas,
            local_replicas=local,
        )
        for local in of_workers
    ]
    found = []
    for step in range(8 - first_step):
        of_step = [
            batch
            for worker, local in zip(workers, of_workers, strict=True)
            for batch in worker[step * len(local) : (step + 1) * len(local)]
        ]
        found.append({name: np.concatenate([b[name] for b in of_step]) for name in whole[0]})
    assert sum(map(len, workers)) == (8 - first_step) * num_replicas
    for batch, expected in zip(found, whole[first_step:], strict=True):
        assert batch.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(batch[name], values)


def test_masks_blank_bands_and_stretches_of_the_records(made):
    for before, after in zip(batches(made, masks=None), batches(made), strict=True):
        np.testing.assert_array_equal(before["track_id"], after["track_id"])
        changed = before["spectrogram"] != after["spectrogram"]
        assert (after["spectrogram"][changed] == 0).all()
        blank = after["spectrogram"] == 0
        bands, stretches = blank.all(axis=2), blank.all(axis=1)
        assert (bands.sum(axis=1) <= 20).all() and (stretches.sum(axis=1) <= 30).all()
        assert not (changed & ~(bands[:, :, None] | stretches[:, None, :])).any()
        assert len({row.tobytes() for row in bands}) > 1  # another one for each record


if __name__ == "__main__":  # the batches of a dataset in a process of its own
    tf.random.set_seed(0)
    folder = pathlib.Path(sys.argv[1])
    print(checksum(batches((folder, dataset_reader.load_dataset_info(str(folder))))))
