"""Samples made by tensor operations, against those of the usual path for the same key."""

import io
import pickle
import re
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from googlenet.images.decoding import decode_rgb
from googlenet.images.record import Record
from googlenet.randomness import numpy_generator
from googlenet.training.augment import INTERPOLATIONS, Sampling, draw, draw_sample, draw_sample_from
from googlenet.training.augment_tensors import (
    DecoderError,
    EncodedBatch,
    EncodedSamples,
    check_decoder,
    decoded_by,
    decoder_of,
    render,
)
from googlenet.training.batches import SAMPLES
from googlenet.training.loader import Request
from tests.picture_files import encode as picture_file

CROP = 64


def photograph(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC))


def encode(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, compress_level=0)  # a PNG's compression takes most of a test's time
    return buffer.getvalue()


def pairs(sampling: Sampling, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return samples by tensors, and those of the usual path, of the same keys."""
    found = []
    for index in range(number):
        pixels = photograph(index)
        ours, usual = (numpy_generator(1, "sampling", 2, index) for _ in range(2))
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        sample = render(image, CROP, draw(320, 240, sampling, ours))
        expected = draw_sample_from(encode(pixels, "PNG"), CROP, sampling, usual)
        found.append((sample.permute(1, 2, 0).numpy().astype(float), expected.astype(float)))
    return found


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_sample_shows_what_the_usual_one_shows_but_for_rounding(interpolation: str) -> None:
    plain = Sampling(interpolations=(interpolation,), photometric=None, lighting_sigma=0.0)
    differences = np.array([np.abs(ours - usual).mean() for ours, usual in pairs(plain, 30)])
    assert differences.mean() < (2.0 if interpolation == "area" else 0.6)  # of 255; area takes whole pixels
    assert differences.max() < 6


def test_distortions_and_lighting_are_the_usual_ones() -> None:
    loud = Sampling((1.0, 1.0), (4 / 3, 4 / 3), ("nearest",), photometric=(0.5, 1.5), lighting_sigma=0.1)
    assert max(np.abs(ours - usual).mean() for ours, usual in pairs(loud, 30)) < 1


def test_the_distribution_is_the_same() -> None:
    both = np.array([[[side.mean(), side.std()] for side in pair] for pair in pairs(Sampling(), 100)])
    for statistic in (0, 1):
        ours, usual = both[:, 0, statistic], both[:, 1, statistic]
        assert abs(ours.mean() / usual.mean() - 1) < 0.01
        assert np.corrcoef(ours, usual)[0, 1] > 0.995


STILL = Sampling((1.0, 1.0), (4 / 3, 4 / 3), ("bilinear",), mirror=False, photometric=None, lighting_sigma=0.0)


def test_a_batch_is_decoded_and_rendered_on_its_device_in_the_order_of_its_images() -> None:
    made = draw_sample(photograph(1), CROP, STILL, numpy_generator(0, "sampling", 0, 1))
    images = [encode(photograph(0), "JPEG"), made, encode(photograph(2), "JPEG")]
    draws = [draw(320, 240, STILL, numpy_generator(0, "sampling", 0, index)) for index in (0, 2)]
    batch = EncodedBatch(images, draws, torch.tensor([4, 5, 6]), 7, CROP).on(torch.device("cpu"))
    assert (batch.num_images, batch.labels.tolist()) == (7, [4, 5, 6])
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for row in range(3):
        expected = torch.from_numpy(photograph(row).copy()).permute(2, 0, 1)
        difference = batch.images[row].float() - render(expected, CROP, draws[0]).float()
        assert difference.abs().mean() < 3, row  # of 255; compression


class Listed:
    """Records in memory."""

    def __init__(self, images: list[bytes]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Record:
        return Record(str(index), self._images[index], index)

    def labelled_image(self, index: int) -> tuple[bytes, int]:
        return self._images[index], index

    def share_cache(self, processes: int) -> None:
        pass


def test_what_a_gpu_cannot_decode_is_the_usual_sample_bit_for_bit_and_as_small() -> None:
    large = Image.fromarray(photograph(0)).resize((1200, 900))
    turned = Image.Exif()
    turned[0x0112] = 6
    others = [
        picture_file(large, "PNG", compress_level=0),
        picture_file(large, exif=turned),
        picture_file(large, keep_rgb=True),
        picture_file(large.convert("CMYK")),
    ]
    request = Request(SAMPLES, [(3, index) for index in range(4)], 4)
    batch = EncodedSamples(Listed(others), CROP, Sampling(), 1).load(request)
    assert len(pickle.dumps(batch)) < 100_000  # a photograph has 3 MB
    made = batch.on(torch.device("cpu")).images
    for index, data in enumerate(others):
        usual = draw_sample_from(data, CROP, Sampling(), numpy_generator(1, "sampling", 3, index))
        assert np.array_equal(made[index].permute(1, 2, 0).numpy(), usual), index


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"adobe": True}])
def test_every_upright_jpeg_of_luminance_and_colour_is_left_to_the_gpu(options: dict[str, bool | int]) -> None:
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1" if options.pop("adobe", False) else b""
    for mode in ("RGB", "L"):
        data = picture_file(Image.fromarray(photograph(0)).convert(mode), **options)
        data = data[:2] + adobe + data[2:]
        batch = EncodedSamples(Listed([data]), CROP, Sampling(), 1).load(Request(SAMPLES, [(0, 0)], 1))
        assert batch.images == [data]


def test_one_jpeg_that_the_gpus_decoder_refuses_costs_no_other() -> None:
    jpegs = [encode(photograph(index), "JPEG") for index in range(3)]
    expected = [torch.from_numpy(decode_rgb(jpeg).copy()).permute(2, 0, 1) for jpeg in jpegs]
    of_gpu = {jpegs[0]: expected[0], jpegs[2]: expected[2]}

    def decode(together: Sequence[bytes]) -> list[torch.Tensor]:
        if jpegs[1] in together:
            raise RuntimeError("Error while decoding JPEG images: Unknown chroma subsampling\nException raised from")
        return [of_gpu[jpeg] for jpeg in together]

    refused = (
        r"^the GPU's decoder refuses a JPEG \(Error while decoding JPEG images: Unknown chroma subsampling\): Pillow"
    )
    told: list[str] = []
    found = decoded_by(decode, jpegs, told.append)
    assert len(told) == 1
    assert re.match(refused, told[0])
    assert found[0] is expected[0]
    assert found[2] is expected[2]
    assert torch.equal(found[1], expected[1])


def test_a_lack_of_memory_is_no_fault_of_a_jpeg() -> None:
    tries: list[Sequence[bytes]] = []

    def decode(together: Sequence[bytes]) -> list[torch.Tensor]:
        tries.append(together)
        raise torch.OutOfMemoryError("CUDA out of memory")

    told: list[str] = []
    with pytest.raises(torch.OutOfMemoryError):
        decoded_by(decode, [encode(photograph(0), "JPEG")] * 3, told.append)
    with pytest.raises(torch.OutOfMemoryError):
        check_decoder(decode)
    assert (len(tries), told) == (2, [])


def test_a_decoder_that_decodes_nothing_is_refused_before_the_training() -> None:
    check_decoder(decoder_of(torch.device("cpu")))

    def decode(_: Sequence[bytes]) -> list[torch.Tensor]:
        raise NotImplementedError("Could not run 'image::decode_jpegs_cuda'\nmore")

    with pytest.raises(
        DecoderError, match=r"on this GPU \(Could not run 'image::decode_jpegs_cuda'\): leave --gpu-aug"
    ):
        check_decoder(decode)
