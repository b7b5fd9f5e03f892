"""One training sample (section 6 of the paper): a pure function of an image, sampling settings and a generator.

A patch of 8-100 % of the image's area and of aspect 3/4 to 4/3 is resized to the crop with a random interpolation,
mirrored half the time, and distorted photometrically after Howard (arXiv 1312.5402).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from googlenet.images.decoding import Pixels, decode_rgb
from googlenet.images.jpeg import JpegHeader, decode_factor, decode_rows, read_header
from googlenet.randomness import numpy_generator
from googlenet.training.patches import AREA_SAMPLINGS, AreaSampling, Patch

# In arXiv v1 only: "bilinear, area, nearest neighbour and cubic, with equal probability".
INTERPOLATIONS = {
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
    "cubic": cv2.INTER_CUBIC,
}
# Luminance of ITU-R 601, as in Howard's tools (PIL).
LUMINANCE = np.array([0.299, 0.587, 0.114])
# Principal components of RGB in [0, 1] over ImageNet training images; the figures in common use since 2015.
# Rows are red, green and blue; columns are components.
LIGHTING_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
LIGHTING_EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


@dataclass(frozen=True)
class Sampling:
    """How training samples are drawn: a replica's "sampling methodology" (section 7).

    Attributes:
        area: smallest and largest share of the image's area in the patch.
        aspect: smallest and largest width over height of the patch.
        interpolations: names to choose from with equal probability.
        mirror: mirror half of the samples.
        photometric: smallest and largest factor of contrast, brightness and colour; None for no distortion.
        lighting_sigma: standard deviation of the principal-component noise; 0 for none.
        area_sampling: "even" draws the area evenly from what the aspects allow, then an aspect at which it fits;
            "torchvision" draws both together and rejects what does not fit, which makes large areas rare.
        alternate_mirror: if samples are mirrored, mirror each image in every other epoch instead of by chance.
    """

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    interpolations: tuple[str, ...] = tuple(INTERPOLATIONS)
    mirror: bool = True
    photometric: tuple[float, float] | None = (0.5, 1.5)
    lighting_sigma: float = 0.1
    area_sampling: AreaSampling = "even"
    alternate_mirror: bool = False

    def __post_init__(self) -> None:
        if self.area_sampling not in AREA_SAMPLINGS:
            raise ValueError(f"area_sampling must be one of {list(AREA_SAMPLINGS)}, got {self.area_sampling!r}")
        unknown = set(self.interpolations) - set(INTERPOLATIONS)
        if unknown or not self.interpolations:
            raise ValueError(f"interpolations must be among {list(INTERPOLATIONS)}, got {list(self.interpolations)}")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area must rise within (0, 1], got {self.area}")
        if not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
            raise ValueError(f"aspect must rise above 0 and be finite, got {self.aspect}")
        if self.photometric and not 0 <= self.photometric[0] <= self.photometric[1] < math.inf:
            raise ValueError(f"photometric factors must rise from 0 and be finite, got {self.photometric}")
        if not 0 <= self.lighting_sigma < math.inf:
            raise ValueError(f"lighting_sigma must not be negative or infinite, got {self.lighting_sigma}")


@dataclass(frozen=True)
class Draw:
    """Everything that is random about one sample.

    Attributes:
        patch: rectangle of the image that is shown.
        interpolation: name of the interpolation that resizes it.
        mirrored: whether it is mirrored.
        distortions: names of the photometric distortions and their factors, in order.
        lighting: shift of red, green and blue by the lighting noise; None for no noise.
    """

    patch: Patch
    interpolation: str
    mirrored: bool
    distortions: tuple[tuple[str, float], ...]
    lighting: tuple[float, float, float] | None


def draw(
    width: int, height: int, sampling: Sampling, generator: np.random.Generator, mirrored: bool | None = None
) -> Draw:
    """Draw what one sample of an image of ``width`` x ``height`` pixels shows, and how.

    ``mirrored`` decides about the mirror where it alternates; otherwise it is None, and chance decides.
    """
    patch = draw_patch(width, height, sampling, generator)
    interpolation = sampling.interpolations[generator.integers(len(sampling.interpolations))]
    if mirrored is None:
        mirrored = bool(sampling.mirror and generator.random() < 0.5)
    distortions: tuple[tuple[str, float], ...] = ()
    if sampling.photometric:
        names = list(DISTORTIONS)
        order = generator.permutation(len(names))
        distortions = tuple((names[index], generator.uniform(*sampling.photometric)) for index in order)
    lighting = draw_lighting(sampling.lighting_sigma, generator) if sampling.lighting_sigma else None
    return Draw(patch, interpolation, mirrored, distortions, lighting)


def alternating_mirror(sampling: Sampling, seed: int, epoch: int, index: int) -> bool | None:
    """Return whether image ``index`` is mirrored in ``epoch``, if the mirror alternates; None if chance decides.

    Chance decides about the first epoch. Source: K. Jordan, "94 % on CIFAR-10 in 3.29 seconds" (arXiv 2404.00498).
    """
    if not (sampling.mirror and sampling.alternate_mirror):
        return None
    return bool((numpy_generator(seed, "mirror", index).integers(2) + epoch) % 2)


def draw_lighting(sigma: float, generator: np.random.Generator) -> tuple[float, float, float]:
    """Draw Krizhevsky's lighting noise: one shift along the principal components of colour for the whole image."""
    alphas = generator.normal(0, sigma, size=3)
    red, green, blue = np.rint(255 * LIGHTING_EIGENVECTORS @ (alphas * LIGHTING_EIGENVALUES)).tolist()
    return red, green, blue


def draw_sample(
    image: Pixels, crop_px: int, sampling: Sampling, generator: np.random.Generator, mirrored: bool | None = None
) -> Pixels:
    """Draw one training sample.

    Args:
        image: (H, W, 3) uint8 RGB.
        crop_px: side of the sample.
        sampling: the ranges to draw from.
        generator: the only source of randomness.
        mirrored: from :func:`alternating_mirror`.

    Returns:
        (crop_px, crop_px, 3) uint8 RGB.
    """
    drawn = draw(image.shape[1], image.shape[0], sampling, generator, mirrored)
    return _render(_cut(image, drawn.patch), crop_px, drawn)


def draw_sample_from(
    data: bytes, crop_px: int, sampling: Sampling, generator: np.random.Generator, mirrored: bool | None = None
) -> Pixels:
    """Draw one training sample from an encoded image, decoding no more than the sample needs.

    The sample is bit-identical to the one that :func:`draw_sample` draws from the decoded image, unless the patch of
    a JPEG is at least four times the crop and shrunk by averaging: then the JPEG is decoded to a smaller size.

    Raises:
        googlenet.images.decoding.ImageDecodeError: the image cannot be decoded.
    """
    header = read_header(data)
    if header is None:
        return draw_sample(decode_rgb(data), crop_px, sampling, generator, mirrored)
    drawn = draw(header.width, header.height, sampling, generator, mirrored)
    patch = drawn.patch
    factor = decode_factor(min(patch.width, patch.height) / crop_px) if drawn.interpolation == "area" else 1
    return _render(_decode_patch(data, header, patch, factor), crop_px, drawn)


def _decode_patch(data: bytes, header: JpegHeader, patch: Patch, factor: int) -> Pixels:
    try:
        rows = decode_rows(data, header, patch.top + patch.height, factor)
    except ValueError:  # Pillow may still read it, or gives the reason why not
        return _cut(decode_rgb(data), patch)
    if factor == 1:
        return _cut(rows, patch)
    right, bottom = -(-(patch.left + patch.width) // factor), -(-(patch.top + patch.height) // factor)
    return rows[patch.top // factor : bottom, patch.left // factor : right]


def _cut(image: Pixels, patch: Patch) -> Pixels:
    return image[patch.top : patch.top + patch.height, patch.left : patch.left + patch.width]


def _render(window: Pixels, crop_px: int, drawn: Draw) -> Pixels:
    """Make a sample of its patch; rounded to 8 bits after each distortion, as by an image editor."""
    sample: Any = cv2.resize(window, (crop_px, crop_px), interpolation=INTERPOLATIONS[drawn.interpolation])
    if drawn.mirrored:
        sample = cv2.flip(sample, 1)
    for name, factor in drawn.distortions:
        sample = DISTORTIONS[name](sample, factor)
    if drawn.lighting:
        sample = cv2.add(sample, (*drawn.lighting, 0.0))
    return np.asarray(sample, dtype=np.uint8)


def draw_patch(width: int, height: int, sampling: Sampling, generator: np.random.Generator) -> Patch:
    """Draw a patch that lies inside a ``width`` x ``height`` image."""
    return AREA_SAMPLINGS[sampling.area_sampling](width, height, sampling.area, sampling.aspect, generator)


def _contrast(image: Any, factor: float) -> Any:
    """Move every value away from the image's mean luminance, or towards it."""
    mean = np.dot(cv2.mean(image)[:3], LUMINANCE)
    return _affine(image, factor, (1 - factor) * mean)


def _brightness(image: Any, factor: float) -> Any:
    return _affine(image, factor, 0.0)


def _affine(image: Any, factor: float, shift: float) -> Any:
    """Return factor * image + shift, rounded and clipped; takes a tenth of the time of a lookup table."""
    return cv2.addWeighted(image, factor, image, 0.0, shift)


def _colour(image: Any, factor: float) -> Any:
    """Blend every pixel with its own grey; factor 0 gives a greyscale image."""
    blend = factor * np.eye(3) + (1 - factor) * np.tile(LUMINANCE, (3, 1))
    return cv2.transform(image, blend)


# Changes of contrast, brightness and colour by a factor, in the order that numbers them for the permutation.
DISTORTIONS: dict[str, Callable[[Any, float], Any]] = {
    "contrast": _contrast,
    "brightness": _brightness,
    "colour": _colour,
}
