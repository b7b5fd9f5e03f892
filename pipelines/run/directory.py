"""Layout of the run directory, the only interface between the stages: its folders, and files of fixed names.

The names of numbered files (shards, jobs, loads of nodes) are made where they are written.

::

    run.json                          recipe of the run, and digest of its images; a different one is refused
    dataset/manifest.json             classes, counts, shards, digest
    dataset/{train,val}/*.parquet     encoded images, each file with a .json on what is in it
    dataset/{quarantine,bad_images}.jsonl  files that were left out, or stopped the preparation, each with its reason
    replicas/<k>/weights.safetensors  the averaged weights of a finished replica
    replicas/<k>/metrics.jsonl        one line per epoch
    replicas/<k>/sheets.jsonl         after some epochs, its answers for a few fixed validation images
    replicas/<k>/steps/*.jsonl        one file per epoch, about a hundred of its steps, one line each
    replicas/<k>/checkpoints/         the newest checkpoints, named <step>.<digest>.safetensors
    replicas/<k>/checkpoint_manager_snapshot.json  Ray Train's record of the replica
    replicas/<k>/system/<host>/*.jsonl  load of the nodes that train it, one line every ten seconds
    replicas/<k>/failure.txt          the traceback of a failed replica
    replicas/<k>/compiler_failure.txt why several workers do not compile
    system/<host>/*.jsonl             load of the node on which the job was started
    jobs/*.json                       one file per start of train_ensemble.py: command, commit, versions, nodes,
                                      seconds, usage, outcome
    training.json                     arithmetic of the training, and the reason for it
    preflight.json                    arithmetic of the predictions, measurements behind the choice, first start
    predictions/*.parquet             one row per image: probabilities of every replica and crop policy
    view_probabilities/*.parquet      of a share of the images, probabilities of every replica and view
    calibration.json                  temperatures, and scores of the labels, fitted on the validation images
    budget.json                       order of the views and cascade, fitted on the images with view probabilities
    out_of_distribution.json          how unsure the ensemble is about images of something else
    report/                           index.html, report.json, report.md, cost.json, confusion.csv, outcomes.parquet,
                                      scores.parquet, pictures
    initial_weights.*                 weights that training started from, if they came from a file
    initial_weights/*.safetensors     weights that training started from, if they were scaled on training images
    evaluations/<name>/               evaluations on other images, each with its dataset, predictions and report, or
    evaluations/<name>/answers/       answers for images without labels: top5.csv, top5.parquet
    soup/soups.json                   numbers of the replicas that each averaged network is made of
    soup/replicas/<n>/weights.safetensors  averaged network n
    soup/candidates/*.json            images that a candidate of the greedy soup answers wrongly
    soup/predictions/*.parquet        predictions of the averaged networks, like those of replicas
    teacher/targets.parquet           averaged answers of a student's teacher on the training images
    teacher/teacher.json              who the teacher is, its errors by cost, and the cost of one of its passes
    teacher/predictions/*.parquet     its answers by replica, until the targets are written
    run.lock                          the job that holds the run
    logs/                             standard error of Ray and other libraries

An evaluation in a directory of its own (``--weights``, ``--output-dir``) has the files of an evaluation at its top.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import Any, Literal

from googlenet.evaluation.kept_budget import BUDGET_JSON
from googlenet.evaluation.kept_calibration import CALIBRATION_JSON
from pipelines.errors import DamagedFileError, UserError
from pipelines.run.published_files import is_published
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage, short_name

Kind = Literal["recipe", "evaluation"]
RUN = "run.json"
# What a user can do about a damaged one, and about one that is in use, or of something else.
START_AGAIN, WAY_OUT = "start again in a new --run-dir", "choose another --run-dir"
LOCK = "run.lock"
DATASET = "dataset"
MANIFEST = f"{DATASET}/manifest.json"
QUARANTINE, BAD_IMAGES = f"{DATASET}/quarantine.jsonl", f"{DATASET}/bad_images.jsonl"
INITIAL_WEIGHTS = "initial_weights"
REPLICAS = "replicas"
TRAINING = "training.json"
PREFLIGHT = "preflight.json"
PREDICTIONS = "predictions"
VIEW_PROBABILITIES = "view_probabilities"
JOBS = "jobs"
SYSTEM = "system"
REPORT = "report"
REPORT_JSON = f"{REPORT}/report.json"
REPORT_PAGE = f"{REPORT}/index.html"
REPORT_MARKDOWN = f"{REPORT}/report.md"
COST_JSON = f"{REPORT}/cost.json"
CONFUSION = f"{REPORT}/confusion.csv"
CALIBRATION = CALIBRATION_JSON
BUDGET = BUDGET_JSON
APART = "out_of_distribution.json"
OUTCOMES = f"{REPORT}/outcomes.parquet"
SCORES = f"{REPORT}/scores.parquet"
ANSWERS = "answers"
ANSWERS_CSV, ANSWERS_PARQUET = f"{ANSWERS}/top5.csv", f"{ANSWERS}/top5.parquet"
EVALUATIONS = "evaluations"
SOUP = "soup"
SOUPS_JSON = f"{SOUP}/soups.json"
CANDIDATES = f"{SOUP}/candidates"
TEACHER = "teacher"
TARGETS = f"{TEACHER}/targets.parquet"
TEACHER_JSON = f"{TEACHER}/teacher.json"
LOGS = "logs"
NATIVE_STDERR = "native_stderr.log"
PLACES_TO_WRITE = "a folder, or s3://, gs:// or abfs://"
# Names that a run directory may hold before it is bound to a recipe; prepare_dataset.py, for example, creates some.
OWN_NAMES = {DATASET, JOBS, LOGS, REPLICAS, LOCK, SYSTEM}


@dataclass(frozen=True)
class ReplicaFiles:
    """Names of one replica's files, relative to the run directory."""

    replica: int

    @property
    def folder(self) -> str:
        """Folder of all files of this replica, including Ray Train's checkpoints."""
        return f"{REPLICAS}/{self.replica}"

    @property
    def weights(self) -> str:
        """Averaged weights; the file exists once the replica is finished."""
        return f"{self.folder}/weights.safetensors"

    @property
    def metrics(self) -> str:
        """JSON lines, one object per epoch."""
        return f"{self.folder}/metrics.jsonl"

    @property
    def sheets(self) -> str:
        """Answers for the sheet of validation images: JSON lines, one object for each of some epochs."""
        return f"{self.folder}/sheets.jsonl"

    def steps(self, epoch: int) -> str:
        """Step log of an epoch, counted from 0: JSON lines."""
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
        """Ray Train's own record: the last metrics of the replica, and where its checkpoints are."""
        return f"{self.folder}/checkpoint_manager_snapshot.json"

    @property
    def system(self) -> str:
        """Folder of the load samples of the nodes."""
        return f"{self.folder}/{SYSTEM}"

    @property
    def failure(self) -> str:
        """Traceback of the last failure."""
        return f"{self.folder}/failure.txt"

    @property
    def compiler_failure(self) -> str:
        """Error of a compiler that failed for several workers; while the file exists, they train uncompiled."""
        return f"{self.folder}/compiler_failure.txt"


def check_folder(folder: Storage) -> None:
    """Check that files can be written below ``folder``, which need not exist: no part of its path may be a file.

    Raises:
        UserError: one is, or it is on a web server or the Hub, where nothing can be written.
    """
    if is_published(folder.root):
        raise UserError(f"{folder}: nothing can be written on a web server or the Hub; choose {PLACES_TO_WRITE}")
    if not folder.is_local:
        return
    for part in (Path(folder.root), *Path(folder.root).parents):
        if part.exists():
            if not part.is_dir():
                raise UserError(f"{part} is a file, but a folder is needed there; choose another path")
            return


def read_run(run: Storage) -> Any:
    """Return what run.json holds.

    Raises:
        UserError: it is damaged; nothing else in the run directory could replace it.
    """
    values = run.read_json(RUN, START_AGAIN)
    for name in ("recipe", "evaluation"):
        if not isinstance(values.get(name, {}), dict):
            raise DamagedFileError(f"{run.below(RUN)} is damaged ({name} is no object); restore it, or {START_AGAIN}")
    return values


def read_report(run: Storage) -> Any:
    """Return the content of report.json, a :class:`pipelines.report.schema.Report`.

    Raises:
        UserError: it is damaged.
        FileNotFoundError: there is none.
    """
    return run.read_json(REPORT_JSON, needed=("ensemble",))


def read_recipe(run: Storage, way_out: str = "give one with --run-dir") -> Recipe:
    """Return the recipe of a training run; ``way_out`` says how to name another.

    Raises:
        UserError: ``run`` is not a training run.
    """
    from pipelines.run.recipe_json import recipe_from_dict

    if not run.exists(RUN) or "recipe" not in read_run(run):
        raise UserError(f"{run} holds no run of train_ensemble.py; {way_out}")
    try:
        return recipe_from_dict(read_run(run)["recipe"])
    except UserError as error:
        raise UserError(f"{run.below(RUN)} cannot be used: {error}; restore it from a copy") from error


def run_id(run: Storage) -> str:
    """Return the id of a claimed run directory."""
    return str(run.read_json(RUN, START_AGAIN, needed=("id",))["id"])


def initial_weights_file(suffix: str) -> str:
    """Return the name of the copy of the initial weights; ``suffix`` is that of the original file."""
    return f"{INITIAL_WEIGHTS}{suffix}"


def scaled_weights_file(seed: int, width: float) -> str:
    """Return the name of initial weights that were scaled on training images."""
    return f"{INITIAL_WEIGHTS}/seed_{seed}_width_{width:g}.safetensors"


def evaluation_folder(data: str, settings: list[Any]) -> str:
    """Return the folder of an evaluation of ``data``: the data's own name to read, and a digest.

    So evaluations of two folders of that name, or of one folder with other images or crops, coexist.
    """
    readable = re.sub(r"[^\w.-]+", "_", short_name(data))
    return f"{EVALUATIONS}/{readable}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]}"


def replica_name(replica: int) -> str:
    """Return the name of a replica in predictions, reports and MLflow."""
    return f"replica_{replica}"


def replica_number(name: str) -> int:
    """Inverse of :func:`replica_name`."""
    return int(name.rpartition("_")[2])


def finished_replicas(run: Storage, replicas: int) -> list[int]:
    """Return the replicas whose weights exist."""
    return [replica for replica in range(replicas) if run.exists(ReplicaFiles(replica).weights)]


def check_run_directory(run: Storage) -> None:
    """Check that the run directory still exists: writing would create a new one in its place.

    Raises:
        UserError: it does not exist, or not on this node.
    """
    if not run.exists(MANIFEST):
        here = f", or {gethostname()} does not see the folder that other nodes see under this path" * run.is_local
        raise UserError(f"the run directory {run} has vanished{here}; restore it and run the same command again")
