"""The embedded data set: scikit-learn's handwritten digits on scikit-learn's two photographs.

Real pixels, no download, generated in seconds from a seed: every image shows one light digit of random size and colour
near the middle of a darkened piece of a photograph, as a JPEG of a random, mostly non-square size. Some digits are
partly hidden, so that no network recognises all of them. Training and validation use different digits.
"""

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from googlenet.randomness import numpy_generator
from pipelines.data.listing import DataSet, Entry, ImageFile

NAME = "embedded"
CLASSES = tuple(str(digit) for digit in range(10))
IMAGES_PER_CLASS = {"train": 120, "val": 40}
JPEG_QUALITY = 90
# Difficulty of the set. As in most pictures of ImageNet, the object stands near the middle, so that most crops show it
# whole. Digits that are lighter than the photograph in one image and darker in the next take several times as long to
# learn: a short training then ends on its steepest part, where rounding decides the result (docs/results/demo.md).
BACKGROUND_CONTRAST = 0.4
"""Contrast of the photograph around its mean; 1 is the original."""
BACKGROUND_BRIGHTNESS = 0.3
"""Brightness of the photograph; 1 is the original."""
DIGIT_SHARE = (0.5, 0.65)
"""Range of a digit's side as a share of the image's shorter side."""
OFF_CENTRE_SHARE = 0.07
"""Largest distance of a digit's centre from the image's, as a share of each side."""
HIDDEN_PROBABILITY = 0.1
"""Share of the digits that are partly hidden."""
HIDDEN_SHARE = (0.3, 0.5)
"""Range of the hidden part of such a digit's side, from one of the four edges."""
MIN_CONTRAST_LEVELS = 150
"""Minimum difference between digit and background, in grey levels."""
TINT_LEVELS = 15
"""Largest difference of a digit's colour channel from its grey level."""
ASPECTS = ((1, 1), (5, 4), (4, 5), (6, 5), (5, 6))
ASPECT_PROBABILITIES = (0.4, 0.2, 0.1, 0.2, 0.1)
SHORTER_SIDE_PX = (88, 120)

Grey = npt.NDArray[np.float64]


@dataclass(frozen=True)
class EmbeddedImages:
    """Reader that generates the images of a listing from a seed."""

    seed: int

    def read(self, image: ImageFile) -> bytes:
        """Return the image as a JPEG."""
        return generate(image.image_id, self.seed)


def find() -> DataSet:
    """Return the images of both splits."""
    return DataSet({s: [Entry(name, name.split("/")[1]) for name in image_ids(s)] for s in IMAGES_PER_CLASS}, CLASSES)


def image_ids(split: str) -> list[str]:
    """Return the image ids of a split, in order: ``<split>/<class>/<number>.jpg``."""
    return [f"{split}/{name}/{number:04d}.jpg" for name in CLASSES for number in range(IMAGES_PER_CLASS[split])]


def generate(image_id: str, seed: int) -> bytes:
    """Generate one image as a JPEG; a pure function of its id (its path relative to the data root) and the seed."""
    split, name, file = image_id.split("/")
    label, number = int(name), int(file.removesuffix(".jpg"))
    generator = numpy_generator(seed, "embedded_dataset", list(IMAGES_PER_CLASS).index(split), label, number)
    shorter = int(generator.integers(*SHORTER_SIDE_PX, endpoint=True))
    across, down = ASPECTS[generator.choice(len(ASPECTS), p=ASPECT_PROBABILITIES)]
    width, height = round(shorter * across / min(across, down)), round(shorter * down / min(across, down))
    ground = _ground(width, height, generator)
    picture = _draw_digit(ground, _digits(split, seed)[label][number], generator)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


@cache
def _digits(split: str, seed: int) -> list[list[Grey]]:
    """Return the 8x8 digits of a split by class, in 0..1; the splits share none.

    Raises:
        ValueError: scikit-learn has fewer digits of a class than the two splits need.
    """
    from sklearn.datasets import load_digits  # 1 s to import, needed by this data set alone

    digits = load_digits()
    chosen = []
    for label in range(len(CLASSES)):
        images = digits.images[digits.target == label] / 16
        needed = sum(IMAGES_PER_CLASS.values())
        if len(images) < needed:
            raise ValueError(f"{needed} digits of class {label} are needed, scikit-learn ships {len(images)}")
        order = numpy_generator(seed, "embedded_dataset", label).permutation(len(images))
        first = 0 if split == "train" else IMAGES_PER_CLASS["train"]
        chosen.append(list(images[order[first : first + IMAGES_PER_CLASS[split]]]))
    return chosen


@cache
def _photographs() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


def _ground(width: int, height: int, generator: np.random.Generator) -> Grey:
    """Return a piece of a photograph, (height, width, 3), darkened and with less contrast."""
    photographs = _photographs()
    photograph = photographs[generator.integers(len(photographs))]
    zoom = generator.uniform(0.5, 1.5)
    piece_width, piece_height = min(photograph.width, round(width * zoom)), min(photograph.height, round(height * zoom))
    left = int(generator.integers(photograph.width - piece_width + 1))
    top = int(generator.integers(photograph.height - piece_height + 1))
    box = (left, top, left + piece_width, top + piece_height)
    piece = np.asarray(photograph.resize((width, height), Image.Resampling.BICUBIC, box), dtype=np.float64)
    mean = piece.mean(axis=(0, 1))
    ground: Grey = BACKGROUND_BRIGHTNESS * (mean + BACKGROUND_CONTRAST * (piece - mean))
    return ground


def _draw_digit(ground: Grey, digit: Grey, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    height, width = ground.shape[:2]
    side = round(min(width, height) * generator.uniform(*DIGIT_SHARE))
    stencil = Image.fromarray((digit * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    stencil = stencil.rotate(generator.uniform(-15, 15), Image.Resampling.BICUBIC)
    opacity = np.asarray(stencil.filter(ImageFilter.GaussianBlur(side / 60)), dtype=np.float64)[..., None] / 255
    opacity = _partly_hidden(np.clip(opacity * 1.6, 0, 1), generator)
    left, top = (_offset(length, side, generator) for length in (width, height))
    window = ground[top : top + side, left : left + side]
    colour = _light_colour(window.mean(), generator)
    picture = ground.copy()
    picture[top : top + side, left : left + side] = opacity * colour + (1 - opacity) * window
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _partly_hidden(opacity: Grey, generator: np.random.Generator) -> Grey:
    """Return the opacity of a digit, (side, side, 1), without a part along a random edge for some digits."""
    if generator.random() >= HIDDEN_PROBABILITY:
        return opacity
    edge = int(generator.integers(4))
    turned = np.rot90(opacity, edge).copy()
    turned[: round(len(turned) * generator.uniform(*HIDDEN_SHARE))] = 0
    return np.rot90(turned, -edge)


def _offset(length: int, side: int, generator: np.random.Generator) -> int:
    """Return where a digit begins along one axis of the image."""
    offset = (length - side) / 2 + generator.uniform(-1, 1) * OFF_CENTRE_SHARE * length
    return min(max(round(offset), 0), length - side)


def _light_colour(ground_level: float, generator: np.random.Generator) -> Grey:
    """Return a random colour, lighter than the background by a minimum difference."""
    level = generator.uniform(ground_level + MIN_CONTRAST_LEVELS, 255)
    return np.clip(level + generator.uniform(-TINT_LEVELS, TINT_LEVELS, size=3), 0, 255)
