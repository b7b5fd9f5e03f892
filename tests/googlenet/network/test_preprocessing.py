"""Preprocessing: what is taken for pixels, and for the numbers that belong to a network."""

import pytest
import torch

from googlenet.network.preprocessing import CAFFE_PREPROCESSING, SCRATCH_PREPROCESSING, Preprocessing

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("shape", [(3, 8, 9), (8, 9, 3), (2, 4, 8, 9)])
def test_pixels_of_another_shape_are_refused_also_where_they_would_broadcast(shape: tuple[int, ...]) -> None:
    for preprocessing in (CAFFE_PREPROCESSING, SCRATCH_PREPROCESSING):
        with pytest.raises(ValueError, match=r"pixels must be \(N, 3, H, W\), .*of one image, pass image\[None\]"):
            preprocessing(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("channels", "mean", "std"),
    [
        ("bgr", MEAN, STD),
        ("RGB", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("RGB", MEAN, (58.395, 0.0, 57.375)),
        ("RGB", MEAN, (58.395, float("nan"), 57.375)),
        ("RGB", MEAN, (float("inf"),) * 3),  # every input would be 0
        ("RGB", (float("nan"), *MEAN[1:]), STD),
        ("RGB", (-123.675, *MEAN[1:]), STD),
        ("RGB", (1000.0, *MEAN[1:]), STD),
        ("RGB", MEAN[:2], STD),
        ("RGB", MEAN, (*STD, 1.0)),
    ],
)
def test_an_order_or_numbers_of_another_scale_are_refused(
    channels: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match=r"channels must be RGB or BGR|three numbers each on the scale 0..255"):
        Preprocessing(channels, mean, std)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"channels must be RGB or BGR|three numbers each on the scale 0..255"):
        Preprocessing.from_dict({"channels": channels, "mean": mean, "std": std})
