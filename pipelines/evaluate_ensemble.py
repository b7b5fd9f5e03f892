"""Stage 3: every view of every validation image through every replica, sharded over the cluster with Ray Data.

    python pipelines/evaluate_ensemble.py --run-dir RUN
    python pipelines/evaluate_ensemble.py --run-dir RUN --data PHOTOS
    python pipelines/evaluate_ensemble.py --run-dir NEW --data PHOTOS --weights FILE FILE [--classes FILE]

A shard whose predictions are there is not done again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from googlenet.crops import CROP_POLICIES, scales_px
from googlenet.weights import StoredNetwork, WeightsError, to_safetensors
from pipelines.command_line import absolute_data, parse, run_command
from pipelines.dataset import Manifest, read_manifest
from pipelines.errors import UserError
from pipelines.image_folder import list_evaluation_folder
from pipelines.initial_weights import read_file
from pipelines.predictions import Ensemble
from pipelines.prepare_dataset import BadImages, prepare_for_evaluation
from pipelines.progress import say
from pipelines.ray_session import connected, native_errors_in
from pipelines.recipes import Recipe, check_policies
from pipelines.report import write_report
from pipelines.run_directory import ReplicaFiles, claim, finished_replicas, read_recipe, replica_name
from pipelines.sharded_prediction import PredictionJob, predict
from pipelines.storage import Storage

DEFAULT_CROP_PX = 224


def evaluate_run(run: Storage, recipe: Recipe) -> str:
    """Evaluate the finished replicas of a training run on its validation images, and report; the table as text."""
    manifest = read_manifest(run)
    replicas = finished_replicas(run, recipe.replicas)
    return _evaluate(run, run, replicas, manifest, recipe.policies, recipe.crop_px)


def _evaluate(
    run: Storage, trained: Storage, replicas: Sequence[int], manifest: Manifest, policies: Sequence[int], crop_px: int
) -> str:
    """Predict what is not predicted yet, and report. Needs a connection to a Ray cluster."""
    if not replicas:
        raise UserError(f"no replica of {trained} is finished; run train_ensemble.py on it again")
    weights = [trained.read(ReplicaFiles(replica).weights) for replica in replicas]
    ensemble = Ensemble(
        replicas=tuple(replica_name(replica) for replica in replicas),
        weights_digests=tuple(hashlib.sha256(data).hexdigest() for data in weights),
        policies=tuple(sorted(policies)),
        crop_px=crop_px,
        classes=manifest.classes,
        dataset_digest=manifest.digest,
    )
    predict(PredictionJob(run, trained, tuple(replicas), ensemble), manifest.splits["val"].images)
    return write_report(run, ensemble)


@dataclass(frozen=True)
class Arguments:
    """Evaluate an ensemble with 1, 10 and 144 crops, and write its report."""

    run_dir: str
    """Run directory: of a training run, or with --weights a new one for this evaluation."""
    data: str = ""
    """Labelled image folder (val/<class>/* or <class>/*); the default is the run's own validation images."""
    weights: tuple[str, ...] = ()
    """Files of weights from elsewhere: .npz (Caffe), .pth (torchvision) or .safetensors, one for each model."""
    classes: str = ""
    """File with one class folder's name a line, in the model's order; may hold more than the data has."""
    policies: tuple[int, ...] = CROP_POLICIES
    """Numbers of crops, among 1, 10 and 144; without --data the run's recipe decides."""
    crop_px: int | None = None
    """Side of the network's input for --weights; the default is what the files say of themselves, or 224."""
    bad_images: BadImages = "stop"
    """What to do about files that cannot be decoded."""


def evaluate_weights(arguments: Arguments) -> str:
    """Evaluate weights from elsewhere in a run directory of their own; the table as text.

    Raises:
        UserError: a file of weights, the classes or the images cannot be used.
    """
    run, data = Storage.at(arguments.run_dir), absolute_data(arguments.data)
    if not data:
        raise UserError("--weights needs --data: the labelled images to evaluate them on")
    files = [read_file(Storage.at(path).root) for path in arguments.weights]
    networks = [stored for _, stored in files]
    crop_px = _agreed("crop_px", arguments.crop_px, networks) or DEFAULT_CROP_PX
    named = list(_read_classes(arguments.classes)) or None
    listing = list_evaluation_folder(Storage.at(data), tuple(_agreed("classes", named, networks) or ()))
    for path, stored in zip(arguments.weights, networks, strict=True):
        if stored.num_classes != len(listing.classes):
            raise UserError(
                f"{path} has {stored.num_classes} outputs, there are {len(listing.classes)} classes: "
                "name the model's classes in its order with --classes FILE"
            )
    settings = {
        "data": data,
        "weights": [hashlib.sha256(content).hexdigest() for content, _ in files],
        "classes": list(listing.classes),
        "policies": sorted(arguments.policies),
        "crop_px": crop_px,
    }
    claim(run, "evaluation", settings)
    manifest = prepare_for_evaluation(run, data, listing, arguments.bad_images)
    say(f"data: {manifest.summary()}")
    for replica, (path, stored) in enumerate(zip(arguments.weights, networks, strict=True)):
        _keep_weights(run, replica, path, stored)
    return _evaluate(run, run, range(len(networks)), manifest, arguments.policies, crop_px)


def _keep_weights(run: Storage, replica: int, path: str, stored: StoredNetwork) -> None:
    try:
        network = stored.build()
    except WeightsError as error:
        raise UserError(f"{path}: {error}") from error
    own = to_safetensors(network.model, network.model.state_dict(), network.preprocessing, source=Path(path).name)
    run.write(ReplicaFiles(replica).weights, own)


def _agreed(name: str, asked: Any, networks: Sequence[StoredNetwork]) -> Any:
    """What the command line and all files that say so agree on; None where nobody says anything.

    Raises:
        UserError: they differ, and averaging would mix what does not belong together.
    """
    said = [value for value in (asked, *(network.extra.get(name) for network in networks)) if value is not None]
    if any(value != said[0] for value in said):
        raise UserError(f"the files of weights (or --{name.replace('_', '-')}) differ in their {name}: {said}")
    return said[0] if said else None


def _read_classes(path: str) -> tuple[str, ...]:
    """The class names in a file, in the order of the model's outputs."""
    if not path:
        return ()
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"cannot read the classes in {path}: {error.strerror}") from error
    classes = tuple(line.strip() for line in lines if line.strip())
    if not classes:
        raise UserError(f"{path} names no class")
    if doubled := [name for name, count in Counter(classes).items() if count > 1]:
        raise UserError(f"{path} names class {doubled[0]} more than once")
    return classes


def evaluate_elsewhere(trained: Storage, recipe: Recipe, arguments: Arguments) -> str:
    """Evaluate a training run's replicas on other images than its own; the table as text."""
    data = absolute_data(arguments.data)
    # The folder's own name for people; a digest, so that evaluations of two such folders, or with other crops, coexist.
    key = json.dumps([data, sorted(arguments.policies)])
    name = f"{Path(data).name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    run = trained.below(f"evaluations/{name}")
    listing = list_evaluation_folder(Storage.at(data), read_manifest(trained).classes)
    manifest = prepare_for_evaluation(run, data, listing, arguments.bad_images)
    say(f"data: {manifest.summary()}")
    replicas = finished_replicas(trained, recipe.replicas)
    table = _evaluate(run, trained, replicas, manifest, arguments.policies, recipe.crop_px)
    return f"{table}\nreport: {run}/report/report.md"


def _main() -> None:
    arguments = parse(Arguments)
    _check(arguments)
    run = Storage.at(arguments.run_dir)
    recipe = None if arguments.weights else read_recipe(run)
    with native_errors_in(run), connected():
        if recipe is None:
            say(evaluate_weights(arguments))
        elif arguments.data:
            say(evaluate_elsewhere(run, recipe, arguments))
        else:
            say(evaluate_run(run, recipe))


def _check(arguments: Arguments) -> None:
    check_policies(arguments.policies)
    try:
        scales_px(arguments.crop_px or DEFAULT_CROP_PX)
    except ValueError as error:
        raise UserError(str(error)) from error
    if (arguments.classes or arguments.crop_px) and not arguments.weights:
        raise UserError("--classes and --crop-px go with --weights; a training run has its own")
    if arguments.policies != CROP_POLICIES and not arguments.data:
        raise UserError("--policies goes with --data; the recipe of the run decides for its own images")


if __name__ == "__main__":
    run_command(_main)
