"""The fields of report.json about how sure the answers are: calibration, sets of classes, answers left to people."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from pipelines.report.fields import ClassName, CropPolicy, JudgedOn, Models, ScoreInterval

Measure = Annotated[
    Literal["maximum_probability", "entropy", "mutual_information"],
    Field(description="How sure: largest mean probability; entropy of the mean; disagreement of several replicas."),
]


class CalibrationRow(CropPolicy):
    """Calibration of one model (mean of the single models) or of all models, with a crop policy."""

    models: Models
    negative_log_likelihood: Annotated[float, Field(description="Mean over images, in nats.")]
    brier_score: Annotated[float, Field(description="Mean over images, from 0 to 2.")]
    expected_calibration_error: Annotated[
        float, Field(description="Mean gap between confidence and accuracy, weighted by images, from 0 to 1.")
    ]


class ReliabilityBin(TypedDict):
    """A bin of the reliability diagram; empty bins are left out."""

    confidence_from: Annotated[float, Field(description="Lower bound of the bin, a probability.")]
    confidence_to: Annotated[float, Field(description="Upper bound of the bin (included), a probability.")]
    images: Annotated[int, Field(description="Images in the bin.")]
    mean_confidence: Annotated[float, Field(description="Mean probability of their top-1 answers.")]
    accuracy: Annotated[float, Field(description="Share of right top-1 answers, from 0 to 1.")]


class ScoreChange(TypedDict):
    """A score before and after the temperature, with 95 % bootstrap intervals over images."""

    before: Annotated[float, Field(description="Score of the probabilities as they were averaged.")]
    before_ci95: ScoreInterval
    after: Annotated[float, Field(description="Score of the probabilities with the temperature.")]
    after_ci95: ScoreInterval
    difference: Annotated[float, Field(description="After minus before, paired by image; negative is better.")]
    difference_ci95: ScoreInterval


class TemperatureRow(CropPolicy):
    """The temperature of the ensembles of one size with a crop policy, and its worth: means over these ensembles."""

    models: Models
    ensembles: NotRequired[
        Annotated[
            int,
            Field(
                description="Ensembles of this size that it was fitted and judged on; each replica is in equally many. "
                "Absent in reports of earlier versions, which have one model and all models only."
            ),
        ]
    ]
    temperature: Annotated[
        float, Field(description="T: averaged probabilities p become p^(1/T); fitted on all the images, or before.")
    ]
    images: Annotated[int, Field(description="Images it was judged on; of many images, a share chosen by a hash.")]
    judged_on: JudgedOn
    folds: Annotated[int, Field(description="Folds of the images, by a hash of their ids.")]
    negative_log_likelihood: Annotated[ScoreChange, Field(description="Mean over images, in nats.")]
    brier_score: Annotated[ScoreChange, Field(description="Mean over images, from 0 to 2.")]
    expected_calibration_error: Annotated[ScoreChange, Field(description="From 0 to 1.")]


class ClassCoverage(ClassName):
    """How often the sets of the images of one class hold it."""

    images: Annotated[int, Field(description="Images of the class.")]
    empirical_coverage: Annotated[float, Field(description="Images whose set holds the class, in percent.")]


class SetRow(TypedDict):
    """Prediction sets of all models with the most crops, for one promised coverage."""

    coverage: Annotated[float, Field(description="Probability with which a set is to hold the label, from 0 to 1.")]
    penalty: NotRequired[
        Annotated[
            float,
            Field(
                description="Added to a class's score for each rank after the first, to shorten long sets; absent in "
                "reports of earlier versions, which have none."
            ),
        ]
    ]
    judged_on: JudgedOn
    fitted_images: NotRequired[
        Annotated[
            int,
            Field(
                description="Images that the threshold was fitted on, of the folds the fewest; absent in reports of "
                "earlier versions."
            ),
        ]
    ]
    images: Annotated[int, Field(description="Number of these images.")]
    empirical_coverage: Annotated[float, Field(description="Images whose set holds the label, in percent.")]
    empirical_coverage_ci95: ScoreInterval
    mean_size: Annotated[float, Field(description="Mean number of classes in a set.")]
    single_answers: Annotated[float, Field(description="Images whose set is a single class, in percent.")]
    classes: Annotated[list[ClassCoverage], Field(description="By class; classes without images are left out.")]


class ApartRow(TypedDict):
    """How well a measure tells images of something else from those of the report, with all models and most crops."""

    data: Annotated[str, Field(description="Folder of the images of something else.")]
    images: Annotated[int, Field(description="Number of these images.")]
    measure: Measure
    area_under_roc: Annotated[
        float, Field(description="Chance that one of them is less sure than one of the report, from 0 to 1 (AUROC).")
    ]
    area_under_roc_ci95: ScoreInterval
    false_positives: Annotated[
        float, Field(description="Share of them that pass if 95 % of the report's images do, in percent.")
    ]
    false_positives_ci95: ScoreInterval


class SelectiveRow(TypedDict):
    """Errors of all models with the most crops if the least sure images are left to people, by one measure."""

    measure: Measure
    images: NotRequired[
        Annotated[
            int,
            Field(
                description="Images it was judged on; of many images, a share chosen by a hash. Absent in reports of "
                "earlier versions."
            ),
        ]
    ]
    area: Annotated[
        float, Field(description="Mean of the remaining error over all shares of answered images, in percent (AURC).")
    ]
    area_ci95: ScoreInterval
    remaining_errors: Annotated[
        list[list[float]], Field(description="Pairs: surest images answered, in percent; top-1 error among them.")
    ]
