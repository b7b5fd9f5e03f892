"""The fields of report.json, and the JSON Schema made from them, docs/report.schema.json.

python -m pipelines.report.schema > docs/report.schema.json
"""

import json
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict

from googlenet.network.arithmetic import Precision
from pipelines.report.fields import (
    AveragingError,
    BaseDifference,
    BaseDifferenceInterval,
    ChosenOn,
    ClassName,
    ComputedPasses,
    CropPolicy,
    ErrorDeviation,
    ErrorRange,
    Interval,
    MaximumError,
    MeanError,
    MeanErrorInterval,
    Models,
    PoolingDifference,
    PoolingDifferenceInterval,
    ReplicaError,
    WiderInterval,
)
from pipelines.report.schema_of_certainty import (
    ApartRow,
    CalibrationRow,
    ReliabilityBin,
    SelectiveRow,
    SetRow,
    TemperatureRow,
)
from pipelines.report.schema_of_provenance import EvaluatedBy, Run
from pipelines.report.schema_of_spending import BudgetRow, SoupRow, SpendingRow

TITLE = "report.json of googlenet-ensemble"


class TableRow(CropPolicy):
    """A cell of the paper's table 3: an ensemble size and a crop policy."""

    models: Models
    top1_error: MeanError
    top1_ci95: MeanErrorInterval
    top1_ci95_images_and_replicas: NotRequired[WiderInterval]
    top1_range: ErrorRange
    top1_std: ErrorDeviation
    top1_difference: BaseDifference
    top1_difference_ci95: BaseDifferenceInterval
    top1_difference_ci95_images_and_replicas: NotRequired[WiderInterval]
    top5_error: MeanError
    top5_ci95: MeanErrorInterval
    top5_ci95_images_and_replicas: NotRequired[WiderInterval]
    top5_range: ErrorRange
    top5_std: ErrorDeviation
    top5_difference: BaseDifference
    top5_difference_ci95: BaseDifferenceInterval
    top5_difference_ci95_images_and_replicas: NotRequired[WiderInterval]
    ensembles: Annotated[int, Field(description="Number of ensembles of this size.")]
    forward_passes: Annotated[int, Field(description="Forward passes per image: models x crops.")]
    computed_passes: NotRequired[ComputedPasses]
    paper_top5_error: Annotated[
        float | None,
        Field(
            description="The paper's top-5 error (ImageNet), in percent, whatever the images; null where it has none."
        ),
    ]


class ReplicaRow(CropPolicy):
    """Errors of one replica with a crop policy."""

    top1_error: ReplicaError
    top5_error: ReplicaError


class ReplicaErrors(TypedDict):
    """Errors of one replica alone."""

    replica: Annotated[str, Field(description="Name of the replica.")]
    rows: Annotated[list[ReplicaRow], Field(description="One row per crop policy.")]


class SingleModel(ReplicaErrors):
    """Errors of the replica that the paper would choose as its single model."""

    chosen_on: NotRequired[ChosenOn]


class PoolingRow(CropPolicy):
    """Mean and maximum over views compared; errors are means over all ensembles of this size."""

    models: Models
    top1_error_average: AveragingError
    top1_error_max: MaximumError
    top1_difference: PoolingDifference
    top1_difference_ci95: PoolingDifferenceInterval
    top5_error_average: AveragingError
    top5_error_max: MaximumError
    top5_difference: PoolingDifference
    top5_difference_ci95: PoolingDifferenceInterval


class ViewErrors(TypedDict):
    """Errors with one view alone."""

    scale_px: Annotated[int, Field(description="Shorter side of the scaled image, in pixels.")]
    square: Annotated[str, Field(description="Square along the longer side: first, centre or last.")]
    kind: Annotated[
        str,
        Field(description="Crop: top_left, top_right, bottom_left, bottom_right, centre, or resized (the square)."),
    ]
    mirrored: Annotated[bool, Field(description="Whether the view is mirrored.")]
    top1_error: Annotated[float, Field(description="Mean top-1 error of the single models, in percent.")]
    top1_error_all_models: Annotated[float, Field(description="Top-1 error of all models, in percent.")]


class ViewGroupErrors(TypedDict):
    """Errors with the average over all views that share a scale, square, kind or orientation."""

    group: Annotated[str, Field(description="Name of the group, such as 'scale 256 px'.")]
    top1_error: Annotated[float, Field(description="Mean top-1 error of the single models, in percent.")]
    top1_ci95: Annotated[Interval, Field(description="Its 95 % interval, in percent: low, high.")]
    top1_error_all_models: Annotated[float, Field(description="Top-1 error of all models, in percent.")]
    top1_ci95_all_models: Annotated[Interval, Field(description="Its 95 % interval, in percent: low, high.")]


class ReplicaPair(TypedDict):
    """Two replicas, and the gain from averaging them."""

    replicas: Annotated[
        list[int], Field(min_length=2, max_length=2, description="Their positions in ensemble.replicas, from 0.")
    ]
    disagreement: Annotated[float, Field(description="Images with different top-1 answers, in percent.")]
    gain: Annotated[
        float, Field(description="Mean top-1 error of the two minus that of their average, in percentage points.")
    ]


class Diversity(TypedDict):
    """Differences between the replicas' answers, with the most crops."""

    disagreement: Annotated[
        list[list[float]],
        Field(description="K x K matrix for K replicas: images with different top-1 answers, in percent."),
    ]
    pairs: Annotated[list[ReplicaPair], Field(description="All pairs of replicas; empty for one replica.")]


class ClassErrors(ClassName):
    """Errors of all models with the most crops on the images of one class."""

    images: Annotated[int, Field(description="Images of the class.")]
    top1_error: Annotated[float | None, Field(description="Top-1 error, in percent; null without images.")]
    most_often_taken_for: Annotated[
        str | None, Field(description="Most frequent wrong answer, a class; null if there is none.")
    ]


class Mistake(TypedDict):
    """An image that all models with the most crops answer wrongly."""

    image_id: Annotated[str, Field(description="Id of the image in the data set.")]
    label: Annotated[str, Field(description="Its class.")]
    answer: Annotated[str, Field(description="The top-1 answer, a class.")]
    probability: Annotated[float, Field(description="Probability of the answer.")]
    probability_of_label: Annotated[float, Field(description="Probability of the label.")]


class PaperError(TypedDict):
    """A row of the paper's table 3, measured on ImageNet."""

    models: Models
    crops: Annotated[int, Field(description="Views averaged of each image.")]
    top5_error: Annotated[float, Field(description="Top-5 error, in percent.")]


class Arithmetic(TypedDict):
    """Arithmetic of the predictions."""

    precision: Annotated[Precision, Field(description="Precision of weights and activations.")]
    compiled: Annotated[bool, Field(description="Whether the networks were compiled with torch.compile.")]


class Ensemble(TypedDict):
    """Everything that decides the predictions."""

    replicas: Annotated[list[str], Field(description="Names of the K replicas.")]
    weights_digests: Annotated[list[str], Field(description="SHA-256 of each replica's weights.")]
    policies: Annotated[list[int | str], Field(description="Crop policies, fewest views first.")]
    crop_px: Annotated[int, Field(description="Side of the network's input, in pixels.")]
    classes: Annotated[list[str], Field(description="Class names by label.")]
    dataset_digest: Annotated[str, Field(description="Digest of the images.")]
    arithmetic: Annotated[Arithmetic, Field(description="Arithmetic of the predictions.")]


@with_config(ConfigDict(extra="forbid", strict=True))
class Report(TypedDict):
    """Errors of an ensemble of GoogLeNets by ensemble size and crop policy, and an analysis of its predictions.

    Errors are in percent of the images, differences in percentage points. Intervals are 95 % bootstrap intervals over
    images; those over images and replicas also cover another training, with other seeds. "All models" is the average of
    all replicas. The same predictions give the same report, bit for bit, apart from evaluated_by.
    """

    images: Annotated[int, Field(description="Number of evaluated images.")]
    classes: Annotated[int, Field(description="Number of classes.")]
    table: Annotated[list[TableRow], Field(description="By ensemble size, then crop policy, fewest views first.")]
    single_model: Annotated[
        SingleModel, Field(description="The replica with the lowest top-1 error on validation images.")
    ]
    replicas: Annotated[list[ReplicaErrors], Field(description="Each replica alone.")]
    pooling: Annotated[
        list[PoolingRow], Field(description="Mean against maximum over views, with the most crops, by ensemble size.")
    ]
    views: Annotated[list[ViewErrors], Field(description="Each view alone.")]
    view_groups: Annotated[list[ViewGroupErrors], Field(description="Groups of views; empty for a single view.")]
    calibration: Annotated[
        list[CalibrationRow], Field(description="By number of models (one, then all) and crop policy.")
    ]
    reliability: Annotated[
        list[ReliabilityBin], Field(description="Reliability diagram of all models with the most crops.")
    ]
    temperatures: NotRequired[
        Annotated[
            list[TemperatureRow],
            Field(description="By number of models (one to all) and crop policy; absent with fewer than 40 images."),
        ]
    ]
    reliability_calibrated: NotRequired[
        Annotated[list[ReliabilityBin], Field(description="With the temperature, of the images of temperatures.")]
    ]
    prediction_sets: NotRequired[
        Annotated[list[SetRow], Field(description="Sets of classes that hold the label as often as promised.")]
    ]
    selective: NotRequired[
        Annotated[
            list[SelectiveRow], Field(description="Errors if the least sure images are not answered, by measure.")
        ]
    ]
    out_of_distribution: NotRequired[
        Annotated[
            list[ApartRow], Field(description="How unsure answers tell images of something else apart, by measure.")
        ]
    ]
    spending: NotRequired[
        Annotated[list[SpendingRow], Field(description="Error by forward passes, for every way to spend them.")]
    ]
    budgets: NotRequired[
        Annotated[
            list[BudgetRow],
            Field(description="Budgets of the cascade; absent without probabilities of views of 40 images."),
        ]
    ]
    soups: NotRequired[
        Annotated[list[SoupRow], Field(description="Soups by crop policy; absent without the option --soup.")]
    ]
    diversity: Annotated[Diversity, Field(description="Differences between the replicas' answers.")]
    class_errors: Annotated[list[ClassErrors], Field(description="All classes, by label.")]
    mistakes: Annotated[list[Mistake], Field(description="Mistakes with the highest probability, the highest first.")]
    paper_top5_error: Annotated[list[PaperError], Field(description="The paper's table 3.")]
    ensemble: Annotated[Ensemble, Field(description="Everything that decides the predictions.")]
    run: NotRequired[Annotated[Run, Field(description="Content of run.json; absent where a run has none.")]]
    evaluated_by: NotRequired[
        Annotated[
            EvaluatedBy,
            Field(
                description="Evaluation that began the predictions; absent if a training job or an earlier version did."
            ),
        ]
    ]


class _Untitled(GenerateJsonSchema):
    """JSON Schema without titles that repeat the fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of report.json. Keys that it does not name are not allowed."""
    generated = TypeAdapter(Report).json_schema(schema_generator=_Untitled)
    return {"$schema": GenerateJsonSchema.schema_dialect, **generated, "title": TITLE}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
