"""Training crops that grow, and mirrors that alternate: pure functions of the epoch."""

import numpy as np
import pytest
import torch

from googlenet.images.decoding import decode_rgb
from googlenet.images.records import Records
from googlenet.training.augment import Sampling, alternating_mirror
from googlenet.training.augment_tensors import EncodedSamples
from googlenet.training.batches import SAMPLES, TrainingSamples
from googlenet.training.crop_sizes import growing_crops_px
from googlenet.training.loader import Request
from tests.googlenet.images.test_records import open_all, write_shards


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (8, (64, 64, 84, 84, 105, 105, 125, 125)),
        (6, (64, 64, 84, 105, 105, 125)),
        (2, (64, 125)),
        (1, (125,)),
    ],
)
def test_crops_grow_in_four_steps_and_end_at_their_full_size(epochs: int, expected: tuple[int, ...]) -> None:
    assert growing_crops_px(64, 125, epochs) == expected


def test_without_growth_every_epoch_has_the_full_size() -> None:
    assert growing_crops_px(84, 84, 5) == (84,) * 5


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    return open_all(write_shards(tmp_path_factory.mktemp("shards")))


@pytest.mark.parametrize("kind", [TrainingSamples, EncodedSamples])
def test_batches_have_the_size_of_their_epoch(records: Records, kind: type) -> None:
    samples = kind(records, (35, 48), Sampling(), 0)
    for epoch, side in ((0, 35), (1, 48)):
        batch = samples.load(Request(SAMPLES, [(epoch, 4), (epoch, 5)], 2))
        images = batch.images if kind is TrainingSamples else batch.on(torch.device("cpu")).images
        assert images.shape == (2, 3, side, side)


def test_each_image_is_mirrored_in_every_other_epoch_and_half_of_them_in_the_first() -> None:
    sampling = Sampling(alternate_mirror=True)
    table = np.array([[alternating_mirror(sampling, 7, epoch, index) for index in range(1000)] for epoch in range(4)])
    assert (table[0] != table[1]).all()
    assert (table[:2] == table[2:]).all()
    assert abs(table[0].mean() - 0.5) < 0.05
    other = [alternating_mirror(sampling, 8, 0, index) for index in range(1000)]
    assert (table[0] != np.array(other)).any()


@pytest.mark.parametrize("kind", [TrainingSamples, EncodedSamples])
def test_samples_of_two_epochs_are_each_others_mirror_if_nothing_else_is_random(records: Records, kind: type) -> None:
    height, width, _ = decode_rgb(records[0].image).shape
    own = width / height
    still = Sampling((1.0, 1.0), (own, own), ("nearest",), photometric=None, lighting_sigma=0.0, alternate_mirror=True)
    samples = kind(records, 48, still, 0)

    def image(epoch: int) -> torch.Tensor:
        batch = samples.load(Request(SAMPLES, [(epoch, 0)], 1))
        return (batch if kind is TrainingSamples else batch.on(torch.device("cpu"))).images[0]

    assert torch.equal(image(0), image(1).flip(-1))
    assert torch.equal(image(0), image(2))
    assert not torch.equal(image(0), image(1))


def test_the_mirror_is_left_to_chance_by_default_and_stays_off_if_it_is_off() -> None:
    assert alternating_mirror(Sampling(), 0, 0, 0) is None
    assert alternating_mirror(Sampling(mirror=False, alternate_mirror=True), 0, 0, 0) is None
