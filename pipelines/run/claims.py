"""Claims: a run directory is bound to the settings and images that decide its result."""

import uuid
from typing import Any

from pipelines.errors import UserError
from pipelines.run.dataset import SHARD_FILE, SPLITS
from pipelines.run.differences import changed_fields, differences
from pipelines.run.directory import (
    APART,
    BAD_IMAGES,
    BUDGET,
    CALIBRATION,
    CANDIDATES,
    DATASET,
    INITIAL_WEIGHTS,
    JOBS,
    MANIFEST,
    OWN_NAMES,
    PREFLIGHT,
    QUARANTINE,
    REPLICAS,
    REPORT,
    RUN,
    SOUP,
    TRAINING,
    WAY_OUT,
    Kind,
    check_folder,
    read_run,
)
from pipelines.run.storage import Storage

# Files at the top of a run directory, and its folders of which nobody else removes what killed writers left.
WRITTEN = (RUN, TRAINING, PREFLIGHT, CALIBRATION, BUDGET, APART, f"{INITIAL_WEIGHTS}*")
FOLDERS = (INITIAL_WEIGHTS, JOBS, REPORT, CANDIDATES)
# Names below the folder of the prepared images.
OF_IMAGES = {*SPLITS, *(name.rpartition("/")[2] for name in (MANIFEST, QUARANTINE, BAD_IMAGES))}
# Key of the digest of the prepared images in run.json.
IMAGES = "images"
# Key of what an evaluation of other images has been prepared from, and of its settings: the digest of their list.
LISTING = "listing"
# Fields of a recipe that say where something lies, of which a run has its own copy.
PLACES = {"data", "init_weights", "teacher"}


class OtherImagesError(UserError):
    """The images are not those that the replicas of a run were trained on, or may have been."""


def claim(run: Storage, kind: Kind, settings: dict[str, Any], way_out: str = WAY_OUT, **origin: str) -> None:
    """Bind ``run`` to ``settings``, or check that it is already bound to them.

    ``settings`` decide the result: the fields of a recipe, or those of an evaluation of external weights. A run whose
    job was refused before it computed anything is bound anew, so only the job that holds the run may call this. What
    the settings come from is kept beside them.

    Raises:
        UserError: it is bound to other settings, or holds files that do not belong to a run.
    """
    check_claim(run, kind, settings, way_out)
    for name in WRITTEN:  # by a job that was killed meanwhile; files of others stay
        run.remove_partial_files("", name)
    for folder in (*FOLDERS, *(f"{SOUP}/{REPLICAS}/{number}" for number in run.names(f"{SOUP}/{REPLICAS}"))):
        run.remove_partial_files(folder)
    if run.exists(RUN) and not changed_fields(_claimed(run, kind), settings):
        return
    # The id distinguishes this run from an earlier one at the same path, in trackers that remember both.
    run.write_json(RUN, {"id": uuid.uuid4().hex, kind: settings, **origin})


def check_claim(run: Storage, kind: Kind, settings: dict[str, Any], way_out: str = WAY_OUT) -> None:
    """Refuse ``settings`` that differ from those with which something in ``run`` was computed; writes nothing.

    The error ends with ``way_out``.

    Raises:
        UserError: they differ, or ``run`` holds files that do not belong to a run.
    """
    check_own(run, way_out, settings.get("data", ""))
    if not run.exists(RUN):
        return
    claimed = _claimed(run, kind)
    changed = changed_fields(claimed, settings)
    if not changed or not _has_results(run):
        return
    if not claimed:
        held = "an evaluation, not a training run" if kind == "recipe" else "a training run, not an evaluation"
        raise UserError(f"{run} holds {held}; {way_out}")
    moved = kind == "recipe" and not PLACES.isdisjoint(changed)
    kept = " (the run has its own copy: the old path need not exist)" if moved and run.exists(MANIFEST) else ""
    raise UserError(
        f"{run} holds a different {kind}:\n  "
        + "\n  ".join(_change_lines(claimed, settings))
        + f"\nUse the same options{kept}, or {way_out}."
    )


def check_own(run: Storage, way_out: str = WAY_OUT, data: str = "") -> None:
    """Refuse a folder that is not a run and holds something else, or the images ``data``; writes nothing.

    Raises:
        UserError: it is one, or a file is in its place.
    """
    check_folder(run)
    if run.exists(RUN):
        if {"recipe", "evaluation", IMAGES}.isdisjoint(read_run(run)):
            raise UserError(f"{run} is not a run directory: its {RUN} belongs to something else; {way_out}")
        return
    if strangers := _strangers(run):
        raise UserError(f"{run} is not empty and not a run directory ({strangers[0]}, ...); {way_out}")
    # Prepared images take the place of those of an earlier attempt.
    if data and (data == run.root or f"{data}/".startswith(f"{run.below(DATASET).root}/")):
        raise UserError(f"the prepared images would be mixed with the images in {data}; {way_out}")


def _strangers(run: Storage) -> list[str]:
    """Return names in a folder that is no run yet which no command of this project has written."""
    others = [name for name in run.names("") if name not in OWN_NAMES]
    others += [f"{DATASET}/{name}" for name in run.names(DATASET) if name not in OF_IMAGES]
    for folder in (f"{DATASET}/{split}" for split in SPLITS):
        others += [f"{folder}/{name}" for name in run.names(folder) if not SHARD_FILE.fullmatch(name)]
    return others


def _change_lines(claimed: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Return what differs, in lines: of images under the same name a sentence, not the digests of their listings."""
    lines = differences(_without_listing(claimed), _without_listing(settings))
    if claimed.get("data") == settings.get("data") and claimed.get(LISTING) != settings.get(LISTING):
        lines.append(f"images of {settings['data']} were added, removed or renamed")
    return lines


def _without_listing(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != LISTING}


def claim_images(run: Storage, digest: str) -> None:
    """Bind a run to its prepared images, or check that it is already bound to them; ``digest`` is that of all of them.

    A run of an earlier version is bound to the images that it has. A directory without a recipe is bound to none.
    Initial weights that were scaled on images to which the run was bound before are removed, to be made again.

    Raises:
        OtherImagesError: replicas were trained on other images.
    """
    if not run.exists(RUN):
        return
    claimed = read_run(run)
    if claimed.get(IMAGES) == digest:
        return
    if replicas_need_their_images(run):
        shrunk = claimed.get("recipe", {}).get("stored_short_side_px") is not None
        pillow = ", or another version of Pillow has shrunk them" if shrunk else ""
        raise OtherImagesError(
            f"these images are not those that the replicas in {run} were trained on (digest {digest[:12]}, was "
            f"{claimed[IMAGES][:12]}): {DATASET}/ was removed, and files were added, removed or replaced "
            f"since{pillow}. Restore {'what has changed' if shrunk else 'the files'} or {DATASET}/, or choose another "
            "--run-dir."
        )
    if IMAGES in claimed:
        run.delete_all(f"{INITIAL_WEIGHTS}/{name}" for name in run.files(INITIAL_WEIGHTS))
    run.write_json(RUN, {**claimed, IMAGES: digest})


def replicas_need_their_images(run: Storage) -> bool:
    """Return whether replicas were trained on the images that a run is bound to, so that no others may replace them."""
    return run.exists(RUN) and IMAGES in read_run(run) and bool(run.names(REPLICAS))


def _has_results(run: Storage) -> bool:
    """Return whether a run is more than an attempt: images count once all of them are prepared, as it is bound."""
    attempt = {RUN, *OWN_NAMES} - {REPLICAS}
    if not attempt.issuperset(run.names("")):
        return True
    if not run.exists(MANIFEST):
        return False
    # Images of other data, or for another command, were prepared on their own: nothing was with the run's settings.
    prepared_from: dict[str, Any] = run.read_json(MANIFEST).get("prepared_from", {})
    kind: Kind = "evaluation" if LISTING in prepared_from else "recipe"
    bound = _claimed(run, kind)
    if prepared_from and not bound:
        return False
    return all(bound[name] == value for name, value in prepared_from.items() if name in bound)


def _claimed(run: Storage, kind: Kind) -> dict[str, Any]:
    """Return the settings that ``run`` is bound to; of another kind, none."""
    stored: dict[str, Any] = read_run(run).get(kind, {})
    if kind != "recipe" or not stored:
        return stored
    from pipelines.run.recipe_json import with_new_fields

    return with_new_fields(stored)
