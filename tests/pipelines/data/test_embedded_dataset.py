"""The embedded data set: deterministic, disjoint, of mixed shapes."""

import io
from collections import Counter

from PIL import Image

from pipelines.data.embedded_dataset import CLASSES, IMAGES_PER_CLASS, _digits, generate, image_ids


def test_a_sample_is_a_function_of_its_id_and_the_seed() -> None:
    name = image_ids("val")[17]
    assert generate(name, 0) == generate(name, 0)
    assert generate(name, 0) != generate(name, 1)


def test_training_and_validation_show_different_digits() -> None:
    train, val = ({d.tobytes() for digits in _digits(split, 0) for d in digits} for split in ("train", "val"))
    assert len(train) == 10 * IMAGES_PER_CLASS["train"]
    assert len(val) == 10 * IMAGES_PER_CLASS["val"]
    assert not train & val


def test_the_set_is_balanced_and_mostly_not_square() -> None:
    ids = image_ids("train")
    assert Counter(name.split("/")[1] for name in ids) == dict.fromkeys(CLASSES, 150)
    sizes = [Image.open(io.BytesIO(generate(name, 0))).size for name in ids[::15]]
    shapes = Counter("square" if w == h else "portrait" if h > w else "landscape" for w, h in sizes)
    assert len(sizes) == shapes.total()
    assert shapes["square"] >= 3
    assert shapes["portrait"] >= 15
    assert shapes["landscape"] > shapes["square"]
    assert len(set(sizes)) > 50
