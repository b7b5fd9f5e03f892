"""Claims: an ensemble is loaded from the weight files of a run's replicas, and a file that does not belong is named."""

from pathlib import Path

import numpy as np
import pytest

from googlenet import Ensemble, GoogLeNet
from googlenet.images.decoding import ImageDecodeError
from googlenet.network.initialisation import initialise
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weights import Replica, WeightsError, to_safetensors
from googlenet.randomness import numpy_generator, torch_generator
from tests.picture_files import encode, photograph

CLASSES = ("apple", "pear", "plum")
CROP_PX = 35


def network(seed: int, classes: int = len(CLASSES)) -> GoogLeNet:
    model = GoogLeNet(classes, "bn", False, 0.05)
    initialise(model, "he", torch_generator(seed, "initial_weights"))
    return model.eval()


def write(path: Path, model: GoogLeNet, **extra: object) -> Path:
    path.write_bytes(to_safetensors(model, model.state_dict(), SCRATCH_PREPROCESSING, **extra))
    return path


def test_an_ensemble_is_loaded_from_the_files_of_its_replicas(tmp_path: Path) -> None:
    models = [network(seed) for seed in (0, 1)]
    paths = [
        write(tmp_path / f"{number}.safetensors", model, classes=CLASSES, crop_px=CROP_PX)
        for number, model in enumerate(models)
    ]
    pixels = numpy_generator(0, "sampling").integers(0, 256, (50, 44, 3)).astype(np.uint8)
    expected = Ensemble([Replica(model, SCRATCH_PREPROCESSING) for model in models], CLASSES, CROP_PX)
    loaded = Ensemble.load(paths)
    np.testing.assert_array_equal(loaded.probabilities(pixels, 10), expected.probabilities(pixels, 10))
    assert loaded.answers(pixels, 1)["answer_1"] in CLASSES


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ({}, "it does not name its 'classes'"),
        ({"classes": ("plum", "pear", "apple"), "crop_px": CROP_PX}, "not those of the first file"),
        ({"classes": CLASSES, "crop_px": 42}, "not those of the first file"),
    ],
)
def test_a_file_that_does_not_belong_is_named(tmp_path: Path, extra: dict[str, object], problem: str) -> None:
    first = write(tmp_path / "first.safetensors", network(0), classes=CLASSES, crop_px=CROP_PX)
    second = write(tmp_path / "second.safetensors", network(1), **extra)
    with pytest.raises(WeightsError, match=f"second.safetensors: .*{problem}"):
        Ensemble.load([first, second])


def test_the_bytes_of_a_file_are_answered_like_its_pixels_unless_pixels_are_missing() -> None:
    ensemble = Ensemble([Replica(network(0), SCRATCH_PREPROCESSING)], CLASSES, CROP_PX)
    photo = photograph(50, 44)
    np.testing.assert_array_equal(
        ensemble.probabilities(encode(photo, "PNG"), 1), ensemble.probabilities(np.asarray(photo), 1)
    )
    data = encode(photo)
    with pytest.raises(ImageDecodeError, match="missing"):
        ensemble.probabilities(data[: len(data) * 3 // 4] + b"\xff\xd9", 1)


def test_no_files_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one replica"):
        Ensemble.load([])
