"""The published schema of report.json: up to date, and as strict as the TypedDicts it is made from."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from pipelines.report.contents import contents
from pipelines.report.provenance import evaluated_by
from pipelines.report.schema import Report, json_schema
from pipelines.report.tally import tally_predictions
from tests.pipelines.report.made_runs import ENSEMBLE, made_run, predict
from tests.pipelines.report.test_provenance import EVALUATION
from tests.project import ROOT

PUBLISHED = ROOT / "docs/report.schema.json"
OLD_REPORT = ROOT / "tests/pipelines/old_run/report/report.json"
# Keys that may be absent, and objects whose content the schema leaves open.
OPTIONAL = {("run",), *(("run", key) for key in ("recipe", "evaluation", "images")), ("single_model", "chosen_on")} | {
    ("table", 0, f"{top}_{interval}_images_and_replicas")
    for top in ("top1", "top5")
    for interval in ("ci95", "difference_ci95")
}
OPTIONAL |= {("table", 0, "computed_passes"), ("spending",), ("spending", 0, "models"), ("spending", 0, "crops")}
OPTIONAL |= {("evaluated_by",), ("evaluated_by", "weights")}
OPEN = {("run", "recipe"), ("run", "evaluation"), ("evaluated_by", "versions")}
Place = tuple[str | int, ...]


@pytest.fixture(scope="module")
def report(letters_run: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((letters_run / "report/report.json").read_text())
    return {**report, "evaluated_by": json.loads(json.dumps(evaluated_by(EVALUATION, ["bvlc"])))}


TYPES = TypeAdapter(Report)
SCHEMA = Draft202012Validator(json.loads(PUBLISHED.read_text()))


def refusals(report: Any) -> tuple[bool, bool]:
    """Whether the TypedDicts and the published schema refuse a report."""
    try:
        TYPES.validate_json(json.dumps(report))
    except ValidationError:
        by_types = True
    else:
        by_types = False
    return by_types, not SCHEMA.is_valid(report)


def objects(value: Any, place: Place = ()) -> Iterator[Place]:
    """The place of each object, of a list's items only the first."""
    if isinstance(value, dict):
        yield place
        if place not in OPEN:
            for name, item in value.items():
                yield from objects(item, (*place, name))
    elif isinstance(value, list) and value:
        yield from objects(value[0], (*place, 0))


def shortened(value: Any) -> Any:
    """The same with one item of each list of objects: every object of :func:`objects` at its place."""
    if isinstance(value, dict):
        return {name: shortened(item) for name, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [shortened(value[0])]
    return value


def at(value: Any, place: Place) -> Any:
    for step in place:
        value = value[step]
    return value


@pytest.mark.processes
def test_the_published_schema_is_what_the_command_prints() -> None:
    command = [sys.executable, "-m", "pipelines.report.schema"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert PUBLISHED.read_text() == printed
    assert json.loads(printed) == json_schema()


def test_the_published_schema_is_one_of_2020_12_and_describes_every_field() -> None:
    schema = json.loads(PUBLISHED.read_text())
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    for described in (schema, *schema["$defs"].values()):
        assert described["description"]
        assert described["additionalProperties"] is False
        for field in described["properties"].values():
            assert "description" in field or "description" in schema["$defs"][field["$ref"].rpartition("/")[2]]


def test_a_report_is_valid_with_and_without_run_json(report: dict[str, Any]) -> None:
    assert refusals(report) == (False, False)
    assert refusals({name: value for name, value in report.items() if name != "run"}) == (False, False)


def test_a_report_with_chosen_scales_is_valid(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    ensemble = replace(ENSEMBLE, policies=(1, 10, "96+108+120+132"))
    predict(run, list(range(6)), ensemble=ensemble)
    report = json.loads(json.dumps(contents(tally_predictions(run, ensemble), ensemble)))
    assert report["table"][-1]["policy"] == "96+108+120+132"
    assert refusals(report) == (False, False)


def test_a_report_of_an_earlier_version_is_valid() -> None:
    assert refusals(json.loads(OLD_REPORT.read_text())) == (False, False)


def test_a_missing_or_an_additional_key_is_refused_everywhere(report: dict[str, Any]) -> None:
    short, places = shortened(report), list(objects(report))
    assert refusals(short) == (False, False)
    assert list(objects(short)) == places
    assert len(places) > 15
    for place in places:
        for name in at(short, place) if place not in OPEN else ():
            changed = copy.deepcopy(short)
            del at(changed, place)[name]
            refused = (*place, name) not in OPTIONAL
            assert refusals(changed) == (refused, refused), f"{(*place, name)} missing"
        changed = copy.deepcopy(short)
        at(changed, place)["new"] = "1"
        refused = place not in OPEN
        assert refusals(changed) == (refused, refused), f"{place} with an additional key"


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("images",), "6"),
        (("table", 0, "top1_error"), None),
        (("table", 0, "top1_ci95"), [1.0]),
        (("table", 0, "policy"), 1),
        (("views", 0, "mirrored"), 0),
        (("ensemble", "arithmetic", "precision"), "fp64"),
    ],
)
def test_a_value_of_another_type_is_refused(report: dict[str, Any], place: Place, wrong: object) -> None:
    changed = copy.deepcopy(report)
    at(changed, place[:-1])[place[-1]] = wrong
    assert refusals(changed) == (True, True)
