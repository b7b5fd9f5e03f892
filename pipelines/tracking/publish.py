"""Publication of a finished run in MLflow: the models, their versions, the champion of a data set."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.errors import UserError
from pipelines.run.dataset import Manifest
from pipelines.run.directory import read_report, replica_number
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.recipe import Recipe
from pipelines.tracking.commands import replay_command
from pipelines.tracking.dataset import CLASSES_TAG
from pipelines.tracking.graph_flavor import GraphFlavor
from pipelines.tracking.model_identity import NOT_THERE, WEIGHTS_TAG, logged_ensemble
from pipelines.tracking.model_metrics import rows_of_ensemble, send_model_metrics
from pipelines.tracking.model_pages import CHAMPION, describe_logged_model, describe_model
from pipelines.tracking.models import log_ensemble, log_replica, origin_of
from pipelines.tracking.notes import ERROR_NAMES, errors_that_count, replica_note, rows_of_replica
from pipelines.tracking.result import PERCENT_DECIMALS, send_note
from pipelines.tracking.runs import MlflowRuns

ChampionRule = Literal["better", "always", "never"]
# Metrics of the table's cells: result.result_metrics.
LOWER_IS_BETTER = re.compile(
    r"(top[15]_error/\w+|(negative_log_likelihood|brier_score|expected_calibration_error)/\w+(/calibrated)?)"
)
ModelsToLog = Literal["all", "ensemble", "none"]


@dataclass(frozen=True)
class PublishSettings:
    """Store or server, models to log, and rule for the champion.

    ``champion_metric`` is the name of a metric of the runs by which ensembles are compared, the lower the better; empty
    for the errors of all models with the most crops.

    Raises:
        UserError: there is no such metric.
    """

    tracking_uri: str
    models: ModelsToLog = "all"
    champion: ChampionRule = "better"
    champion_metric: str = ""

    def __post_init__(self) -> None:
        if self.champion_metric and not LOWER_IS_BETTER.fullmatch(self.champion_metric):
            raise UserError(
                f"--champion-metric must be a score and a cell of the table, such as top1_error/7x1 or "
                f"negative_log_likelihood/7x144/calibrated, got {self.champion_metric!r}"
            )


@dataclass(frozen=True)
class Published:
    """The outcome in one line, and the URI of the registered version; both are empty without models."""

    line: str = ""
    model: str = ""


def publish(runs: MlflowRuns, recipe: Recipe, manifest: Manifest, publishing: PublishSettings) -> Published:
    """Log the models of a finished run that are not logged yet; return the outcome."""
    if publishing.models == "none":
        return Published()
    run = runs.run
    report = read_report(run)
    ensemble = EvaluatedEnsemble.from_dict(report["ensemble"])
    origin = origin_of(runs, run, recipe, manifest)
    if publishing.models == "all":
        flavor = GraphFlavor()
        for name in ensemble.replicas:
            replica = replica_number(name)
            model_id = log_replica(runs, replica, flavor)
            describe_logged_model(runs, model_id, replica_note(name, origin))
            send_model_metrics(runs, runs.child(replica), model_id, rows_of_replica(report, name), report, manifest)
    name, number = log_ensemble(runs, run, recipe, manifest)
    # An earlier version of this program, or of MLflow, may have registered it otherwise.
    if known := logged_ensemble(runs, run, ensemble):
        send_model_metrics(runs, runs.parent, known, rows_of_ensemble(report), report, manifest)
    send_note(runs, run, manifest)
    line = choose_champion(runs, name, number, publishing.champion, publishing.champion_metric)
    describe_model(runs, name, number, origin)
    return Published(f"model: {line}", f"models:/{name}/{number}")


def choose_champion(runs: MlflowRuns, name: str, number: str, rule: ChampionRule, metric: str = "") -> str:
    """Give a version of the model ``name`` the alias ``champion`` if ``rule`` says so; return what was done, and why.

    Versions are compared by their errors, or by a ``metric`` of their runs. The line names the command that makes it
    champion if it is not.
    """
    new = runs.client.get_model_version(name, number)
    aliases = runs.client.get_registered_model(name).aliases
    champion = runs.client.get_model_version(name, aliases[CHAMPION]) if CHAMPION in aliases else None
    wins, why = _verdict(new, champion, rule, _Scores(runs, metric))
    if wins:
        runs.client.set_registered_model_alias(name, CHAMPION, number)
    elif champion is None or champion.version != new.version:
        way_out = replay_command(runs.run, runs.tracking_uri, "--champion", "always")
        why += f"; to make version {number} champion: {way_out}"
    return f"{name} {why}"


@dataclass(frozen=True)
class _Scores:
    """Scores of versions by which they are compared: a metric of their runs, or the errors in their tags."""

    runs: MlflowRuns
    metric: str

    def names(self, version: Any) -> tuple[str, ...]:
        """Return the names of the scores for people."""
        if self.metric:
            return (self.metric,)
        return tuple(ERROR_NAMES[name] for name in errors_that_count(int(version.tags[CLASSES_TAG])))

    def of(self, version: Any, like: Any) -> tuple[float, ...] | None:
        """Return the scores of a version, those that count for ``like``; None if it lacks one."""
        if not self.metric:
            wanted = errors_that_count(int(like.tags[CLASSES_TAG]))
            known = {name: version.tags[name] for name in wanted if name in version.tags}
            return tuple(map(float, known.values())) if len(known) == len(wanted) else None
        metrics = self._metrics_of(version.run_id) if version.run_id else {}
        return (metrics[self.metric],) if self.metric in metrics else None

    def _metrics_of(self, mlflow_run: str) -> dict[str, float]:
        """Return the metrics of a run; none if a user has deleted it, which its versions still name."""
        from mlflow.exceptions import MlflowException

        try:
            return dict(self.runs.client.get_run(mlflow_run).data.metrics)
        except MlflowException as error:
            if error.error_code != NOT_THERE:
                raise
            return {}

    def lacks(self, version: Any) -> str:
        """Return in words that a version has no scores; one that a user has registered need not have the tags."""
        if self.metric:
            return f"the run of version {version.version} has no metric {self.metric}"
        return f"version {version.version} has no errors among its tags"

    def text(self, scores: tuple[float, ...]) -> str:
        """Return scores for people: errors in percent."""
        if self.metric.startswith("top") or not self.metric:
            return _percent(scores)
        return f"{scores[0]:.4f}"


def _verdict(new: Any, champion: Any, rule: ChampionRule, scores: _Scores) -> tuple[bool, str]:
    name = f"version {new.version}"
    if champion is None:
        return rule != "never", f"{name}, the first champion" if rule != "never" else f"{name}; there is no champion"
    old = f"version {champion.version}"
    if champion.version == new.version:
        return False, f"{name}, the champion"
    is_evaluated_again = rule == "better" and _is_evaluated_again(new, champion)
    if rule == "always" or is_evaluated_again:
        why = ", another evaluation of the same replicas" if is_evaluated_again else ""
        return True, f"{name}, the new champion after {old}{why}"
    ours, theirs = (scores.of(version, new) for version in (new, champion))
    if ours is None or theirs is None:
        return False, f"{name}; {old} stays champion, since {scores.lacks(new if ours is None else champion)}"
    errors = f"{' / '.join(scores.names(new))} {scores.text(ours)}, {old} {scores.text(theirs)}"
    if rule == "never" or ours >= theirs:
        return False, f"{name} ({errors}); {old} stays champion"
    return True, f"{name}, the new champion ({errors})"


def _is_evaluated_again(new: Any, champion: Any) -> bool:
    """Return whether two versions have the same weights, and differ in what was fitted on the validation images."""
    is_of_same_run = bool(champion.run_id) and champion.run_id == new.run_id
    weights = [version.tags.get(WEIGHTS_TAG) for version in (new, champion)]
    return is_of_same_run and None not in weights and weights[0] == weights[1]


def _percent(errors: tuple[float, ...]) -> str:
    # As many decimals as are compared, the last one only where it is needed.
    return " / ".join(f"{error:.{PERCENT_DECIMALS}f}".removesuffix("0") for error in errors) + " %"
