"""The ensemble as MLflow's generic model. MLflow keeps this file beside the weights and runs it to load them.

Of this project it needs only ``googlenet``, which is kept beside it as well.
"""

import base64
import functools
import json
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PyFuncModel, PythonModel

DESCRIPTION = "ensemble"
CROP_POLICY, CALIBRATED, COVERAGE, BUDGET = "crop_policy", "calibrated", "coverage", "budget"
PARAMETERS = (CROP_POLICY, CALIBRATED, COVERAGE, BUDGET)
# The crop policy whose views a budget computes one after the other.
ALL_VIEWS = "144"
# Between the classes of a set, as in answers/top5.csv.
SEPARATOR = " | "
TRUTHS = {"true": True, "false": False}
INPUTS = ("image", "path", "pixels")
ERROR = "error"
SERVING = "mlflow.pyfunc.scoring_server"
SERVER = f"{SERVING}.app"
# Keys of a request: one of the first for the rows, the last for the parameters.
ROWS, PARAMS = ("dataframe_records", "dataframe_split", "instances", "inputs"), "params"
COLUMNS_OF_MLFLOW = ("instances", "inputs")


class EnsembleModel(PythonModel):  # type: ignore[misc]
    """Classifies images, one per row: the five likeliest classes, their probabilities, and the replicas' agreement.

    Each row fills one of these columns: ``image``, the bytes of an image file (base64 in JSON, also as a ``data:``
    address); ``path``, a file on the machine where the model is loaded (refused by a server, which must not expose its
    files); ``pixels``, integers of shape (height, width, 3). A row that cannot be answered has the reason in the column
    ``error``, and nothing else. Inference is in fp32. Parameters:

    - ``crop_policy``, a number or text: 1, 10, 144, one that the run was evaluated with, or ``best:24``, the 24 views
      that help most on its validation images.
    - ``calibrated``: whether probabilities get the temperature that was fitted on the run's validation images.
    - ``coverage``, such as 0.95: the column ``set`` has the classes that hold the true one with this probability, and
      ``abstain`` says whether they are more than one; 0 for neither.
    - ``budget``: ``fast`` or ``balanced`` instead of a crop policy stop adding views and replicas once the answer is
      sure enough, and the column ``passes`` has how many were computed; ``best`` for all of the crop policy.
    """

    def load_context(self, context: Any) -> None:
        """Load the replicas."""
        from googlenet import Ensemble, load_weights
        from googlenet.evaluation.cascade import BUDGETS
        from googlenet.evaluation.crops import short_policy
        from googlenet.evaluation.ensemble import ABSTAIN, PASSES, SET, answer_columns
        from googlenet.evaluation.kept_budget import KeptBudget, named_policy
        from googlenet.evaluation.kept_calibration import KeptCalibration

        about = json.loads(Path(context.artifacts[DESCRIPTION]).read_text(encoding="utf-8"))
        replicas = [load_weights(context.artifacts[name]) for name in about["replicas"]]
        self._policies = {str(policy): policy for policy in (1, 10, 144, *about["policies"])}
        self._default = str(about["policies"][-1])
        # Models of earlier versions have no calibration.
        kept = KeptCalibration.from_dict(about["calibration"]) if "calibration" in about else None
        budget = KeptBudget.from_dict(about["budget"]) if "budget" in about else None
        self._ensemble = Ensemble(replicas, about["classes"], about["crop_px"], calibration=kept, budget=budget)
        self._named_policy, self._budgets, self._passes = named_policy, BUDGETS, PASSES
        self._short_policy = short_policy
        self._columns = answer_columns(len(about["classes"]))
        self._set, self._abstain = SET, ABSTAIN
        _check_parameters_first()
        _check_requests_first()

    def checked(self, params: dict[str, Any] | None) -> dict[str, Any]:
        """Return the parameters as the signature wants them.

        Raises:
            mlflow.exceptions.MlflowException: one is unknown, or cannot be used, or not with another; a server
                answers 400.
        """
        given = params or {}
        if unknown := [str(name) for name in given if name not in PARAMETERS]:
            raise _bad_request(f"unknown parameter {', '.join(unknown)}; there are {', '.join(PARAMETERS)}")
        asked = self._policy(_number_as_text(given.get(CROP_POLICY, self._default)))
        calibrated = TRUTHS.get(str(given.get(CALIBRATED, True)).lower())
        if calibrated is None:
            raise _bad_request(f"{CALIBRATED} must be true or false, got {given[CALIBRATED]!r}")
        coverage = self._coverage(given, asked, calibrated)
        budget = self._budget(given, coverage)
        if budget != self._budgets[-1]:
            # The default is allowed: MLflow fills it in before the model checks the parameters once more.
            if asked not in (self._default, ALL_VIEWS):
                raise _bad_request(
                    f"{BUDGET} {budget} decides how many of the {ALL_VIEWS} views are computed: leave out {CROP_POLICY}"
                )
            asked = ALL_VIEWS
        return {CROP_POLICY: asked, CALIBRATED: calibrated, COVERAGE: coverage, BUDGET: budget}

    def _policy(self, asked: str) -> str:
        """Return the crop policy as text, that of chosen views with its views."""
        if asked in self._policies:
            return asked
        try:
            policy = self._named_policy(asked, self._ensemble.budget)
            is_known = policy != asked or self._is_resolved(asked)
        except ValueError as error:
            raise _bad_request(str(error)) from error
        if not is_known:
            raise _bad_request(f"{CROP_POLICY} must be one of {', '.join(self._policies)} or best:24, got {asked!r}")
        return str(policy)

    def _is_resolved(self, asked: str) -> bool:
        """Return whether a policy names the chosen views already: parameters are checked once more by ``predict``."""
        short = self._short_policy(asked)
        return bool(short != asked and self._named_policy(short, self._ensemble.budget) == asked)

    def _budget(self, given: dict[str, Any], coverage: float) -> str:
        budget = str(given.get(BUDGET, self._budgets[-1]))
        if budget not in self._budgets:
            raise _bad_request(f"{BUDGET} must be one of {', '.join(self._budgets)}, got {budget!r}")
        if budget == self._budgets[-1]:
            return budget
        if self._ensemble.budget is None:
            raise _bad_request(
                f"{BUDGET} {budget} needs a cascade, which a run has if it was evaluated with 144 crops on 40 "
                "validation images or more"
            )
        if coverage:
            raise _bad_request(f"{BUDGET} {budget} cannot be combined with {COVERAGE}: sets were fitted on all views")
        return budget

    def _coverage(self, given: dict[str, Any], asked: str, calibrated: bool) -> float:
        try:
            coverage = float(given.get(COVERAGE, 0))
        except (TypeError, ValueError):
            coverage = -1.0
        if not 0 <= coverage < 1:
            raise _bad_request(f"{COVERAGE} must be a number between 0 and 1, such as 0.95, got {given[COVERAGE]!r}")
        kept = self._ensemble.calibration
        if coverage and not (calibrated and kept and kept.threshold(asked, coverage) is not None):
            raise _bad_request(
                f"{COVERAGE} needs {CALIBRATED} probabilities and a calibration for {CROP_POLICY} "
                f"{self._short_policy(asked)}; a run has one for each policy that it was evaluated with on 40 "
                "validation images or more"
            )
        if coverage and kept and (missing := kept.images_missing_for(coverage)):
            raise _bad_request(f"{COVERAGE} {coverage:g} {missing}")
        return coverage

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer each row of ``model_input``.

        Raises:
            mlflow.exceptions.MlflowException: no row has an image, or the parameters are refused; a server answers 400.
        """
        asked = self.checked(params)
        more = [self._set, self._abstain] if asked[COVERAGE] else []
        more += [self._passes] if asked[BUDGET] != self._budgets[-1] else []
        columns = [*self._columns, *more, ERROR]
        rows = pd.DataFrame(model_input).to_dict("records")  # MLflow drops columns that are not in the signature
        if not rows:
            raise _bad_request(f"no row fills one of the columns {', '.join(INPUTS)}")
        answers = [{**dict.fromkeys(columns), **self._answer(row, asked)} for row in rows]
        # A float column would have NaN where a row is not answered; JSON has no NaN, but null for None.
        is_complete = all(answer[ERROR] is None for answer in answers)
        frame = pd.DataFrame(answers, columns=columns, dtype=object)
        return frame.infer_objects() if is_complete else frame

    def _answer(self, row: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
        given = {name: row[name] for name in INPUTS if not _is_missing(row.get(name))}
        if len(given) != 1:
            return {ERROR: f"a row must fill one of the columns {', '.join(INPUTS)}, got {len(given)}"}
        [(kind, value)] = given.items()
        try:
            answers = self._ensemble.answers(
                _image(kind, value),
                self._policies.get(asked[CROP_POLICY], asked[CROP_POLICY]),
                calibrated=asked[CALIBRATED],
                coverage=asked[COVERAGE] or None,
                budget=asked[BUDGET],
            )
        except (ValueError, TypeError, OSError, MemoryError, RecursionError) as error:
            return {ERROR: str(error) or f"the image needs too much memory ({type(error).__name__})"}
        return {**answers, self._set: SEPARATOR.join(answers[self._set])} if self._set in answers else answers


def _image(kind: str, value: Any) -> Any:
    """Return the input of ``Ensemble.answers``: bytes, an array, or a path."""
    if kind == "image":
        if not isinstance(value, str | bytes | bytearray | memoryview | list | tuple | np.ndarray):  # bytes of a number
            raise ValueError(f"image must be the bytes of a file, or base64, got {type(value).__name__}")
        return _from_base64(value) if isinstance(value, str) else bytes(value)
    if kind == "pixels":
        if not isinstance(value, list | tuple | np.ndarray):  # a text would be taken for a path
            raise ValueError(f"pixels must be an array, got {type(value).__name__}")
        return _nested_lists(list(value) if isinstance(value, tuple) else value)
    if SERVER in sys.modules:
        raise ValueError("a server does not read paths; send the image's bytes")
    return Path(value)


def _nested_lists(value: Any) -> Any:
    """Return pixels with lists in place of the arrays of arrays that MLflow makes of them."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value
    holds_more = len(value) and isinstance(value[0], list | np.ndarray)
    return [_nested_lists(inner) for inner in value] if holds_more else value


def _from_base64(text: str) -> bytes:
    if text.startswith("data:"):  # as browsers give files to programs: data:image/jpeg;base64,...
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise ValueError(f"image is not base64: {error}") from error


def _number_as_text(value: Any) -> str:
    """Return a crop policy as text; some programs write all numbers of JSON as 10.0."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _check_parameters_first() -> None:
    """Let MLflow pass parameters to :meth:`EnsembleModel.checked`, once in a process.

    MLflow drops unknown parameters before a model sees them, so that a misspelt one would be answered as if it had not
    been given, and refuses a number where the signature has text.
    """
    predict = PyFuncModel.predict
    if hasattr(predict, "checks_ensembles"):
        return

    @functools.wraps(predict)
    def checking(self: Any, data: Any, params: dict[str, Any] | None = None) -> Any:
        check = getattr(getattr(self._model_impl, "python_model", None), "checked", None)
        return predict(self, data, check(params) if check else params)

    checking.checks_ensembles = True  # type: ignore[attr-defined]
    PyFuncModel.predict = checking


def _check_requests_first() -> None:
    """Let MLflow's server pass requests to :func:`_check_request`, once in a process: it would drop unknown keys."""
    serving = sys.modules.get(SERVING)
    if serving is None or hasattr(serving._parse_json_data, "checks_ensembles"):
        return
    parse = serving._parse_json_data

    @functools.wraps(parse)
    def checking(data: Any, metadata: Any, input_schema: Any) -> Any:
        request, schema = serving._decode_json_input(data), metadata.get_params_schema()
        if schema and tuple(param.name for param in schema.params) == PARAMETERS:  # an ensemble's, not another model's
            _check_request(request)
            request = _with_rows_apart(request)
        return parse(request, metadata, input_schema)

    checking.checks_ensembles = True  # type: ignore[attr-defined]
    serving._parse_json_data = checking  # type: ignore[attr-defined]


def _check_request(request: dict[str, Any]) -> None:
    """Refuse a request whose parameters are not where MLflow looks for them.

    Raises:
        mlflow.exceptions.MlflowException: it has another key, rows under several, a parameter as a column of its
            rows, or nameless ones.
    """
    if unknown := [str(name) for name in request if name not in (*ROWS, PARAMS)]:
        raise _bad_request(
            f"unknown key {', '.join(unknown)}; a request has rows, as {' or '.join(ROWS)}, and {PARAMS} ("
            f"{', '.join(PARAMETERS)})"
        )
    if len(given := [name for name in ROWS if name in request]) > 1:
        raise _bad_request(f"a request has its rows under one key, got {' and '.join(given)}")
    if not isinstance(request.get(PARAMS) or {}, dict):
        raise _bad_request(f'{PARAMS} must be an object, such as {{"{CROP_POLICY}": "10"}}')
    if misplaced := [name for name in PARAMETERS if name in _columns(request)]:
        raise _bad_request(f"in the rows: {', '.join(misplaced)}; give parameters once, in {PARAMS} beside the rows")


def _with_rows_apart(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request whose rows stay apart.

    Of ``instances`` and ``inputs``, MLflow makes columns: where a row lacks one, the next row's value would move up.

    Raises:
        mlflow.exceptions.MlflowException: the columns have different lengths.
    """
    for key in COLUMNS_OF_MLFLOW:
        rows = request.get(key)
        if isinstance(rows, dict) and rows and all(isinstance(column, list) for column in rows.values()):
            if len({len(column) for column in rows.values()}) > 1:
                lengths = ", ".join(f"{name} {len(column)}" for name, column in rows.items())
                raise _bad_request(f"the columns of {key} must be of one length, got {lengths}")
            rows = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            others = {name: value for name, value in request.items() if name != key}
            return {**others, ROWS[0]: rows}
    return request


def _columns(request: dict[str, Any]) -> list[Any]:
    """Return the names of the columns that any row of a request has, as far as it is well formed."""
    [rows, *_] = [request[name] for name in ROWS if name in request] or [None]
    if isinstance(rows, dict):
        names = rows.get("columns", list(rows))
        return names if isinstance(names, list) else []
    return [name for row in rows if isinstance(row, dict) for name in row] if isinstance(rows, list) else []


def _bad_request(message: str) -> Exception:
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    error = mlflow.exceptions.MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
    # A server would put the request's data in front of the message.
    error.json_kwargs = {"message": message}
    return error  # type: ignore[no-any-return]


mlflow.models.set_model(EnsembleModel())
