"""The side of the training crops: one for a whole training, or one for each epoch. Free of PyTorch.

Small crops at first save time. Source: J. Howard, "fastai and DAWNBench" (2018); FFCV's recipes for ImageNet.
"""

from collections.abc import Sequence

# Sides in pixels: the same for all epochs, or by epoch.
CropPx = int | Sequence[int]
SIZES = 4


def growing_crops_px(first_px: int, last_px: int, epochs: int) -> tuple[int, ...]:
    """Return the side of the crops in each epoch: four sizes, evenly spaced, each for a quarter of the epochs.

    Four, since every size of a compiled network is compiled anew. The last epoch has ``last_px``.
    """
    parts = min(SIZES, epochs)
    sizes = [last_px - round((last_px - first_px) * (parts - 1 - part) / max(1, parts - 1)) for part in range(parts)]
    return tuple(sizes[epoch * parts // epochs] for epoch in range(epochs))


def crop_px_in(epoch: int, crop_px: CropPx) -> int:
    """Return the side of the crops in ``epoch``."""
    return crop_px if isinstance(crop_px, int) else crop_px[epoch]
