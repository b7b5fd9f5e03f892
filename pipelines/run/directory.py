"""The run directory: the only interface between the stages. Its layout is defined here and nowhere else.

::

    run.json                          recipe and data of the run; a different one is refused
    dataset/manifest.json             classes, counts, shards, digest
    dataset/{train,val}/*.parquet     encoded images
    dataset/quarantine.jsonl          files that were left out, with the reason of each
    replicas/<k>/weights.safetensors  the averaged weights of a finished replica
    replicas/<k>/metrics.jsonl        one line an epoch
    replicas/<k>/steps/*.jsonl        one file an epoch, about a hundred steps of it, one line each
    replicas/<k>/checkpoints/         the newest checkpoints, named <step>.<digest>.safetensors
    replicas/<k>/system/<host>/*.jsonl  load of the nodes that train it, a line every ten seconds
    replicas/<k>/failure.txt          the traceback of a replica that failed
    system/<host>/*.jsonl             load of the node that the job was started on
    jobs/*.json                       one file a start: command, commit, versions, nodes, seconds by stage, outcome
    training.json                     arithmetic of the training, and why
    preflight.json                    arithmetic of the predictions, and what was measured to choose it
    predictions/*.parquet             one row an image: probabilities of every replica and crop policy
    report/                           report.json, report.md, cost.json, confusion.csv, pictures
    answers/                          of images without labels: top5.csv, top5.parquet
    initial_weights.*                 what training started from, if that was a file
    evaluations/<name>/               evaluations on other images: dataset, predictions and report of their own
    run.lock                          who holds the run
    logs/                             what Ray and other libraries wrote on standard error
"""

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipelines.errors import UserError
from pipelines.run.storage import Storage

if TYPE_CHECKING:
    from pipelines.run.recipe import Recipe  # needs PyTorch, which those who only look for a file do without

Kind = Literal["recipe", "evaluation"]
RUN = "run.json"
LOCK = "run.lock"
DATASET = "dataset"
MANIFEST = f"{DATASET}/manifest.json"
QUARANTINE = f"{DATASET}/quarantine.jsonl"
REPLICAS = "replicas"
TRAINING = "training.json"
PREFLIGHT = "preflight.json"
PREDICTIONS = "predictions"
JOBS = "jobs"
SYSTEM = "system"
REPORT = "report"
REPORT_JSON = f"{REPORT}/report.json"
REPORT_PAGE = f"{REPORT}/index.html"
REPORT_MARKDOWN = f"{REPORT}/report.md"
COST_JSON = f"{REPORT}/cost.json"
CONFUSION = f"{REPORT}/confusion.csv"
OUTCOMES = f"{REPORT}/outcomes.parquet"
ANSWERS = "answers"
ANSWERS_CSV = f"{ANSWERS}/top5.csv"
ANSWERS_PARQUET = f"{ANSWERS}/top5.parquet"
EVALUATIONS = "evaluations"
LOGS = "logs"
NATIVE_STDERR = "native_stderr.log"
# Names that a run directory may hold before a recipe is bound to it; prepare_dataset.py, for one, makes some of them.
OWN_NAMES = {DATASET, JOBS, LOGS, REPLICAS, LOCK, SYSTEM}


@dataclass(frozen=True)
class ReplicaFiles:
    """Names of one replica's files, below the run directory."""

    replica: int

    @property
    def folder(self) -> str:
        """Everything of this replica, Ray Train's checkpoints included."""
        return f"{REPLICAS}/{self.replica}"

    @property
    def weights(self) -> str:
        """Averaged weights; there once the replica is finished."""
        return f"{self.folder}/weights.safetensors"

    @property
    def metrics(self) -> str:
        """One JSON object a line, one line an epoch."""
        return f"{self.folder}/metrics.jsonl"

    def steps(self, epoch: int) -> str:
        """The step log of an epoch, counted from 0: one JSON object a line."""
        return f"{self.step_log}/{epoch:05d}.jsonl"

    @property
    def step_log(self) -> str:
        """Folder of the step logs."""
        return f"{self.folder}/steps"

    @property
    def checkpoints(self) -> str:
        """Folder of the newest checkpoints."""
        return f"{self.folder}/checkpoints"

    @property
    def ray_snapshot(self) -> str:
        """Ray Train's own list of checkpoints, always empty."""
        return f"{self.folder}/checkpoint_manager_snapshot.json"

    @property
    def system(self) -> str:
        """Folder of the samples of the nodes' load."""
        return f"{self.folder}/{SYSTEM}"

    @property
    def failure(self) -> str:
        """Traceback of the last failure."""
        return f"{self.folder}/failure.txt"


def claim(run: Storage, kind: Kind, settings: dict[str, Any]) -> None:
    """Bind ``run`` to what is asked of it, or check that it already is.

    ``settings`` decide the result: a recipe's fields, or those of an evaluation of weights from elsewhere.

    Raises:
        UserError: it belongs to other settings, or holds files that are no run.
    """
    if run.exists(RUN):
        if found := differences(run.read_json(RUN).get(kind, {}), settings):
            raise UserError(
                f"{run} holds another {kind}:\n  "
                + "\n  ".join(found)
                + "\nRepeat it with the same options, or choose another --run-dir."
            )
        return
    if strangers := [name for name in run.names("") if name not in OWN_NAMES]:
        raise UserError(f"{run} is not empty and holds no run ({strangers[0]}, ...); choose another --run-dir")
    # The id tells this run from an earlier one at the same place, in trackers that remember both.
    run.write_json(RUN, {"id": uuid.uuid4().hex, kind: settings})


def read_recipe(run: Storage) -> "Recipe":
    """The recipe of a training run.

    Raises:
        UserError: ``run`` is none.
    """
    from pipelines.run.recipe import recipe_from_dict

    if not run.exists(RUN) or "recipe" not in run.read_json(RUN):
        raise UserError(f"{run} holds no run of train_ensemble.py; name one with --run-dir, or weights with --weights")
    return recipe_from_dict(run.read_json(RUN)["recipe"])


def run_id(run: Storage) -> str:
    """The identity of a claimed run directory."""
    return str(run.read_json(RUN)["id"])


def initial_weights_file(suffix: str) -> str:
    """Name of the copy of the weights that training starts from; ``suffix`` is that of the original file."""
    return f"initial_weights{suffix}"


def replica_name(replica: int) -> str:
    """What a replica is called in predictions, reports and MLflow."""
    return f"replica_{replica}"


def replica_number(name: str) -> int:
    """Inverse of :func:`replica_name`."""
    return int(name.rpartition("_")[2])


def read_metrics(run: Storage, replica: int) -> list[dict[str, Any]]:
    """The finished epochs of a replica, oldest first."""
    name = ReplicaFiles(replica).metrics
    return _json_lines(run, name) if run.exists(name) else []


def read_steps(run: Storage, replica: int, after: int) -> list[dict[str, Any]]:
    """The lines of a replica's step log of steps later than ``after``, oldest first."""
    return lines_after(run, ReplicaFiles(replica).step_log, "step", after)


def lines_after(run: Storage, folder: str, key: str, after: int) -> list[dict[str, Any]]:
    """The lines of the files in ``folder`` whose ``key`` is greater than ``after``, oldest first.

    Names and lines are in the order of ``key``.
    """
    lines: list[dict[str, Any]] = []
    # From the last file backwards: what was read before is not read again.
    for name in reversed(run.files(folder)):
        found = _json_lines(run, f"{folder}/{name}")
        news = [line for line in found if line[key] > after]
        lines = news + lines
        if len(news) < len(found):
            break
    return lines


def _json_lines(run: Storage, name: str) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in run.read(name).decode().splitlines()]
    except ValueError as error:
        raise UserError(
            f"{run.below(name)} is damaged ({error}); delete it, its figures are lost, or put it back"
        ) from error


def finished_replicas(run: Storage, replicas: int) -> list[int]:
    """The replicas whose weights are there."""
    return [replica for replica in range(replicas) if run.exists(ReplicaFiles(replica).weights)]


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line for each field that differs, those that only one side knows included; a label may differ."""
    absent = "(absent)"
    names = dict.fromkeys([*old, *new])
    return [
        f"{name}: {old.get(name, absent)!r} there, {new.get(name, absent)!r} now"
        for name in names
        if name != "name" and old.get(name, absent) != new.get(name, absent)
    ]


def check_run_directory(run: Storage) -> None:
    """Check that the run directory still exists: writing would create a new one in its place.

    Raises:
        UserError: it has vanished.
    """
    if not run.exists(MANIFEST):
        raise UserError(f"the run directory {run} has vanished; bring it back and give the same command again")
