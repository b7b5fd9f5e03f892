"""The stem shared by a square's crops against the stem of each crop."""

import pytest
import torch

from googlenet import GoogLeNet
from googlenet.network.initialisation import initialise
from googlenet.network.shared_stem import can_share, corners_px, stem_of_crops
from googlenet.randomness import torch_generator


@pytest.mark.parametrize("variant", ["bn", "paper"])
@pytest.mark.parametrize(("side_px", "crop_px"), [(48, 32), (80, 48)])
@torch.no_grad()
def test_it_equals_the_stem_of_each_crop(variant: str, side_px: int, crop_px: int) -> None:
    network = GoogLeNet(5, variant, False, 0.125)  # type: ignore[arg-type]
    initialise(network, "he", torch_generator(0, "initial_weights"))
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    squares = 50 * torch.randn(2, 3, side_px, side_px, generator=torch.Generator().manual_seed(0))
    squares = squares.contiguous(memory_format=torch.channels_last)
    crops = [squares[:, :, y : y + crop_px, x : x + crop_px] for y, x in corners_px(side_px, crop_px)]
    expected = network.stem(torch.cat(crops))
    assert (stem_of_crops(network, squares, crop_px) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_crops_must_lie_at_whole_steps_and_overlap() -> None:
    assert all(can_share(side_px, 224) for side_px in (256, 288, 320, 352))
    assert not can_share(64, 56)
    assert not can_share(224, 224)
    assert not can_share(448, 224)
