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
CROP_POLICY, CALIBRATED, COVERAGE = "crop_policy", "calibrated", "coverage"
PARAMETERS = (CROP_POLICY, CALIBRATED, COVERAGE)
# Between the classes of a set, as in answers/top5.csv.
SEPARATOR = " | "
TRUTHS = {"true": True, "false": False}
INPUTS = ("image", "path", "pixels")
ERROR = "error"
SERVER = "mlflow.pyfunc.scoring_server.app"


class EnsembleModel(PythonModel):  # type: ignore[misc]
    """Classifies images, one per row: the five likeliest classes, their probabilities, and the replicas' agreement.

    Each row fills one of these columns: ``image``, the bytes of an image file (base64 in JSON); ``path``, a file on the
    machine where the model is loaded (refused by a server, which must not expose its files); ``pixels``, integers of
    shape (height, width, 3). A row that cannot be answered has the reason in the column ``error``, and nothing else.
    Inference is in fp32. Parameters:

    - ``crop_policy``, a number or text: 1, 10, 144 or one that the run was evaluated with.
    - ``calibrated``: whether probabilities get the temperature that was fitted on the run's validation images.
    - ``coverage``, such as 0.95: the column ``set`` has the classes that hold the true one with this probability, and
      ``abstain`` says whether they are more than one; 0 for neither.
    """

    def load_context(self, context: Any) -> None:
        """Load the replicas."""
        from googlenet import Ensemble, load_weights
        from googlenet.evaluation.ensemble import ABSTAIN, SET, answer_columns
        from googlenet.evaluation.kept_calibration import KeptCalibration

        about = json.loads(Path(context.artifacts[DESCRIPTION]).read_text(encoding="utf-8"))
        replicas = [load_weights(context.artifacts[name]) for name in about["replicas"]]
        self._policies = {str(policy): policy for policy in (1, 10, 144, *about["policies"])}
        self._default = str(about["policies"][-1])
        # Models of earlier versions have no calibration.
        kept = KeptCalibration.from_dict(about["calibration"]) if "calibration" in about else None
        self._ensemble = Ensemble(replicas, about["classes"], about["crop_px"], calibration=kept)
        self._columns = answer_columns(len(about["classes"]))
        self._set, self._abstain = SET, ABSTAIN
        _check_parameters_first()

    def checked(self, params: dict[str, Any] | None) -> dict[str, Any]:
        """Return the parameters as the signature wants them.

        Raises:
            mlflow.exceptions.MlflowException: one is unknown, or the crop policy is; a server answers 400.
        """
        given = params or {}
        if unknown := [str(name) for name in given if name not in PARAMETERS]:
            raise _bad_request(f"unknown parameter {', '.join(unknown)}; there are {', '.join(PARAMETERS)}")
        asked = str(given.get(CROP_POLICY, self._default))
        if asked not in self._policies:
            raise _bad_request(f"{CROP_POLICY} must be one of {', '.join(self._policies)}, got {asked!r}")
        calibrated = TRUTHS.get(str(given.get(CALIBRATED, True)).lower())
        if calibrated is None:
            raise _bad_request(f"{CALIBRATED} must be true or false, got {given[CALIBRATED]!r}")
        return {CROP_POLICY: asked, CALIBRATED: calibrated, COVERAGE: self._coverage(given, asked, calibrated)}

    def _coverage(self, given: dict[str, Any], asked: str, calibrated: bool) -> float:
        try:
            coverage = float(given.get(COVERAGE, 0))
        except (TypeError, ValueError):
            coverage = -1.0
        if not 0 <= coverage < 1:
            raise _bad_request(f"{COVERAGE} must be a number between 0 and 1, such as 0.95, got {given[COVERAGE]!r}")
        kept = self._ensemble.calibration
        if coverage and not (calibrated and kept and kept.threshold(self._policies[asked], coverage) is not None):
            raise _bad_request(
                f"{COVERAGE} needs {CALIBRATED} probabilities and a calibration for {asked} crops: "
                "a run has one for the policies it was evaluated with, from 40 validation images on"
            )
        return coverage

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer each row of ``model_input``.

        Raises:
            mlflow.exceptions.MlflowException: there are no rows, or the parameters are refused; a server answers 400.
        """
        asked = self.checked(params)
        sets = (self._set, self._abstain) if asked[COVERAGE] else ()
        columns = [*self._columns, *sets, ERROR]
        rows = pd.DataFrame(model_input).to_dict("records")
        if not rows:
            raise _bad_request(f"there are no rows; a row fills one of the columns {', '.join(INPUTS)}")
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
                self._policies[asked[CROP_POLICY]],
                calibrated=asked[CALIBRATED],
                coverage=asked[COVERAGE] or None,
            )
        except (ValueError, TypeError, OSError) as error:
            return {ERROR: str(error)}
        return {**answers, self._set: SEPARATOR.join(answers[self._set])} if self._set in answers else answers


def _image(kind: str, value: Any) -> Any:
    """Return the input of ``Ensemble.answers``: bytes, or an array."""
    if kind == "image":
        return _from_base64(value) if isinstance(value, str) else bytes(value)
    if kind == "pixels":
        return np.array([[list(pixel) if np.ndim(pixel) else pixel for pixel in line] for line in value])
    if SERVER in sys.modules:
        raise ValueError("a server does not read paths; send the image's bytes")
    return Path(value).read_bytes()


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise ValueError(f"image is not base64: {error}") from error


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


def _bad_request(message: str) -> Exception:
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    error = mlflow.exceptions.MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
    # A server would put the request's data in front of the message.
    error.json_kwargs = {"message": message}
    return error  # type: ignore[no-any-return]


mlflow.models.set_model(EnsembleModel())
