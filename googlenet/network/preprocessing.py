"""Preprocessing of pixels for a network; it belongs to the weights and is stored with them."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from googlenet.shapes import Float32, UInt8


@dataclass(frozen=True)
class Preprocessing:
    """Conversion of RGB pixels 0..255 to a network's input: reorder channels, subtract ``mean``, divide by ``std``.

    Attributes:
        channels: order that the network expects, and the order of ``mean`` and ``std``.
        mean: subtracted first, on the scale 0..255.
        std: divisor, on the scale 0..255.

    Raises:
        ValueError: there is no such order, or the numbers are not three each on the scale 0..255.
    """

    channels: Literal["RGB", "BGR"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.channels not in ("RGB", "BGR"):
            raise ValueError(f"channels must be RGB or BGR, got {self.channels!r}")
        has_mean = len(self.mean) == 3 and all(0 <= value <= 255 for value in self.mean)
        has_std = len(self.std) == 3 and all(1 <= value < math.inf for value in self.std)
        if not (has_mean and has_std):
            raise ValueError(
                f"mean and std must be three numbers each on the scale 0..255, got {self.mean} and {self.std}: "
                "multiply those for values from 0 to 1 by 255"
            )

    def __call__(self, images: UInt8[Tensor, "n 3 h w"]) -> Float32[Tensor, "n 3 h w"]:
        """Convert (N, 3, H, W) uint8 RGB to float32 of the same shape and memory format."""
        return self.on(images.device)(images)

    def on(self, device: torch.device) -> "PreprocessingOnDevice":
        """Return this preprocessing with its constants on ``device``, where a GPU need not wait for them each time."""
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return PreprocessingOnDevice(self.channels, mean, std)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Inverse of :meth:`to_dict`.

        Raises:
            KeyError: a value is missing.
        """
        return cls(values["channels"], tuple(values["mean"]), tuple(values["std"]))


@dataclass(frozen=True, eq=False)
class PreprocessingOnDevice:
    """A preprocessing for images on one device; ``mean`` and ``std`` are (1, 3, 1, 1) and there."""

    channels: Literal["RGB", "BGR"]
    mean: Float32[Tensor, "1 3 1 1"]
    std: Float32[Tensor, "1 3 1 1"]

    def __call__(self, images: UInt8[Tensor, "n 3 h w"]) -> Float32[Tensor, "n 3 h w"]:
        """Convert (N, 3, H, W) uint8 RGB to float32 of the same shape and memory format.

        Raises:
            TypeError: the pixels are of another type.
            ValueError: the pixels have another shape.
        """
        if images.dtype != torch.uint8:  # values from 0 to 1 would give almost the same input for every image
            raise TypeError(
                f"pixels must be uint8 from 0 to 255, got {images.dtype}: of values from 0 to 1, pass "
                "(255 * images).round().to(torch.uint8)"
            )
        if images.ndim != 4 or images.shape[1] != 3:  # the height of a single image would be taken for its channels
            raise ValueError(f"pixels must be (N, 3, H, W), got {tuple(images.shape)}: of one image, pass image[None]")
        if self.channels == "BGR":
            images = images.flip(1)
        return (images.float() - self.mean) / self.std


# Caffe's GoogLeNet: BGR, the ImageNet mean, no division ("zero mean" in the paper).
CAFFE_PREPROCESSING = Preprocessing("BGR", (104.0, 117.0, 123.0), (1.0, 1.0, 1.0))
# torchvision's weights expect (x - 0.5) / 0.5 of values in 0..1, regardless of its transforms.
TORCHVISION_PREPROCESSING = Preprocessing("RGB", (127.5,) * 3, (127.5,) * 3)
# For training from scratch: ImageNet's mean as in the paper. Departure: divided by a standard deviation common to
# the channels, so that the usual rates and initialisations hold for the variant with batch normalisation as well.
SCRATCH_PREPROCESSING = Preprocessing("RGB", (123.0, 117.0, 104.0), (58.0,) * 3)
