"""Training samples per second on one core, from encoded photographs to uint8 pixels.

    python -m benchmarks.loader

Compared with torchvision's v2 transforms on tensors, with the same sampling and distortion except for lighting noise,
which they lack, and with plain decoders followed by a random resized crop alone.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
import torch
import tyro
from PIL import Image
from torchvision import io as torchvision_io
from torchvision.transforms import InterpolationMode, v2

from benchmarks.measure import Contender, Round, print_circumstances, print_rates, race
from benchmarks.photographs import photographs_of_size
from googlenet.images.decoding import Pixels
from googlenet.randomness import numpy_generator
from googlenet.training.augment import Sampling, draw_patch, draw_sample_from

PLAIN = Sampling(interpolations=("bilinear",), mirror=False, photometric=None, lighting_sigma=0.0)
OURS = "ours, all of it"
TORCHVISION = "torchvision v2, all of it"
OPENCV = "OpenCV, crop alone"
SIMPLEJPEG = "simplejpeg + OpenCV, crop alone"


@dataclass(frozen=True)
class Arguments:
    """Compare loaders, on one core each."""

    photos: str = ""
    """Folder of photographs; scikit-learn's two otherwise."""
    rounds: int = 7
    """Rounds."""
    images: int = 256
    """Images in a round."""
    width: int = 500
    """Width of the photographs in pixels."""
    height: int = 375
    """Height of the photographs in pixels."""
    crop_px: int = 224
    """Side of the samples."""


def _all_images(encoded: Sequence[bytes], load: Callable[[bytes, np.random.Generator], object]) -> Round:
    epoch = 0

    def one_round() -> float:
        nonlocal epoch
        epoch += 1
        for index, data in enumerate(encoded):
            load(data, numpy_generator(0, "sampling", epoch, index))
        return len(encoded)

    return one_round


def _ours(encoded: Sequence[bytes], crop_px: int, sampling: Sampling) -> Round:
    cv2.setNumThreads(0)
    return _all_images(encoded, lambda data, generator: draw_sample_from(data, crop_px, sampling, generator))


def _plain(encoded: Sequence[bytes], crop_px: int, decode: Callable[[bytes], Pixels]) -> Round:
    cv2.setNumThreads(0)

    def load(data: bytes, generator: np.random.Generator) -> object:
        image = decode(data)
        patch = draw_patch(image.shape[1], image.shape[0], PLAIN, generator)
        window = image[patch.top : patch.top + patch.height, patch.left : patch.left + patch.width]
        return cv2.resize(window, (crop_px, crop_px), interpolation=cv2.INTER_LINEAR)

    return _all_images(encoded, load)


def _decode_by_opencv(data: bytes) -> Pixels:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def _decode_by_simplejpeg(data: bytes) -> Pixels:
    pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True)
    return pixels


def _by_pillow(encoded: Sequence[bytes], crop_px: int) -> Round:
    def load(data: bytes, generator: np.random.Generator) -> object:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        patch = draw_patch(image.width, image.height, PLAIN, generator)
        box = (patch.left, patch.top, patch.left + patch.width, patch.top + patch.height)
        return np.asarray(image.resize((crop_px, crop_px), Image.Resampling.BILINEAR, box=box))

    return _all_images(encoded, load)


def _by_torchvision(encoded: Sequence[bytes], crop_px: int, distort: bool) -> Round:
    torch.set_num_threads(1)
    # Tensors have no interpolation by area.
    modes = (InterpolationMode.BILINEAR, InterpolationMode.NEAREST, InterpolationMode.BICUBIC)
    crops = [
        v2.RandomResizedCrop(crop_px, (0.08, 1.0), (3 / 4, 4 / 3), interpolation=mode)
        for mode in (modes if distort else modes[:1])
    ]
    rest = [v2.RandomHorizontalFlip(), v2.ColorJitter(0.5, 0.5, 0.5)] if distort else []
    transform = v2.Compose([v2.RandomChoice(crops), *rest])

    def load(data: bytes, _: np.random.Generator) -> object:
        return transform(torchvision_io.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)))

    return _all_images(encoded, load)


def main(arguments: Arguments) -> None:
    """Print samples per second and their ratios."""
    encoded = photographs_of_size(arguments.photos, arguments.images, arguments.width, arguments.height)
    crop_px = arguments.crop_px
    contenders = [
        Contender("Pillow, crop alone", _by_pillow, (encoded, crop_px)),
        Contender("torchvision v2, crop alone", _by_torchvision, (encoded, crop_px, False)),
        Contender(OPENCV, _plain, (encoded, crop_px, _decode_by_opencv)),
        Contender(SIMPLEJPEG, _plain, (encoded, crop_px, _decode_by_simplejpeg)),
        Contender("ours, crop alone", _ours, (encoded, crop_px, PLAIN)),
        Contender(TORCHVISION, _by_torchvision, (encoded, crop_px, True)),
        Contender(OURS, _ours, (encoded, crop_px, Sampling())),
    ]
    rates = race(contenders, arguments.rounds)
    size = sum(map(len, encoded)) / len(encoded) / 1000
    print(f"{arguments.images} JPEGs of {arguments.width}x{arguments.height} px, {size:.0f} KB on average\n")
    print_rates(rates, "images/s", [TORCHVISION, OPENCV, SIMPLEJPEG])
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
