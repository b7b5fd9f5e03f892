"""Pages of models in MLflow: their descriptions, and the links between them; what users wrote there stays."""

import json
from typing import Any

from pipelines.tracking.notes import MODEL_TEXT_BEGINS, MORE, REQUEST_TEXT_ENDS, Origin, model_note
from pipelines.tracking.runs import NOTE, NOTE_DIGEST_TAG, MlflowRuns, digest_of_note, is_ours

CHAMPION = "champion"
VERSIONS_TAG = "mlflow.modelVersions"


def describe_model(runs: MlflowRuns, name: str, number: str, origin: Origin) -> None:
    """Describe a registered model by its champion, if that is version ``number``; what users wrote there stays."""
    model = runs.client.get_registered_model(name)
    is_champion = str(model.aliases.get(CHAMPION)) == number
    written, digest = model.description or "", model.tags.get(NOTE_DIGEST_TAG)
    if written and not (is_champion and (digest or _is_generated(written)) and is_ours(written, digest)):
        return
    note = model_note(origin, name, number, is_champion=is_champion)
    runs.client.update_registered_model(name, note)
    runs.client.set_registered_model_tag(name, NOTE_DIGEST_TAG, digest_of_note(note))


def _is_generated(text: str) -> bool:
    """Return whether a description looks as earlier versions wrote them, without a word of a user after it."""
    return text.startswith(MODEL_TEXT_BEGINS) and text.endswith((REQUEST_TEXT_ENDS, MORE))


def name_on_its_page(runs: MlflowRuns, model_id: str, name: str, number: Any, note: str) -> None:
    """Name a version on the page of the model that it is made of, and describe the model there."""
    # That page calls it "Not registered" without this tag, which only MLflow's fluent functions set.
    known = json.loads(runs.client.get_logged_model(model_id).tags.get(VERSIONS_TAG, "[]"))
    if not any((named["name"], str(named["version"])) == (name, str(number)) for named in known):
        news = {VERSIONS_TAG: json.dumps([*known, {"name": name, "version": number}])}
        runs.client.set_logged_model_tags(model_id, news)
    describe_logged_model(runs, model_id, note)


def describe_logged_model(runs: MlflowRuns, model_id: str, note: str) -> None:
    """Describe a logged model on its page; what users wrote there stays."""
    tags = runs.client.get_logged_model(model_id).tags
    written, digest = tags.get(NOTE, ""), tags.get(NOTE_DIGEST_TAG)
    if written != note and is_ours(written, digest):
        runs.client.set_logged_model_tags(model_id, {NOTE: note, NOTE_DIGEST_TAG: digest_of_note(note)})
