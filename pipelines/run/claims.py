"""Claims: a run directory is bound to the settings and images that decide its result."""

import uuid
from typing import Any

from pipelines.errors import UserError
from pipelines.run.differences import differences
from pipelines.run.directory import (
    APART,
    BUDGET,
    CALIBRATION,
    DATASET,
    MANIFEST,
    OWN_NAMES,
    PREFLIGHT,
    REPLICAS,
    RUN,
    TRAINING,
    Kind,
    check_folder,
    read_run,
)
from pipelines.run.storage import Storage

# Files at the top of a run directory.
WRITTEN = (RUN, TRAINING, PREFLIGHT, CALIBRATION, BUDGET, APART)
WAY_OUT = "choose another --run-dir"
# Key of the digest of the prepared images in run.json.
IMAGES = "images"


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
    if run.exists(RUN) and not differences(_claimed(run, kind), settings):
        return
    # The id distinguishes this run from an earlier one at the same path, in trackers that remember both.
    run.write_json(RUN, {"id": uuid.uuid4().hex, kind: settings, **origin})


def check_claim(run: Storage, kind: Kind, settings: dict[str, Any], way_out: str = WAY_OUT) -> None:
    """Refuse ``settings`` that differ from those with which something in ``run`` was computed; writes nothing.

    The error ends with ``way_out``.

    Raises:
        UserError: they differ, or ``run`` holds files that do not belong to a run.
    """
    check_own(run, way_out)
    if not run.exists(RUN):
        return
    claimed = _claimed(run, kind)
    changed = _changed(claimed, settings)
    if not changed or not _has_results(run, claimed):
        return
    moved = kind == "recipe" and any(line.startswith(("data:", "init_weights:", "teacher:")) for line in changed)
    kept = " (the run has its own copy: the old path need not exist)" if moved and run.exists(MANIFEST) else ""
    raise UserError(
        f"{run} holds a different {kind}:\n  " + "\n  ".join(changed) + f"\nUse the same options{kept}, or {way_out}."
    )


def check_own(run: Storage, way_out: str = WAY_OUT) -> None:
    """Refuse a folder that is not a run and holds something else; writes nothing.

    Raises:
        UserError: it is one, or a file is in its place.
    """
    check_folder(run)
    if not run.exists(RUN) and (strangers := [name for name in run.names("") if name not in OWN_NAMES]):
        raise UserError(f"{run} is not empty and not a run directory ({strangers[0]}, ...); {way_out}")


def _changed(claimed: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Return what differs, in lines: of images under the same name a sentence, not the digests of their listings."""
    changed = [line for line in differences(claimed, settings) if not line.startswith("listing: ")]
    if claimed.get("data") == settings.get("data") and claimed.get("listing") != settings.get("listing"):
        changed.append(f"images of {settings['data']} were added, removed or renamed")
    return changed


def claim_images(run: Storage, digest: str) -> None:
    """Bind a run to its prepared images, or check that it is already bound to them; ``digest`` is that of all of them.

    A run of an earlier version is bound to the images that it has. A directory without a recipe is bound to none.

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
    run.write_json(RUN, {**claimed, IMAGES: digest})


def replicas_need_their_images(run: Storage) -> bool:
    """Return whether replicas were trained on the images that a run is bound to, so that no others may replace them."""
    return run.exists(RUN) and IMAGES in read_run(run) and bool(run.names(REPLICAS))


def _has_results(run: Storage, claimed: dict[str, Any]) -> bool:
    """Return whether a run is more than an attempt: images count once all of them are prepared, as ``claimed``."""
    attempt = {RUN, *OWN_NAMES} - {REPLICAS}
    if not attempt.issuperset(run.names("")):
        return True
    if not run.exists(MANIFEST):
        return False
    # Of other images, prepare_dataset.py prepared them by itself: with these settings, nothing was ever computed.
    prepared_from: dict[str, Any] = run.read_json(MANIFEST).get("prepared_from", {})
    return all(claimed[name] == value for name, value in prepared_from.items() if name in claimed)


def _claimed(run: Storage, kind: Kind) -> dict[str, Any]:
    """Return the settings that ``run`` is bound to; of another kind, none."""
    stored: dict[str, Any] = read_run(run).get(kind, {})
    if kind != "recipe" or not stored:
        return stored
    from pipelines.run.recipe_json import with_new_fields

    return with_new_fields(stored)
