"""A finished run as a folder for others: weights, recipe, report, model card, and what the run keeps for answers.

``googlenet.Ensemble.from_pretrained`` loads it from a disk or from Hugging Face.
"""

import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from googlenet.network.hub import HubError, hub_api, hub_endpoint, hub_errors, is_hub_name, name_of_page, parse_hub_name
from pipelines.errors import UserError
from pipelines.job.console import count, say, size, some
from pipelines.job.log import read_jobs
from pipelines.report.schema import Report
from pipelines.run.commands import command_of
from pipelines.run.dataset import read_manifest
from pipelines.run.directory import (
    BUDGET,
    CALIBRATION,
    COST_JSON,
    MANIFEST,
    REPORT_JSON,
    ReplicaFiles,
    read_recipe,
    replica_number,
)
from pipelines.run.recipe import Recipe
from pipelines.run.storage import PARTIAL, Storage
from pipelines.run.weights import read_replica

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD, RECIPE, REPORT = "README.md", "recipe.json", "report.json"
WEIGHTS_SUFFIX = ".safetensors"
# What an export, or Hugging Face for a new repository, puts there.
OWN_FILES = {
    CARD,
    RECIPE,
    REPORT,
    CALIBRATION,
    BUDGET,
    ".gitattributes",
    ".gitignore",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
}
OWN_WEIGHTS = re.compile(r"replica_\d+\.safetensors")
LICENSE_FIELDS = ("license", "license_name", "license_link")


def export_ensemble(run: Storage, output: str) -> str:
    """Export the replicas that the report of ``run`` is about; return where they are, in one line.

    Args:
        run: a finished run of train_ensemble.py.
        output: a folder that does not exist yet or is empty, or ``hf://OWNER/REPO``, to which everything is uploaded as
            one commit.

    Raises:
        UserError: the run is not finished, its report is of other weights, or ``output`` cannot be written.
    """
    if is_hub_name(output):
        _finished(run)  # what cannot be exported is refused before the network is asked
        try:
            return _export_to_hub(run, output)
        except HubError as error:
            raise UserError(str(error)) from error
    if page := name_of_page(output):
        raise UserError(f"--output must be a folder on this machine, or {page}, got {output}")
    if "://" in output or output.startswith(("hf:", "HF:")):
        raise UserError(f"--output must be a folder on this machine, or hf://OWNER/REPO, got {output}")
    folder = Path(os.path.expanduser(output))  # noqa: PTH111 - which leaves ~nobody as it is
    if str(folder).startswith("~"):
        raise UserError(f"--output {output}: there is no home folder of {folder.parts[0][1:]}")
    if not output or folder.resolve() == Path.cwd():
        raise UserError("--output must be a new folder, not the current one")
    try:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise UserError(f"{folder} exists; choose another --output, or remove it")
        with _renamed_when_complete(folder.resolve()) as partial:
            exported = _write(run, Storage.at(str(partial)), str(folder), {})
    except OSError as error:
        if not _is_of_output(error, folder.resolve()):  # it is the run that cannot be read
            raise
        raise UserError(f"{folder} cannot be written ({error.strerror}): choose another --output") from error
    return f"{folder}: {exported}"


def _is_of_output(error: OSError, folder: Path) -> bool:
    name = str(error.filename or error)
    return name == str(folder) or f"{folder}{PARTIAL}" in name or f"{folder}/" in name


def _export_to_hub(run: Storage, name: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    uri = parse_hub_name(name)
    if uri.type != "model" or uri.path_in_repo or uri.revision:
        raise UserError(f"--output must be a repository of a model, hf://OWNER/REPO, got {name}")
    api = hub_api()
    say(f"looking at {name} ...")
    with tempfile.TemporaryDirectory() as folder, hub_errors(name):
        present = api.list_repo_files(uri.id) if api.repo_exists(uri.id) else None
        _check_that_it_is_free(api, uri.id, present or ())
        license_fields = _license_of(api, uri.id) if CARD in (present or ()) else {}
        exported = _write(run, Storage.at(folder), name, license_fields)
        files = sorted(Path(folder).iterdir())
        stale = {file for file in present or () if OWN_WEIGHTS.fullmatch(file)} - {file.name for file in files}
        say(f"uploading to {name} ...")
        # Nothing is published by accident: making it public is one setting of the repository.
        api.create_repo(uri.id, private=True, exist_ok=True)
        changes = [
            *(CommitOperationAdd(file.name, file) for file in files),
            *(CommitOperationDelete(file) for file in sorted(stale)),
        ]
        api.create_commit(uri.id, changes, commit_message=f"Export of {exported}")
    note = "; the repository is new and private, its settings make it public" if present is None else ""
    return f"{hub_endpoint()}/{uri.id}: {exported}{note}"


def _check_that_it_is_free(api: "HfApi", repository: str, files: Collection[str]) -> None:
    """Refuse a repository of other models: their card and description would be replaced.

    Raises:
        UserError: without the description of an export, it has files that no export has; or it has other weights.
    """
    from googlenet.evaluation.pretrained import DESCRIPTION, FORMAT

    is_export = DESCRIPTION in files and FORMAT in Path(api.hf_hub_download(repository, DESCRIPTION)).read_text(
        encoding="utf-8-sig"
    )
    others = sorted(file for file in set(files) - OWN_FILES if not OWN_WEIGHTS.fullmatch(file))
    if is_export:  # users may add files to it
        others = [file for file in others if file.endswith(WEIGHTS_SUFFIX)]
    if others:
        raise UserError(f"hf://{repository} holds something else ({some(others)}): choose another repository")


def _license_of(api: "HfApi", repository: str) -> dict[str, str]:
    """Return the fields that name a license in the model card of a repository, which the new card keeps."""
    from huggingface_hub import ModelCard

    card = ModelCard.load(api.hf_hub_download(repository, CARD), ignore_metadata_errors=True)
    return {field: card.data[field] for field in LICENSE_FIELDS if card.data.get(field)}


@contextmanager
def _renamed_when_complete(folder: Path) -> Iterator[Path]:
    """Make a folder beside ``folder`` for the block, which is renamed at its end, or removed if the block fails."""
    partial = folder.with_name(f"{folder.name}{PARTIAL}{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _finished(run: Storage) -> tuple[Recipe, Report]:
    """Return the recipe and the report of a run.

    Raises:
        UserError: there is no report, or files are missing without which it cannot be exported.
    """
    recipe = read_recipe(run)
    if not run.exists(REPORT_JSON):
        raise UserError(f"{run} has no report; run train_ensemble.py on it again")
    report: Report = run.read_json(REPORT_JSON)
    if "ensemble" not in report:
        raise UserError(f"the report of {run} is incomplete; {_repeat(run)}")
    if missing := [name for name in (COST_JSON, MANIFEST) if not run.exists(name)]:
        raise UserError(f"{run} lacks {missing[0]}: restore it, or run train_ensemble.py on it again")
    return recipe, report


def _write(run: Storage, folder: Storage, name: str, license_fields: Mapping[str, str]) -> str:
    """Write all files to ``folder``; return what they hold. ``name`` is where they will be loaded from."""
    recipe, report = _finished(run)
    say(f"exporting {run} ...")
    # Imported only here: a command that is refused does not wait for PyTorch and Matplotlib.
    from googlenet.evaluation.pretrained import DESCRIPTION, description
    from pipelines.export.model_card import model_card

    ensemble = report["ensemble"]
    num_bytes, files = 0, [f"{replica}{WEIGHTS_SUFFIX}" for replica in ensemble["replicas"]]
    for replica, digest, file in zip(ensemble["replicas"], ensemble["weights_digests"], files, strict=True):
        data, _ = read_replica(run, ReplicaFiles(replica_number(replica)).weights)
        if hashlib.sha256(data).hexdigest() != digest:
            raise UserError(f"the report of {run} is not of the weights of {replica} there; {_repeat(run)}")
        folder.write(file, data)
        num_bytes += len(data)
    commit = next((job["commit"] for job in reversed(read_jobs(run)) if job.get("commit")), "")
    card = model_card(name, report, run.read_json(COST_JSON), recipe, read_manifest(run), license_fields, commit)
    folder.write(CARD, card.encode())
    folder.write_json(RECIPE, recipe.to_dict())
    report.pop("evaluated_by", None)  # its command names folders and servers, which are nobody else's business
    folder.write_json(REPORT, report)
    for kept in (CALIBRATION, BUDGET):
        if run.exists(kept):
            folder.write_json(kept, run.read_json(kept))
    about = description(files, ensemble["classes"], ensemble["crop_px"], ensemble["weights_digests"])
    folder.write_json(DESCRIPTION, about)
    return f"{count(len(files), 'replica')}, {count(report['classes'], 'class', 'classes')}, {size(num_bytes)}"


def _repeat(run: Storage) -> str:
    return f"repeat the evaluation: {command_of('evaluate_ensemble', run)}"
