"""Plan of the validation during training: how often, and on which images. Free of PyTorch, for options."""

from dataclasses import dataclass

from pipelines.errors import UserError


@dataclass(frozen=True)
class ValidationPlan:
    """When a replica is validated, and on how many images.

    Attributes:
        every_epochs: epochs between two validations; the last epoch always has one.
        images: number of validation images, spread evenly over all of them; None for all.
    """

    every_epochs: int = 1
    images: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("--validate-every-epochs", self.every_epochs), ("--validation-images", self.images)):
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")

    def is_due(self, epoch: int, epochs: int) -> bool:
        """Return whether ``epoch``, counted from 0, of ``epochs`` ends with a validation."""
        return (epoch + 1) % self.every_epochs == 0 or epoch + 1 == epochs

    def times(self, epochs: int) -> int:
        """Return the number of validations in ``epochs`` epochs."""
        return -(-epochs // self.every_epochs)

    def number_of(self, images: int) -> int:
        """Return how many of ``images`` validation images are used."""
        return images if self.images is None else min(images, self.images)

    def indices(self, images: int) -> list[int]:
        """Return which of ``images`` validation images are used."""
        used = self.number_of(images)
        return [number * images // used for number in range(used)]


EVERY_EPOCH = ValidationPlan()
