"""Descriptions of runs and models in MLflow, in Markdown: results, data set, where to look, how to repeat the run."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.job.console import count, some
from pipelines.job.log import LoggedJob
from pipelines.report.columns import MOST_CLASSES_WITHOUT_TOP5, crops_in_words, decimals
from pipelines.report.markdown_tables import code, plain
from pipelines.report.remarks import about_intervals, about_missing_replicas, headline
from pipelines.report.schema import ReplicaRow, Report
from pipelines.run.dataset import Manifest
from pipelines.run.json_lines import Line
from pipelines.tracking.dataset import data_of, name_of_data
from pipelines.tracking.store import database_of, page_of_run, page_of_version

# MLflow truncates longer tags, and its databases other than SQLite refuse longer descriptions of models.
MAX_CHARACTERS, MAX_CHARACTERS_OF_MODEL = 8000, 5000
CLASSES_SHOWN = 20
SHOWN_PARAMETERS = ("name", "data", "variant", "width", "crop_px", "epochs", "batch_size", "learning_rate", "schedule")
ERROR_NAMES = {"top1_error": "top-1 error", "top5_error": "top-5 error"}
MORE = "(The rest is too long for MLflow.)"
MODEL_TEXT_BEGINS = "Ensembles of GoogLeNets. All versions were evaluated on the same images; "
MODEL_TEXT = f"{MODEL_TEXT_BEGINS}the alias `champion` belongs to the chosen one, by default the one that errs least."
REQUEST_TEXT_ENDS = "`calibrated` false gives probabilities as averaged."
REQUEST_TEXT = (
    "A request has a row for each image, with its file in `image` (base64), or with `pixels`. The parameter "
    "`crop_policy` is the number of crops: 1, 10, 144, or `best:24` for the 24 that help most; `budget` `fast` or "
    "`balanced` stops once the answer is sure enough; `coverage`, such as 0.95, asks for the set of classes that may "
    "be right; a model whose evaluation had too few images for one of them refuses it; "
    f"{REQUEST_TEXT_ENDS}"
)
PICTURES = (
    ("error_by_models.png", "Error by the number of models"),
    ("learning_curves.png", "Learning curves"),
    ("views.png", "Error by scale and kind of view"),
)


def errors_that_count(classes: int) -> tuple[str, ...]:
    """Return the errors by which ensembles are compared, the most important first."""
    return ("top1_error",) if classes <= MOST_CLASSES_WITHOUT_TOP5 else ("top5_error", "top1_error")


def error_sections(report: Report) -> list[str]:
    """Return the tables of errors, and over what their intervals are."""
    return [*error_tables(report), plain(about_intervals(report))]


def error_tables(report: Report) -> list[str]:
    """Return a table of models x crops for each error that says something."""
    wanted = sorted(errors_that_count(report["classes"]))  # top-1 first
    return [_error_table(report["table"], name, decimals(report)) for name in wanted]


def _error_table(table: Sequence[Any], error: str, digits: int) -> str:
    """Return the errors of one model and of all models, in percent, with intervals."""
    policies = list(dict.fromkeys(row["policy"] for row in table))
    by_policy = {row["policy"]: row for row in table}
    rows = [[ERROR_NAMES[error], *(crops_in_words(by_policy[policy]) for policy in policies)]]
    for models in dict.fromkeys((1, table[-1]["models"])):
        cells = {row["policy"]: row for row in table if row["models"] == models}
        rows.append([count(models, "model"), *(_cell(cells[policy], error, digits) for policy in policies)])
    return _table(rows)


def _cell(row: Any, error: str, digits: int) -> str:
    low, high = row[f"{error.removesuffix('_error')}_ci95"]
    return f"{row[error]:.{digits}f} % ({low:.{digits}f} to {high:.{digits}f})"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first row is its head; MLflow leaves no space between columns, so the cells do."""
    head, *body = ("| " + " | ".join(f"{cell}&emsp;" for cell in row) + " |" for row in rows)
    return "\n".join([head, "|" + " :--- |" * len(rows[0]), *body])


def data_line(manifest: Manifest) -> str:
    """Return the data set in a sentence: name, images, classes."""
    sizes = " and ".join(
        count(split.images, f"{kind} image")
        for split, kind in ((manifest.splits["train"], "training"), (manifest.splits["val"], "validation"))
        if split.images
    )
    classes = some([plain(name) for name in manifest.classes], CLASSES_SHOWN)
    number = count(len(manifest.classes), "class", "classes")
    name, where = plain(name_of_data(manifest)), code(data_of(manifest))
    return f"Data set **{name}** ({where}): {sizes} of {number}: {classes}."


def parent_note(
    report: Report,
    manifest: Manifest,
    jobs: list[LoggedJob],
    parent: str,
    pictures: set[str],
    tracking_uri: str,
    models: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the note on a finished run: the table, data set, models, pictures, and how to repeat the run.

    Pictures are the run's own artifacts, under the URLs of MLflow's server.
    """
    commit = jobs[-1].get("commit", "") if jobs else ""
    sections = [
        headline(report),
        *about_missing_replicas(report),
        *error_sections(report),
        data_line(manifest),
        " ".join(f"Registered as [{name} version {v}]({page_of_version(name, v)})." for name, v in models),
        "Everything else: `report/index.html` under Artifacts.",
        f"To repeat this run: {code(_repetition(parent, tracking_uri))}"
        + (f" at commit `{commit}`." if commit else "."),
        *picture_lines(parent, pictures),
    ]
    return _fitting(sections)


def _repetition(parent: str, tracking_uri: str) -> str:
    """Return the command that repeats a run; it looks for it in the folder ``runs`` if it names no store."""
    database = database_of(tracking_uri)
    is_found = database is not None and (database.parent.name, database.name) == ("runs", "mlflow.db")
    words = ["python", "pipelines/train_ensemble.py", "--recipe", f"runs:/{parent}", "--run-dir", "NEW"]
    return shlex.join(words if is_found else [*words, "--tracking-uri", tracking_uri])


def picture_lines(mlflow_run: str, pictures: set[str]) -> list[str]:
    """Return those pictures of a report that a run has, as images."""
    return [
        f"![{title}](get-artifact?path=report%2F{name}&run_uuid={mlflow_run})"
        for name, title in PICTURES
        if name in pictures
    ]


def evaluation_note(report: Report, manifest: Manifest, mlflow_run: str, pictures: set[str], origin: str) -> str:
    """Return the note on an evaluation; ``origin`` says whose replicas were evaluated."""
    return _fitting(
        [
            headline(report),
            *error_sections(report),
            data_line(manifest),
            origin,
            "Everything else: `report/index.html` under Artifacts.",
            *picture_lines(mlflow_run, pictures),
        ]
    )


@dataclass(frozen=True)
class Origin:
    """The run of a model: its report, data set and recipe, and the experiment, id and name of its MLflow run."""

    report: Report
    manifest: Manifest
    recipe: dict[str, Any]
    experiment: str
    mlflow_run: str
    name: str

    def sections(self) -> list[str]:
        """Return what the pages of its model say: errors, data set, parameters, and a link to the run."""
        result = [headline(self.report), *about_missing_replicas(self.report), *error_sections(self.report)]
        where = f"Trained and evaluated by the run {self.link()}, which has all parameters and the report."
        replicas = ["replicas", f"{len(self.report['ensemble']['replicas'])}"]
        return [*result, data_line(self.manifest), where, self.parameters(replicas)]

    def link(self) -> str:
        """Return a link to the run."""
        return f"[{plain(self.name)}]({page_of_run(self.experiment, self.mlflow_run)})"

    def parameters(self, *first: Sequence[str]) -> str:
        """Return a table of the parameters that are looked for most, below rows that come ``first``."""
        shown = [key for key in SHOWN_PARAMETERS if self.recipe.get(key) not in (None, "")]
        rows = [[key, code(str(self.recipe[key])).replace("|", "\\|")] for key in shown]
        return _table([["parameter", "value"], *first, *rows])


def replica_note(name: str, origin: Origin) -> str:
    """Return the note on the model of the replica ``name``, whose ensemble is of the run ``origin``."""
    crop_px = origin.report["ensemble"]["crop_px"]
    about = (
        f"{name} alone: uint8 RGB crops of shape (n, 3, {crop_px}, {crop_px}) in, probabilities of shape (n, classes) "
        f"out. It is one of the models of the run {origin.link()}, which has all parameters and the report."
    )
    errors = _errors_of_replica(origin.report, name)
    return _fitting([about, errors, data_line(origin.manifest), origin.parameters()], MAX_CHARACTERS_OF_MODEL)


def rows_of_replica(report: Report, name: str) -> list[ReplicaRow]:
    """Return the rows of the replica ``name`` alone; none if it was not evaluated."""
    return next((known["rows"] for known in report["replicas"] if known["replica"] == name), [])


def _errors_of_replica(report: Report, name: str) -> str:
    """Return a table of the errors of one replica in percent, by crop policy; empty if it was not evaluated."""
    evaluated: list[Any] = list(rows_of_replica(report, name))
    wanted = sorted(errors_that_count(report["classes"]))  # top-1 first
    digits = decimals(report)
    rows = [[ERROR_NAMES[error], *(f"{row[error]:.{digits}f} %" for row in evaluated)] for error in wanted]
    return _table([["", *map(crops_in_words, evaluated)], *rows]) if evaluated else ""


def version_note(origin: Origin) -> str:
    """Return the note on a version of a model."""
    return _fitting([*origin.sections(), REQUEST_TEXT], MAX_CHARACTERS_OF_MODEL)


def model_note(origin: Origin, model: str, version: str, *, is_champion: bool) -> str:
    """Return the note on a registered model; ``origin`` is the run of its ``version``."""
    link = f"[version {version}]({page_of_version(model, version)})"
    about = f"The champion is {link}." if is_champion else f"The newest at the time of this text is {link}."
    results = origin.sections() if is_champion else [data_line(origin.manifest)]
    return _fitting([MODEL_TEXT, about, *results, REQUEST_TEXT], MAX_CHARACTERS_OF_MODEL)


def _fitting(sections: list[str], most_characters: int = MAX_CHARACTERS) -> str:
    """Join the sections that fit into a note; from the first that does not, the rest is left out, which it says."""
    text = ""
    for section in filter(None, sections):
        longer = f"{text}{section}\n\n"
        if len(longer) > most_characters - len(MORE):
            return text + MORE
        text = longer
    return text.rstrip()


def child_note(replica: int, seed: int, metrics: list[Line], failure: str | None) -> str:
    """Return the note on a replica: what distinguishes it, its progress, and what went wrong."""
    lines = [f"Replica {replica}, trained with sampling seed {seed}."]
    if metrics:
        # An epoch need not end with a validation.
        if validated := [line for line in metrics if "val_top1_error" in line]:
            last = validated[-1]
            epochs, error = count(last["epoch"], "epoch"), f"{last['val_top1_error']:.2f} %"
            lines.append(
                f"After {epochs} its top-1 error with one centre crop is {error} "
                f"with the averaged weights, {last['val_top1_error_raw_weights']:.2f} % with the raw ones."
            )
        hosts = sorted({line["host"] for line in metrics})
        lines.append(f"Trained on {', '.join(hosts)}.")
    if failure:
        lines.append(f"```\n{failure[-MAX_CHARACTERS // 2 :].rstrip()}\n```")
    return "\n\n".join(lines)
