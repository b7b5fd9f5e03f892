"""Notes on runs (MLflow's description) in Markdown: results, where to look, how to repeat the run."""

from typing import Any

from pipelines.report.schema import Report
from pipelines.report.text import headline, headline_markdown

# MLflow truncates longer tags.
MAX_CHARACTERS = 8000
PICTURES = (
    ("error_by_models.png", "Error by the number of models"),
    ("learning_curves.png", "Learning curves"),
    ("views.png", "Error by scale and kind of view"),
)


def parent_note(
    report: Report, cost: dict[str, Any], jobs: list[dict[str, Any]], parent: str, pictures: set[str]
) -> str:
    """Return the note on a finished run: the table, pictures, and how to repeat the run.

    Pictures are the run's own artifacts, under the URLs of MLflow's server.
    """
    latest = jobs[-1] if jobs else {}
    images = [
        f"![{title}](get-artifact?path=report%2F{name}&run_uuid={parent})"
        for name, title in PICTURES
        if name in pictures
    ]
    commit = latest.get("commit", "")
    sections = [
        headline(report),
        headline_markdown(report, cost),
        "Everything else: `report/index.html` under Artifacts.",
        *images,
        f"To repeat this run: `python pipelines/train_ensemble.py --recipe runs:/{parent} --run-dir NEW`"
        + (f" at commit `{commit}`." if commit else "."),
    ]
    return _fitting(sections)


def _fitting(sections: list[str]) -> str:
    """Join the sections that fit into a note, earlier ones first; no section is truncated."""
    text = ""
    for section in filter(None, sections):
        longer = f"{text}\n\n{section}" if text else section
        if len(longer) <= MAX_CHARACTERS:
            text = longer
    return text


def child_note(replica: int, seed: int, metrics: list[dict[str, Any]], failure: str | None) -> str:
    """Return the note on a replica: what distinguishes it, its progress, and what went wrong."""
    lines = [f"Replica {replica}, trained with sampling seed {seed}."]
    if metrics:
        last = metrics[-1]
        lines.append(
            f"After {last['epoch']} epochs its top-1 error with one centre crop is {last['val_top1_error']:.2f} % with "
            f"the averaged weights, {last['val_top1_error_raw_weights']:.2f} % with the raw ones."
        )
        hosts = sorted({line["host"] for line in metrics})
        lines.append(f"Trained on {', '.join(hosts)}.")
    if failure:
        lines.append(f"```\n{failure[-MAX_CHARACTERS // 2 :].rstrip()}\n```")
    return "\n\n".join(lines)
