"""Exported ensembles: a folder with a description and one file of weights for each replica."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from googlenet.evaluation.crops import scales_px
from googlenet.evaluation.kept_budget import BUDGET_JSON, KeptBudget
from googlenet.evaluation.kept_calibration import CALIBRATION_JSON, DIGESTS, KeptCalibration
from googlenet.network.hub import fetch_snapshot, is_hub_name, name_of_page, parse_hub_name
from googlenet.network.published import is_weights_name
from googlenet.network.weight_files import local_path
from googlenet.network.weights import WeightsError

# The name by which Hugging Face counts downloads.
DESCRIPTION = "config.json"
FORMAT = "googlenet-ensemble-1"
T = TypeVar("T", KeptBudget, KeptCalibration)


@dataclass(frozen=True)
class ExportedEnsemble:
    """What the description of an exported ensemble says.

    Attributes:
        file: the description.
        files: the replicas' files, in order.
        classes: class names by label.
        crop_px: side of the networks' input.
        weights_digests: SHA-256 of the files by name; empty in exports of earlier versions.
    """

    file: Path
    files: tuple[Path, ...]
    classes: tuple[str, ...]
    crop_px: int
    weights_digests: Mapping[str, str]

    def check(self, classes: Sequence[str], crop_px: int) -> None:
        """Check that the files are those that were exported; ``classes`` and ``crop_px`` are theirs.

        Raises:
            WeightsError: they are not, or the description was changed.
        """
        if (self.classes, self.crop_px) != (tuple(classes), crop_px):
            raise WeightsError(
                f"{self.file} was changed: its classes or its crop size are not those of the weights, which decide; "
                f"export the run again, or restore the file"
            )
        for path in self.files if self.weights_digests else ():
            if hashlib.sha256(path.read_bytes()).hexdigest() != self.weights_digests.get(path.name):
                raise WeightsError(
                    f"{path} is not the file that was exported: its SHA-256 is not that in {DESCRIPTION}; "
                    f"copy or download it again"
                )


def description(
    replicas: Sequence[str], classes: Sequence[str], crop_px: int, weights_digests: Sequence[str]
) -> dict[str, Any]:
    """Return the content of the file :data:`DESCRIPTION`; ``replicas`` are names of files beside it, in order."""
    return {
        "format": FORMAT,
        "replicas": list(replicas),
        "classes": list(classes),
        "crop_px": crop_px,
        DIGESTS: dict(zip(replicas, weights_digests, strict=True)),
    }


def local_folder(place: str | Path) -> Path:
    """Return the folder of an exported ensemble: ``place`` itself, or the downloaded files of ``hf://OWNER/REPO``.

    Raises:
        HubError: the repository cannot be had.
        WeightsError: ``place`` names a file of a repository, or a page of Hugging Face.
    """
    name = str(place)
    if page := name_of_page(name):
        raise WeightsError(f"{name} is a page of Hugging Face; give the repository by its name: {page}")
    if not is_hub_name(name):
        return local_path(place)
    if parse_hub_name(name).path_in_repo:
        raise WeightsError(f"{name}: an exported ensemble is a whole repository; leave the file out")
    return fetch_snapshot(name, [DESCRIPTION, CALIBRATION_JSON, BUDGET_JSON, "*.safetensors"])


def read_description(folder: Path) -> ExportedEnsemble:
    """Return what the description in the folder of an exported ensemble says.

    Raises:
        FileNotFoundError: the folder does not exist, or holds no exported ensemble.
        WeightsError: its description cannot be used.
    """
    file = folder / DESCRIPTION
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; a repository on Hugging Face is named hf://OWNER/REPO")
    if not file.is_file():
        raise FileNotFoundError(
            f"no exported ensemble in {folder}: {DESCRIPTION} is missing; export_ensemble.py makes one from a run"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        kind, names = content["format"], content["replicas"]
        classes, crop_px = tuple(content.get("classes", ())), int(content.get("crop_px", 0))
        digests = dict(content.get(DIGESTS, {}))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{file} does not describe an exported ensemble: {error!r}") from error
    if kind != FORMAT:
        raise WeightsError(f"{file}: unknown format {kind!r}, expected {FORMAT}")
    if not isinstance(names, list) or not names:
        raise WeightsError(f"{file} names no replicas")
    # The description may come from somebody else, and must not make us read other files.
    if strangers := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise WeightsError(f"{file}: {strangers[0]!r} is not a file beside it")
    return ExportedEnsemble(file, tuple(folder / name for name in names), classes, crop_px, digests)


def refuse_names(places: Sequence[str | Path]) -> None:
    """Refuse names on Hugging Face, and of other published weights, in the place of files.

    Raises:
        WeightsError: one of ``places`` is such a name.
    """
    for place in places:
        if is_hub_name(str(place)):
            raise WeightsError(
                f"{place} is a name on Hugging Face: load an exported ensemble with Ensemble.from_pretrained, or one "
                "network with load_weights"
            )
        if is_weights_name(str(place)):
            raise WeightsError(
                f"{place} is the name of published weights, which do not name their classes: give them with "
                f"Ensemble([load_weights('{place}')], classes, crop_px=224)"
            )


def refuse_folder(path: Path) -> None:
    """Refuse a folder in the place of a file of weights.

    Raises:
        WeightsError: it is one.
    """
    if path.is_dir():
        raise WeightsError(
            f"{path} is a folder: give the files of weights in it, such as "
            f"sorted(Path('{path}').glob('replicas/*/weights.safetensors')), or load an exported ensemble with "
            "Ensemble.from_pretrained"
        )


def classes_and_crop(extra: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    """Return the names of the classes and the side of the crops in the metadata of a file of weights.

    Raises:
        WeightsError: it lacks one, or has something else.
    """
    try:
        classes, crop_px = tuple(extra["classes"]), int(extra["crop_px"])
        scales_px(crop_px)
    except KeyError as error:
        raise WeightsError(
            f"it does not name its {error}; files of a run do, and those of save_weights(..., classes=..., crop_px=...)"
        ) from error
    except (TypeError, ValueError) as error:
        raise WeightsError(f"its classes or its crop size cannot be used ({error})") from error
    return classes, crop_px


def calibration_of(files: Sequence[Path], digests: Sequence[str]) -> KeptCalibration | None:
    """Return the calibration kept for these weights, beside the first file or in its run directory.

    Of some of the replicas that it was kept for, there are temperatures, but no sets.

    Raises:
        WeightsError: the file cannot be read as one.
    """
    kept = _kept(files, CALIBRATION_JSON, KeptCalibration.from_dict, "with uncalibrated probabilities")
    return kept.for_weights(digests) if kept else None


def budget_of(files: Sequence[Path], digests: Sequence[str]) -> KeptBudget | None:
    """Return the order of the views and the cascade kept for exactly these weights, found as the calibration is."""
    kept = _kept(files, BUDGET_JSON, KeptBudget.from_dict, "without budgets")
    return kept if kept and kept.order_of(digests) else None


def _kept(files: Sequence[Path], name: str, read: Callable[[dict[str, Any]], T], without: str) -> T | None:
    for folder in _folders_of(files):
        file = folder / name
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(content, dict) and DIGESTS in content:  # not another program's file of that name
                return read(content)
        except (ValueError, TypeError, KeyError) as error:
            raise WeightsError(f"{file} is damaged: delete it to continue {without} ({error})") from error
    return None


def _folders_of(files: Sequence[Path]) -> list[Path]:
    """Return the folder of the first file; and if that is replicas/<k> of a run, the run's."""
    if not files:
        return []
    folder = files[0].absolute().parent
    return [folder, folder.parent.parent] if folder.parent.name == "replicas" else [folder]
