"""Partial decoding of JPEGs: the same pixels as from a full decode, for every kind of JPEG."""

import io
from functools import cache

import numpy as np
import pytest
from PIL import Image

from googlenet.images.decoding import ImageDecodeError, decode_rgb
from googlenet.images.jpeg import decode_factor, decode_rows, read_header
from googlenet.images.scaled_image import ScaledImage, scale_image
from googlenet.randomness import numpy_generator
from googlenet.training import augment
from googlenet.training.augment import INTERPOLATIONS, Sampling, draw_patch, draw_sample, draw_sample_from
from tests.picture_files import encode, opencv, photograph

KINDS = {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "progressive 4:4:4": {"progressive": True, "subsampling": 0},
    "restarts": {"restart_marker_rows": 1},
    "quality 98": {"quality": 98},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(500, 375), (161, 97), (33, 40)])
def test_decoded_rows_are_those_of_the_whole_image_bit_for_bit(kind: str, size: tuple[int, int]) -> None:
    data = encode(photograph(*size), **KINDS[kind])
    whole, header = decode_rgb(data), read_header(data)
    assert header is not None
    assert (header.width, header.height) == size
    for bottom in [1, 7, 8, 15, 16, 17, size[1] // 2, size[1] - 1, size[1]]:
        rows = decode_rows(data, header, bottom)
        assert bottom <= len(rows) <= min(size[1], bottom + 64)
        assert np.array_equal(rows[:bottom], whole[:bottom]), bottom


def test_grey_ones_too() -> None:
    data = encode(photograph(200, 150).convert("L"))
    header = read_header(data)
    assert header is not None
    assert np.array_equal(decode_rows(data, header, 70)[:70], decode_rgb(data)[:70])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_jpeg_gives_pillows_own_pixels_and_the_samples_drawn_from_them(kind: str) -> None:
    """Evaluation and training depend on no metadata: with Exif, a profile and a comment, every bit stays."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 1, "Camera"
    file = encode(photograph(500, 375), exif=exif, icc_profile=bytes(70_000), comment=b"a", **KINDS[kind])
    plain = np.asarray(Image.open(io.BytesIO(file)))
    assert np.array_equal(decode_rgb(file), plain)
    assert np.array_equal(decode_rgb(file), opencv(file))
    scales_px = (256, 288)
    ours = ScaledImage.decode(file, scales_px).scaled
    assert all(np.array_equal(a, b) for a, b in zip(ours, scale_image(plain, scales_px), strict=True))
    for index in range(20):
        generators = [numpy_generator(1, "sampling", 0, index) for _ in range(2)]
        sample = draw_sample_from(file, 224, Sampling(), generators[0])
        assert np.array_equal(sample, draw_sample(plain, 224, Sampling(), generators[1]))


def with_orientation(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(photograph(64, 48), exif=exif)


def exif_after_frame() -> bytes:
    plain, turned = encode(photograph(64, 48)), with_orientation(6)
    start = turned.index(b"\xff\xe1")
    segment = turned[start : start + 2 + int.from_bytes(turned[start + 2 : start + 4], "big")]
    scan = plain.index(b"\xff\xda")
    return plain[:scan] + segment + plain[scan:]


def test_upright_exif_is_fine_and_everything_out_of_the_ordinary_is_left_to_pillow() -> None:
    assert read_header(with_orientation(1)) is not None
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    strange = [
        with_orientation(6),
        encode(photograph(64, 48), xmp=xmp),
        encode(photograph(64, 48).convert("CMYK")),
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe1\x00\x08Exif\0\0",
        encode(photograph(64, 48))[:150],
        encode(photograph(64, 48))[:-2],
        exif_after_frame(),
        b"\x89PNG\r\n",
    ]
    assert [read_header(data) for data in strange] == [None] * len(strange)


@pytest.mark.parametrize("kind", ["4:2:0", "progressive", "rotated", "PNG"])
def test_a_sample_is_the_same_whether_drawn_from_the_file_or_from_its_pixels(kind: str) -> None:
    image = photograph(500, 375, seed=4)
    data = with_orientation(6) if kind == "rotated" else encode(image, **KINDS.get(kind, {}))
    if kind == "PNG":
        data = encode(image, "PNG")
    pixels = decode_rgb(data)
    # Of the last two the whole image is decoded each time, in the same way.
    for index in range(15 if kind in ("rotated", "PNG") else 60):
        generators = [numpy_generator(1, "sampling", 0, index) for _ in range(2)]
        from_file = draw_sample_from(data, 224, Sampling(), generators[0])
        assert np.array_equal(from_file, draw_sample(pixels, 224, Sampling(), generators[1]))
        assert generators[0].random() == generators[1].random()


def test_a_truncated_file_is_refused_when_the_sample_needs_what_is_missing() -> None:
    data = encode(photograph(500, 375))
    everything = Sampling((1.0, 1.0), (4 / 3, 4 / 3))
    with pytest.raises(ImageDecodeError, match="truncated"):
        draw_sample_from(data[: len(data) // 2], 224, everything, numpy_generator(0, "sampling", 0))


def test_what_only_pillow_can_decode_is_sampled_from_what_pillow_sees() -> None:
    data = bytearray(encode(photograph(500, 375)))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)  # damage; Pillow decodes what it can
    whole = Sampling((1.0, 1.0), (4 / 3, 4 / 3))
    ours = draw_sample_from(bytes(data), 224, whole, numpy_generator(0, "sampling", 0))
    assert np.array_equal(ours, draw_sample(decode_rgb(bytes(data)), 224, whole, numpy_generator(0, "sampling", 0)))


def high_frequencies(sample: np.ndarray) -> float:
    return float(np.abs(np.diff(sample.astype(float), axis=1)).mean())


@cache
def large_photograph() -> tuple[bytes, np.ndarray]:
    """A file, and its pixels from a full decode."""
    data = encode(photograph(1600, 1200, seed=7), quality=90)
    return data, decode_rgb(data)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_samples_of_large_photographs_have_the_same_statistics(
    interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data, pixels), sampling, factors = large_photograph(), Sampling(interpolations=(interpolation,)), []
    monkeypatch.setattr(augment, "decode_factor", lambda r: factors.append(decode_factor(r)) or factors[-1])
    samples: list[tuple[np.ndarray, np.ndarray]] = []
    for index in range(80 if interpolation == "area" else 20):
        keys = [numpy_generator(2, "sampling", 0, index) for _ in range(2)]
        samples.append((draw_sample_from(data, 96, sampling, keys[0]), draw_sample(pixels, 96, sampling, keys[1])))
    if interpolation != "area":  # these pick single pixels of the full-size image: bit-identical
        assert not factors
        assert all(np.array_equal(ours, plain) for ours, plain in samples)
        return
    assert {2, 4} <= set(factors)
    differences = [np.abs(ours.astype(float) - plain).mean() for ours, plain in samples]
    assert max(differences) < 3  # of 255
    assert np.mean(differences) < 1.5
    for statistic in (np.mean, np.std, high_frequencies):
        ours, plain = (np.array([statistic(pair[side]) for pair in samples]) for side in (0, 1))
        assert abs(ours.mean() / plain.mean() - 1) < 0.02, statistic
        assert np.corrcoef(ours, plain)[0, 1] > 0.99, statistic


def test_coarser_decoding_never_leaves_less_than_twice_the_crop() -> None:
    for index in range(300):
        patch = draw_patch(4000, 3000, Sampling(), numpy_generator(0, "sampling", index))
        side = min(patch.width, patch.height)
        factor = decode_factor(side / 224)
        assert factor == 1 or side / factor >= 2 * 224
        assert factor == 8 or side / (2 * factor) < 2 * 224
