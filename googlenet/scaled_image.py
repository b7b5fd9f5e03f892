"""An image at the scales that its views need: what travels to the model. Needs no PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from googlenet.crops import scaled_size
from googlenet.images import Pixels, decode_rgb


@dataclass(frozen=True)
class ScaledImage:
    """An image on its way to the model: its size in pixels, and its versions at the scales that the views need."""

    width: int
    height: int
    scaled: tuple[Pixels, ...]

    @classmethod
    def decode(cls, data: bytes, scales_px: Sequence[int]) -> "ScaledImage":
        """Decode, and scale the shorter side to each of ``scales_px``; once for all views and replicas.

        Raises:
            ImageDecodeError: the bytes are no image that can be decoded.
        """
        image = decode_rgb(data)
        height, width = image.shape[:2]
        return cls(width, height, tuple(scale_image(image, scales_px)))


def scale_image(image: Pixels, scales_px: Sequence[int]) -> list[Pixels]:
    """Scale (H, W, 3) so that its shorter side is each of ``scales_px``; bilinear with antialiasing.

    The four results together are what travels to the model: 1 to 2 MB at 224 px, where 144 crops are 22 MB.
    """
    source = Image.fromarray(image)
    sizes = [scaled_size(source.width, source.height, scale_px) for scale_px in scales_px]
    return [np.asarray(source.resize(size, Image.Resampling.BILINEAR)) for size in sizes]
