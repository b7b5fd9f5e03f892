"""Claims: an ensemble is loaded from the weight files of a run's replicas, and a file that does not belong is named."""

import gc
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from googlenet import Ensemble, GoogLeNet, load_weights
from googlenet.evaluation.cascade import Stop, stages_of
from googlenet.evaluation.crops import chosen_policy
from googlenet.evaluation.kept_budget import KeptBudget
from googlenet.evaluation.kept_calibration import KeptCalibration
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
        ({"classes": CLASSES, "crop_px": "large"}, r"its classes or its crop size cannot be used \(.*'large'"),
        ({"classes": CLASSES, "crop_px": None}, "its classes or its crop size cannot be used"),
        ({"classes": 3, "crop_px": CROP_PX}, "its classes or its crop size cannot be used"),
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


def run_with(folder: Path, seeds: tuple[int, ...]) -> list[Path]:
    """Write a run's replicas, its calibration and its budget; return the files of weights."""
    paths = []
    for number, seed in enumerate(seeds):
        (folder / f"replicas/{number}").mkdir(parents=True)
        path = folder / f"replicas/{number}/weights.safetensors"
        paths.append(write(path, network(seed), classes=CLASSES, crop_px=CROP_PX))
    digests = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    policies, stages = {"144": 2.0}, stages_of(len(seeds), 144)
    calibration = KeptCalibration(digests, "data", 50, policies, policies, {"144": [0.1] * 50}, {"144": [0] * 50})
    order, ones = tuple(range(144)), (1.0,) * len(stages)
    budget = KeptBudget(digests, "data", 50, order, stages, ones, (1.0,) * 144, {"fast": Stop(0.0, 0)})
    (folder / "calibration.json").write_text(json.dumps(calibration.to_dict()))
    (folder / "budget.json").write_text(json.dumps(budget.to_dict()))
    return paths


def test_what_a_run_keeps_for_its_replicas_does_not_depend_on_the_order_of_the_files(tmp_path: Path) -> None:
    paths, photo = run_with(tmp_path, (0, 1)), photograph(50, 44)
    ensemble, turned = Ensemble.load(paths), Ensemble.load(paths[::-1])
    assert turned.answers(photo, budget="fast") == ensemble.answers(photo, budget="fast")
    assert turned.answers(photo, coverage=0.9)["set"] == ensemble.answers(photo, coverage=0.9)["set"]
    with pytest.raises(ValueError, match=r"a coverage of 0\.99 needs 99 validation images or more, .* has 50"):
        ensemble.answers(photo, coverage=0.99)
    np.testing.assert_array_equal(turned.probabilities(photo, 1), ensemble.probabilities(photo, 1)[::-1])
    assert Ensemble.load(paths[:1]).budget is None


@pytest.mark.parametrize("place", [".", "replicas/0", "..", "replicas"])
def test_files_of_other_programs_around_the_weights_are_left_alone(tmp_path: Path, place: str) -> None:
    [path] = run_with(tmp_path / "run", (0,))
    for name in ("calibration.json", "budget.json"):
        (tmp_path / "run" / name).unlink()
        (tmp_path / "run" / place / name).write_text('{"rent": 700}')
    ensemble = Ensemble.load([path])
    assert (ensemble.calibration, ensemble.budget) == (None, None)


def test_a_calibration_far_from_the_weights_is_of_something_else(tmp_path: Path) -> None:
    run_with(tmp_path, (0,))
    (tmp_path / "a/b").mkdir(parents=True)
    alone = shutil.copy(tmp_path / "replicas/0/weights.safetensors", tmp_path / "a/b/weights.safetensors")
    assert Ensemble.load([alone]).calibration is None
    (tmp_path / "a/b/calibration.json").write_text('{"weights_digests": ')
    with pytest.raises(WeightsError, match=r"a/b/calibration.json is damaged: delete it"):
        Ensemble.load([alone])


def test_one_path_is_an_ensemble_of_one_also_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.safetensors", network(0), classes=CLASSES, crop_px=CROP_PX)
    monkeypatch.setenv("HOME", str(tmp_path))
    photo = photograph(50, 44)
    expected = Ensemble.load([path]).probabilities(photo, 1)
    for one in (path, str(path), "~/x.safetensors", ["~/x.safetensors"]):
        np.testing.assert_array_equal(Ensemble.load(one).probabilities(photo, 1), expected)
    assert load_weights("~/x.safetensors").model.num_classes == len(CLASSES)


@pytest.mark.parametrize("names", [("apple", "pear"), ("background", *CLASSES)])
def test_another_number_of_names_than_outputs_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"has 3 outputs, but there are {len(names)} names of classes"):
        Ensemble([Replica(network(0), SCRATCH_PREPROCESSING)], names, CROP_PX)
    path = write(tmp_path / "x.safetensors", network(0), classes=names, crop_px=CROP_PX)
    with pytest.raises(WeightsError, match=rf"x.safetensors: it names {len(names)} classes, but has 3 outputs"):
        Ensemble.load([path])


@pytest.mark.usefixtures("unchecked_types")
def test_a_crop_that_is_written_with_a_decimal_point_is_the_same_and_spoils_no_other_ensemble() -> None:
    members, photo = [Replica(network(0), SCRATCH_PREPROCESSING)], photograph(50, 44)
    written = Ensemble(members, CLASSES, 49.0).probabilities(photo, 1)  # type: ignore[arg-type]
    np.testing.assert_array_equal(Ensemble(members, CLASSES, 49).probabilities(photo, 1), written)
    for nonsense in (-7, 0, 50, 49.5):
        with pytest.raises(ValueError, match="crop_px must be a positive multiple of 7"):
            Ensemble(members, CLASSES, nonsense)  # type: ignore[arg-type]


def test_a_replica_whose_outputs_are_no_numbers_is_named_in_place_of_an_answer() -> None:
    broken = network(1)
    broken.classifier.weight.data.fill_(float("nan"))
    members = [Replica(model, SCRATCH_PREPROCESSING) for model in (network(0), broken)]
    with pytest.raises(ValueError, match=r"^replica 1 \(counted from 0\) returned .* not finite: .*load them"):
        Ensemble(members, CLASSES, CROP_PX).answers(photograph(50, 44), 1)


def test_all_policies_share_the_networks_in_memory() -> None:
    ensemble, photo = Ensemble([Replica(network(0), SCRATCH_PREPROCESSING)], CLASSES, CROP_PX), photograph(50, 44)

    def networks() -> int:
        gc.collect()
        return sum(isinstance(thing, GoogLeNet) for thing in gc.get_objects())

    ensemble.probabilities(photo, 1)
    before = networks()
    for policy in (10, "40", "40+45", chosen_policy([3, 5])):
        ensemble.probabilities(photo, policy)
    assert networks() == before


def test_a_folder_is_refused_with_the_way_to_its_files(tmp_path: Path) -> None:
    paths = run_with(tmp_path, (0,))
    with pytest.raises(
        WeightsError, match=r"is a folder: give the files of weights in it, .* Ensemble\.from_pretrained$"
    ):
        Ensemble.load(tmp_path)
    assert sorted(tmp_path.glob("replicas/*/weights.safetensors")) == paths  # as the message says


def test_a_file_with_a_crop_size_that_has_no_views_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    model = network(0)
    path.write_bytes(to_safetensors(model, model.state_dict(), SCRATCH_PREPROCESSING, classes=CLASSES, crop_px=50))
    with pytest.raises(WeightsError, match=r"mine\.safetensors: .* crop size cannot be used .*multiple of 7"):
        Ensemble.load(path)


def test_no_files_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one replica"):
        Ensemble.load([])


def test_a_name_on_the_hub_is_no_path() -> None:
    with pytest.raises(WeightsError, match=r"^hf://me/net is a name on Hugging Face: .*Ensemble\.from_pretrained"):
        Ensemble.load("hf://me/net")
    for name in ("bvlc", "torchvision:googlenet"):
        with pytest.raises(WeightsError, match=rf"^{name} is the name of published weights, .*load_weights\('{name}'"):
            Ensemble.load(name)


def test_a_network_whose_classifier_was_replaced_has_the_outputs_of_the_new_one() -> None:
    replaced = network(0)
    replaced.classifier = torch.nn.Linear(replaced.classifier.in_features, 5)  # type: ignore[arg-type]
    loaded = Replica(replaced, SCRATCH_PREPROCESSING)
    assert Ensemble([loaded], tuple("abcde"), 35).classes == tuple("abcde")
    with pytest.raises(ValueError, match="replica 0 has 5 outputs, but there are 2 names"):
        Ensemble([loaded], ("a", "b"), 35)


def test_programs_may_have_another_default_device() -> None:
    ensemble, picture = Ensemble([Replica(network(0), SCRATCH_PREPROCESSING)], CLASSES, 35), np.full((40, 50), 9)
    expected = ensemble.probabilities(picture, 1)
    torch.set_default_device("meta")
    try:
        np.testing.assert_array_equal(ensemble.probabilities(picture, 1), expected)
    finally:
        torch.set_default_device(None)
