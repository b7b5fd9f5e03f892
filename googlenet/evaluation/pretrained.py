"""Exported ensembles: a folder with a description and one file of weights for each replica."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from googlenet.evaluation.kept_budget import NAME as BUDGET
from googlenet.evaluation.kept_budget import KeptBudget
from googlenet.evaluation.kept_calibration import NAME as CALIBRATION
from googlenet.evaluation.kept_calibration import KeptCalibration
from googlenet.network.hub import fetch_snapshot, is_hub_name, parse_hub_name
from googlenet.network.weights import WeightsError

# The name by which Hugging Face counts downloads.
DESCRIPTION = "config.json"
FORMAT = "googlenet-ensemble-1"
T = TypeVar("T", KeptBudget, KeptCalibration)


def description(replicas: Sequence[str], classes: Sequence[str], crop_px: int) -> dict[str, Any]:
    """Return the content of the file :data:`DESCRIPTION`; ``replicas`` are names of files beside it, in order."""
    return {"format": FORMAT, "replicas": list(replicas), "classes": list(classes), "crop_px": crop_px}


def local_folder(place: str | Path) -> Path:
    """Return the folder of an exported ensemble: ``place`` itself, or the downloaded files of ``hf://OWNER/REPO``.

    Raises:
        HubError: the repository cannot be had.
        WeightsError: ``place`` names a file of a repository.
    """
    name = str(place)
    if not is_hub_name(name):
        return Path(place).expanduser()
    if parse_hub_name(name).path_in_repo:
        raise WeightsError(f"{name}: an exported ensemble is a whole repository; leave the file out")
    return fetch_snapshot(name, [DESCRIPTION, CALIBRATION, BUDGET, "*.safetensors"])


def weight_files(folder: Path) -> list[Path]:
    """Return the replicas' files of an exported ensemble, in order.

    Raises:
        FileNotFoundError: the folder does not exist, or holds no exported ensemble.
        WeightsError: its description cannot be used.
    """
    file = folder / DESCRIPTION
    if not file.is_file():
        raise FileNotFoundError(
            f"no exported ensemble in {folder}: {DESCRIPTION} is missing; export_ensemble.py makes one from a run"
        )
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
        if described["format"] != FORMAT:
            raise WeightsError(f"{file}: unknown format {described['format']!r}, expected {FORMAT}")
        names = [str(name) for name in described["replicas"]]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise WeightsError(f"{file} does not describe an exported ensemble: {error!r}") from error
    if not names:
        raise WeightsError(f"{file} names no replicas")
    # The description may come from somebody else, and must not make us read other files.
    if strangers := [name for name in names if Path(name).name != name]:
        raise WeightsError(f"{file}: {strangers[0]!r} is not a file beside it")
    return [folder / name for name in names]


def calibration_of(files: Sequence[Path], digests: Sequence[str]) -> KeptCalibration | None:
    """Return the calibration kept for these weights, beside the first file or in its run directory.

    Of some of the replicas that it was kept for, there are temperatures, but no sets.

    Raises:
        WeightsError: the file cannot be read as one.
    """
    kept = _kept(files, CALIBRATION, KeptCalibration.from_dict, "probabilities are as averaged")
    return kept.for_weights(digests) if kept else None


def budget_of(files: Sequence[Path], digests: Sequence[str]) -> KeptBudget | None:
    """Return the order of the views and the cascade kept for exactly these weights, found as the calibration is."""
    kept = _kept(files, BUDGET, KeptBudget.from_dict, "there are no budgets")
    return kept if kept and kept.weights_digests == tuple(digests) else None


def _kept(files: Sequence[Path], name: str, read: Callable[[dict[str, Any]], T], without: str) -> T | None:
    # replicas/<k>/weights.safetensors of a run; or all files in one folder.
    for folder in files[0].absolute().parents[:3] if files else ():
        file = folder / name
        if not file.is_file():
            continue
        try:
            return read(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError) as error:
            raise WeightsError(f"{file} is damaged: delete it, and {without} ({error})") from error
    return None
