"""The calibration that lies beside weights from other sources, such as those of an exported ensemble."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from googlenet.evaluation.crops import Policy, short_policy
from googlenet.evaluation.kept_calibration import DIGESTS, KeptCalibration
from googlenet.images.rereading import read_again
from googlenet.network.hub import HubError, fetch_snapshot, is_hub_name, parse_hub_name
from googlenet.network.published import is_weights_name
from pipelines.errors import UserError
from pipelines.job.console import say
from pipelines.run.directory import CALIBRATION, MANIFEST, REPLICAS, RUN, read_run
from pipelines.run.predictions import sorted_policies
from pipelines.run.published_files import WEB_SCHEMES
from pipelines.run.storage import Storage

ACCESS_DENIED = "ACCESS_DENIED"


def calibration_beside(weights: str, digests: Sequence[str], policies: Sequence[Policy]) -> KeptCalibration | None:
    """Return the calibration of these weights, from where ``Ensemble.load`` takes it; None if there is none.

    A line says if the answers, which have the largest of ``policies``, get no temperature.

    Args:
        weights: path or name of the first file; the calibration is beside it, or in its run directory.
        digests: SHA-256 of each file.
        policies: crop policies of the evaluation.

    Raises:
        UserError: the file is damaged, or the repository cannot be had.
    """
    kept, largest = _kept_for(weights, digests), sorted_policies(policies)[-1]
    if not (kept and kept.temperature(len(digests), largest)):
        none = f"has no temperature for the crop policy {short_policy(largest)}"
        missing = none if kept else "for these weights was not found beside them"
        say(f"the probabilities will not be calibrated: {CALIBRATION} {missing}")
    return kept


def _kept_for(weights: str, digests: Sequence[str]) -> KeptCalibration | None:
    for folder in _folders_of(weights):
        if not folder.has_file(CALIBRATION):
            continue
        try:
            content = read_again(partial(_content, folder), ValueError)
            if isinstance(content, dict) and DIGESTS in content:  # not another program's file of that name
                return KeptCalibration.from_dict(content).for_weights(digests)
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"{folder.below(CALIBRATION)} is damaged: delete it to go on with uncalibrated probabilities ({error})"
            ) from error
    return None


def _content(folder: Storage) -> Any:
    return json.loads(folder.read(CALIBRATION))


def _folders_of(weights: str) -> list[Storage]:
    """Return the folder of a file; and if that is replicas/<k> of a run, the run's."""
    if is_hub_name(weights):
        try:
            root = fetch_snapshot(weights, [f"*{CALIBRATION}"])
        except HubError as error:
            raise UserError(str(error)) from error
        weights = str(root / parse_hub_name(weights).path_in_repo)
    elif is_weights_name(weights):
        return []
    return _local_folders_of(weights)


def training_runs_of(weights: Sequence[str]) -> list[Storage]:
    """Return the training runs in whose folders files of weights are; names of published ones are in none."""
    # A web server may answer every address with a page.
    stored = [file for file in weights if not is_weights_name(file) and urlsplit(file).scheme not in WEB_SCHEMES]
    folders = dict.fromkeys(folder for file in stored for folder in _local_folders_of(file))
    return [run for run in folders if _is_training_run(run)]


def _is_training_run(run: Storage) -> bool:
    try:
        return run.exists(MANIFEST) and run.exists(RUN) and "recipe" in read_run(run)
    except OSError as error:
        if ACCESS_DENIED not in str(error):
            raise
        return False  # a store tells only those who may list it that an object is missing


def _local_folders_of(weights: str) -> list[Storage]:
    folder, _ = Storage.of_file(weights)
    above, _ = Storage.of_file(folder.root)
    run, name = Storage.of_file(above.root)
    return [folder, run] if name == REPLICAS else [folder]
