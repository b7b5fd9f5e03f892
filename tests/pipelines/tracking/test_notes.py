"""Claims: notes in MLflow show names as they are; what users write into them stays."""

from pathlib import Path
from typing import Any

import pytest
from rich.markdown import Markdown

from pipelines.export.model_card import model_card
from pipelines.report.markdown import markdown
from pipelines.report.markdown_tables import markdown_table
from pipelines.run.dataset import Manifest, Shard, Split, read_manifest
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.model_pages import describe_model
from pipelines.tracking.models import origin_of
from pipelines.tracking.notes import (
    MODEL_TEXT,
    MORE,
    REQUEST_TEXT,
    Origin,
    child_note,
    data_line,
    error_tables,
    evaluation_note,
    model_note,
    parent_note,
    replica_note,
    version_note,
)
from pipelines.tracking.runs import NOTE, MlflowRuns
from tests.pipelines.tracking.followed_runs import RECIPE, copy_result, store_of

pytestmark = pytest.mark.timeout(120)
NAME = "model"


def test_chosen_views_have_a_heading_for_people() -> None:
    def row(policy: str, crops: int) -> dict[str, Any]:
        return {"models": 1, "policy": policy, "crops": crops, "top1_error": 1.0, "top1_ci95": [0.0, 2.0]}

    policies = [("1", 1), ("best:24:00ff", 24), ("96+120", 72), ("144", 144)]
    report: Any = {"classes": 2, "images": 40, "table": [row(*policy) for policy in policies]}
    [head, *_] = error_tables(report)[0].replace("&emsp;", "").splitlines()
    assert head == "| top-1 error | 1 crop | 24 crops (best) | 72 crops (96+120 px) | 144 crops |"


def texts(markdown: str) -> list[str]:
    """The paragraphs and cells of Markdown as the parser of rich reads them, without their markup."""
    read = [token.children or [] for token in Markdown(markdown).parsed if token.type == "inline"]
    return ["".join(part.content if part.content else "" for part in parts) for parts in read]


def test_one_of_something_is_singular_in_notes() -> None:
    one = {"epoch": 1, "host": "here", "val_top1_error": 5.0, "val_top1_error_raw_weights": 6.0}
    assert "After 1 epoch its top-1 error with one centre crop is 5.00 %" in child_note(0, 1, [one], None)
    assert "After 2 epochs its" in child_note(0, 1, [{**one, "epoch": 2}], None)
    train, val = (Split((Shard("", images, ""),), {}) for images in (1000, 1))
    line = data_line(Manifest({"data": "x"}, ("a",), {"train": train, "val": val}, "", 0))
    assert line.endswith(": 1,000 training images and 1 validation image of 1 class: a.")


def test_every_note_says_over_what_its_intervals_are(reported_run: Path) -> None:
    run = Storage.at(str(reported_run))
    report, manifest = run.read_json("report/report.json"), read_manifest(run)
    origin = Origin(report, manifest, {}, "1", "run", "mine")
    notes = [parent_note(report, manifest, [], "1f", set(), "http://x"), version_note(origin)]
    notes += [model_note(origin, NAME, "1", is_champion=True), evaluation_note(report, manifest, "1f", set(), "whose")]
    for note in notes:
        assert "The 95 % intervals are over images alone: 2 replicas say too little" in note
    wide = {"top1_ci95_images_and_replicas": [10.0, 40.0]}
    for_three = {**report, "table": [{**row, **wide} for row in report["table"]]}
    assert "over both, the interval of 2 models with 144 crops is 10.00 to 40.00 %" in version_note(
        Origin(for_three, manifest, {}, "1", "run", "mine")
    )


def test_the_page_of_a_replicas_model_has_its_own_errors_and_leads_to_the_run_of_its_ensemble(
    reported_run: Path,
) -> None:
    run = Storage.at(str(reported_run))
    report, manifest = run.read_json("report/report.json"), read_manifest(run)
    note = replica_note("replica_1", Origin(report, manifest, {"batch_size": 64}, "1", "2f", "mine"))
    assert "[mine](#/experiments/1/runs/2f" in note
    assert "6 training images and 6 validation images of 7 classes: a, b, c" in note
    [own] = [known["rows"] for known in report["replicas"] if known["replica"] == "replica_1"]
    cells = texts(note.replace("&emsp;", ""))
    found = [cells[cells.index("top-1 error") + 1 + column] for column in range(len(own))]
    assert found == [f"{row['top1_error']:.1f} %" for row in own]
    assert cells[cells.index("batch_size") + 1] == "64"


def test_the_page_of_a_registered_model_without_a_champion_leads_to_its_version(reported_run: Path) -> None:
    run = Storage.at(str(reported_run))
    origin = Origin(run.read_json("report/report.json"), read_manifest(run), {}, "1", "2f", "mine")
    note = model_note(origin, NAME, "4", is_champion=False)
    assert "The newest at the time of this text is [version 4](" in note
    assert f"/models/{NAME}/versions/4" in note
    assert "err on" not in note  # another version may become the champion


def test_names_of_classes_are_text_in_markdown(reported_run: Path) -> None:
    names = (
        "<unk>",
        "R&D",
        "a|b",
        "_x_",
        "__init__",
        "snake_case",
        "*b*",
        "`c`",
        "[d](e)",
        "f\\g",
        "~~h~~",
        "two\nlines",
    )
    listed = ", ".join(name.replace("\n", " ") for name in names)
    empty = Split((), {})
    manifest = Manifest({"data": "x"}, names, {"train": empty, "val": empty}, "", 0)
    run = Storage.at(str(reported_run))
    report = run.read_json("report/report.json")
    report["ensemble"]["classes"] = list(names)
    card = model_card("mine", report, run.read_json("report/cost.json"), Recipe(), manifest, {}, "")
    assert texts(data_line(manifest))[0].endswith(f"of 12 classes: {listed}.")
    assert texts(card)[-1] == listed
    assert texts(markdown_table(["class"], [[name] for name in names]))[1:] == listed.split(", ")
    assert "snake_case" in card  # a name is not made hard to read for nothing


def test_names_of_folders_and_commands_are_text_in_markdown(reported_run: Path) -> None:
    run = Storage.at(str(reported_run))
    report, cost = run.read_json("report/report.json"), run.read_json("report/cost.json")
    facts = {"recipe": "_my_ <recipe>", "command": "python x.py --data 'a`b_c_'"}
    listed = texts(markdown(report, cost, facts, ()))
    assert "recipe: _my_ <recipe>" in listed
    assert "command: python x.py --data 'a`b_c_'" in listed
    empty = Split((), {})
    manifest = Manifest({"data": "/d/*cats*"}, ("a",), {"train": empty, "val": empty}, "", 0)
    assert texts(data_line(manifest))[0].startswith("Data set *cats* (/d/*cats*): ")
    recipe = {"name": "a|b", "data": "`"}
    origin = Origin(report, manifest, recipe, "1", "run", "[mine](x)")
    shown = texts("\n\n".join(origin.sections()))
    assert "Trained and evaluated by the run [mine](x), which has all parameters and the report." in shown
    assert [shown[shown.index(name) + 1].strip() for name in ("name\u2003", "data\u2003")] == ["a|b", "`"]


def test_descriptions_of_models_fit_into_every_database_of_mlflow(reported_run: Path) -> None:
    report, empty = Storage.at(str(reported_run)).read_json("report/report.json"), Split((), {})
    classes = tuple(f"{number} {'x' * 300}" for number in range(20))
    manifest = Manifest({"data": "x"}, classes, {"train": empty, "val": empty}, "", 0)
    origin = Origin(report, manifest, {}, "1", "run", "mine")
    of_model = [model_note(origin, NAME, "1", is_champion=is_champion) for is_champion in (True, False)]
    for note in (version_note(origin), *of_model):
        assert len(note) <= 5000  # characters of a column of PostgreSQL and MySQL
        assert note.endswith(MORE)


@pytest.mark.parametrize(
    ("uri", "option"),
    [
        ("sqlite:////home/me/runs/mlflow.db", ""),  # where the command looks without the option
        ("sqlite:////home/me/mlflow.db", " --tracking-uri sqlite:////home/me/mlflow.db"),
        ("http://head:5000", " --tracking-uri http://head:5000"),
    ],
)
def test_the_command_that_repeats_a_run_names_the_store_that_it_is_in(
    reported_run: Path, uri: str, option: str
) -> None:
    report, empty = Storage.at(str(reported_run)).read_json("report/report.json"), Split((), {})
    manifest = Manifest({"data": "x"}, ("a",), {"train": empty, "val": empty}, "", 0)
    shown = texts(parent_note(report, manifest, [], "1f", set(), uri))
    command = f"python pipelines/train_ensemble.py --recipe runs:/1f --run-dir NEW{option}"
    assert f"To repeat this run: {command}." in shown


@pytest.fixture
def runs(run: Storage, reported_run: Path) -> MlflowRuns:
    copy_result(reported_run, run)
    return MlflowRuns(store_of(run), run, RECIPE)


def test_a_note_that_a_user_has_changed_stays(runs: MlflowRuns) -> None:
    def note() -> str:
        return str(runs.client.get_run(runs.parent).data.tags[NOTE])

    for text in ("first", "second"):
        runs.set_note(runs.parent, text)
        assert note() == text
    runs.client.set_tag(runs.parent, NOTE, "second\n\nDo not delete: used in the paper.")
    runs.set_note(runs.parent, "third")
    assert note().endswith("used in the paper.")


def test_a_note_that_a_user_writes_before_this_program_has_written_one_stays(runs: MlflowRuns) -> None:
    for mlflow_run in (runs.parent, runs.child(0)):
        runs.client.set_tag(mlflow_run, NOTE, "With the new lamp.")
        runs.set_note(mlflow_run, "result")
        assert runs.client.get_run(mlflow_run).data.tags[NOTE] == "With the new lamp."
    runs.set_note(runs.child(1), "result")
    assert runs.client.get_run(runs.child(1)).data.tags[NOTE] == "result"


@pytest.mark.parametrize("is_of_an_earlier_version", [False, True])
def test_the_description_of_a_model_follows_its_champion_until_a_user_writes_into_it(
    runs: MlflowRuns, is_of_an_earlier_version: bool
) -> None:
    def described() -> str:
        describe_model(runs, NAME, "1", origin_of(runs, runs.run, RECIPE, read_manifest(runs.run)))
        return str(runs.client.get_registered_model(NAME).description)

    old = f"{MODEL_TEXT}\n\nThe champion is another.\n\n{REQUEST_TEXT}"
    runs.client.create_registered_model(NAME, description=old if is_of_an_earlier_version else None)
    runs.client.create_model_version(NAME, Path(runs.run.root).as_uri())
    runs.client.set_registered_model_alias(NAME, "champion", "1")
    for _ in range(2):
        assert "The champion is [version 1]" in described()
    runs.client.update_registered_model(NAME, f"{MODEL_TEXT} Mine.\n\n{REQUEST_TEXT}")
    assert "Mine." in described()


def test_replicas_whose_parent_a_user_deleted_belong_to_the_new_one(runs: MlflowRuns) -> None:
    runs.client.delete_run(runs.parent)
    again = MlflowRuns(runs.tracking_uri, runs.run, RECIPE)
    assert again.parent != runs.parent
    assert again.child(1) == runs.child(1)
    assert runs.client.get_run(again.child(1)).data.tags["mlflow.parentRunId"] == again.parent
