"""The embedded data set: deterministic, disjoint, of mixed shapes."""

import io
from collections import Counter

import numpy as np
from PIL import Image

from googlenet.randomness import numpy_generator
from pipelines.data.embedded_dataset import (
    CLASSES,
    IMAGES_PER_CLASS,
    MIN_CONTRAST_LEVELS,
    _digits,
    _partly_hidden,
    generate,
    image_ids,
)


def test_a_sample_is_a_function_of_its_id_and_the_seed() -> None:
    name = image_ids("val")[17]
    assert generate(name, 0) == generate(name, 0)
    assert generate(name, 0) != generate(name, 1)


def test_training_and_validation_show_different_digits() -> None:
    train, val = ({d.tobytes() for digits in _digits(split, 0) for d in digits} for split in ("train", "val"))
    assert len(train) == 10 * IMAGES_PER_CLASS["train"]
    assert len(val) == 10 * IMAGES_PER_CLASS["val"]
    assert not train & val


def test_the_set_is_balanced_and_of_mixed_shapes() -> None:
    ids = image_ids("train")
    assert Counter(name.split("/")[1] for name in ids) == dict.fromkeys(CLASSES, IMAGES_PER_CLASS["train"])
    sizes = [Image.open(io.BytesIO(generate(name, 0))).size for name in ids[::15]]
    shapes = Counter("square" if w == h else "portrait" if h > w else "landscape" for w, h in sizes)
    assert min(shapes["square"], shapes["portrait"], shapes["landscape"]) >= len(sizes) / 10
    assert len(set(sizes)) > 50


def test_the_centre_crop_shows_the_digit_whole_and_the_background_is_a_photograph() -> None:
    levels = []
    for name in image_ids("train")[::60]:
        pixels = np.asarray(Image.open(io.BytesIO(generate(name, 0))).convert("L"), dtype=np.float64)
        height, width = pixels.shape
        rows, columns = np.nonzero(pixels > pixels.max() - MIN_CONTRAST_LEVELS / 2)
        side = 7 / 8 * min(width, height)
        assert np.ptp(rows) < side
        assert np.ptp(columns) < side
        assert abs(rows.mean() - height / 2) < 0.2 * height
        assert abs(columns.mean() - width / 2) < 0.2 * width
        levels.append(len(np.unique(pixels[: height // 8])))
    assert np.median(levels) > 8  # some show sky


def test_a_tenth_of_the_digits_is_hidden_by_a_third_to_a_half_from_any_edge() -> None:
    generator = numpy_generator(0, "embedded_dataset")
    parts = [_partly_hidden(np.ones((40, 40, 1)), generator)[..., 0] for _ in range(1000)]
    hidden = [part for part in parts if not part.all()]
    assert 70 < len(hidden) < 130
    assert all(0.3 <= (part == 0).mean() <= 0.5 for part in hidden)
    edges = Counter(edge for part in hidden for edge in range(4) if not np.rot90(part, edge)[0].any())
    assert set(edges) == {0, 1, 2, 3}
