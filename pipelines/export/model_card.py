"""The model card of an exported ensemble: README.md with front matter, made from the report.

The front matter is Hugging Face's. Its license is left to the user, and its model-index holds the accuracies of one
model and of all models with every crop policy.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from googlenet.network.hub import is_hub_name, parse_hub_name
from pipelines.job.circumstances import DIRTY
from pipelines.job.console import count, some
from pipelines.report.columns import crops_in_words, tops_shown
from pipelines.report.markdown import cost_remark, markdown_columns
from pipelines.report.markdown_tables import code, plain
from pipelines.report.remarks import headline, notes
from pipelines.report.schema import Report
from pipelines.report.schema_of_spending import MeasuredCost
from pipelines.run.dataset import Manifest
from pipelines.run.recipe import Recipe
from pipelines.run.storage import short_name

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

# Kept as comments of the front matter, so that a card without a license is valid, and says so to whoever edits it.
CHOOSE_LICENSE = """\
# No license is chosen yet: https://huggingface.co/docs/hub/repositories-licenses
# license: apache-2.0"""
METHOD = "the method that won ILSVRC 2014 ([Going deeper with convolutions](https://arxiv.org/abs/1409.4842))"
USE = """\
```python
from googlenet import Ensemble

print(Ensemble.from_pretrained("{name}").answers("photo.jpg"))
```

`googlenet` is part of the package `googlenet-ensemble`, which needs Python 3.11 or newer: run `make setup` in a clone
of its repository{at_commit}.

`answers` takes the path or the bytes of an image file, a PIL image, or an array of pixels; its `policy` is the number
of crops to average: 1, 10 or 144. Preprocessing is part of the weights' files."""
UNCOMMITTED = " (the run's code had changes that were not committed)"
CLASSES_SHOWN = 50
ACCURACY_DIGITS = 6


def model_card(
    name: str,
    report: Report,
    cost: MeasuredCost,
    recipe: Recipe,
    manifest: Manifest,
    license_fields: Mapping[str, str],
    commit: str,
) -> str:
    """Return the text of README.md.

    Args:
        name: folder or ``hf://OWNER/REPO`` from which the ensemble is loaded.
        report: content of report.json.
        cost: content of cost.json.
        recipe: recipe of the training.
        manifest: data set of the run.
        license_fields: fields of the front matter that name a license; empty if none is chosen.
        commit: that of the run's newest job, as the job recorded it; empty if it is unknown.
    """
    replicas = count(len(report["ensemble"]["replicas"]), "GoogLeNet")
    classes = count(report["classes"], "class", "classes")
    sections = [
        _front_matter(name, report, recipe, license_fields),
        f"# {plain(short_name(name))}",
        f"An ensemble of {replicas} for {classes}, trained and evaluated with {METHOD}.",
        headline(report),
        "## Use",
        USE.format(name=name, at_commit=_at(commit)),
        "## Evaluation",
        markdown_columns(report, cost, {1, report["table"][-1]["models"]}),
        "\n".join(f"- {plain(note)}" for note in notes(report)),
        f"{cost_remark(report, cost)} `report.json` has all figures.",
        "## Training",
        _training(recipe, manifest),
        "## Classes",
        some([plain(name) for name in report["ensemble"]["classes"]], CLASSES_SHOWN),
    ]
    return "\n\n".join(sections) + "\n"


def _at(commit: str) -> str:
    if not commit:
        return ""
    clean = commit.removesuffix(DIRTY)  # a name that git knows
    return f" at commit {code(clean)}{UNCOMMITTED * (clean != commit)}"


def _front_matter(name: str, report: Report, recipe: Recipe, license_fields: Mapping[str, str]) -> str:
    from huggingface_hub import ModelCardData

    of_hugging_face, _ = _hugging_face_dataset(recipe.data)
    data = ModelCardData(
        **license_fields,
        library_name="googlenet-ensemble",
        pipeline_tag="image-classification",
        tags=["googlenet", "ensemble"],
        base_model=parse_hub_name(recipe.init_weights).id if is_hub_name(recipe.init_weights) else None,
        datasets=[of_hugging_face] if of_hugging_face else None,
        metrics=["accuracy"],
        model_name=short_name(name),
        eval_results=list(_results(report, recipe.data)),
    )
    chosen = [] if license_fields else [CHOOSE_LICENSE]
    return "\n".join(["---", *chosen, data.to_yaml(), "---"])


def _results(report: Report, data: str) -> "Iterator[EvalResult]":
    from huggingface_hub import EvalResult

    dataset, revision = _hugging_face_dataset(data)
    for row in report["table"]:
        if row["models"] not in (1, report["table"][-1]["models"]):
            continue
        for top in tops_shown(report):
            yield EvalResult(
                task_type="image-classification",
                dataset_type=dataset or "imagefolder",
                dataset_name=short_name(dataset or data),
                dataset_split="validation",
                dataset_revision=revision or None,
                metric_type="accuracy",
                metric_name=f"top-{top[-1]} accuracy, {count(row['models'], 'model')} x {crops_in_words(row)}",
                metric_value=_accuracy(row["top1_error"] if top == "top1" else row["top5_error"]),
            )


def _accuracy(error_percent: float) -> float:
    return round(1 - error_percent / 100, ACCURACY_DIGITS)


def _hugging_face_dataset(data: str) -> tuple[str, str]:
    """Return the data set's name on Hugging Face and its revision, both empty for other data."""
    if not is_hub_name(data):
        return "", ""
    uri = parse_hub_name(data)
    return uri.id, uri.revision or ""


def _training(recipe: Recipe, manifest: Manifest) -> str:
    train, val = (count(manifest.splits[split].images, "image") for split in ("train", "val"))
    data = _hugging_face_dataset(recipe.data)[0] or short_name(recipe.data)
    given = recipe.init_weights
    start = f", starting from {code(given if is_hub_name(given) else short_name(given))}" if given else ""
    return (
        f"Recipe {code(recipe.name)} (variant `{recipe.variant}`, width {recipe.width:g}, {recipe.crop_px} px, "
        f"{count(recipe.epochs, 'epoch')}){start}, on {train} of the data set {plain(data)}; evaluated on {val} of it. "
        "`recipe.json` has every setting; `train_ensemble.py --recipe recipe.json` repeats the training."
    )
