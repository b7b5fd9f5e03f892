"""Options of the workers that train replicas."""

from dataclasses import dataclass, field

from pipelines.training.resources import Resources
from pipelines.training.validation_plan import ValidationPlan


@dataclass(frozen=True)
class WorkerOptions:
    """What is asked for of each worker, of restarts, checkpoints and validations."""

    cpus_per_worker: float | None = None
    """CPUs that each worker of a replica reserves; the default is 1, or with GPUs the worker's share of its node."""
    gpus_per_worker: float = 0.0
    """GPUs that each worker of a replica reserves; fractions share one."""
    worker_resources: dict[str, float] = field(default_factory=dict)
    """Other resources that each worker reserves, by their names in the cluster: NAME AMOUNT NAME AMOUNT ..."""
    max_failures: int = 2
    """Consecutive restarts of a failed replica without a newer checkpoint before it is given up; 0 for no restarts."""
    checkpoint_minutes: float = 10.0
    """Time between two checkpoints within an epoch; each epoch also ends with one."""
    parallel_replicas: int | None = None
    """Replicas to start at once on a cluster that grows on demand; the default is as many as its nodes hold."""
    shard_cache_gb: float | None = None
    """Disk space of each node for copies of shards in an object store; the default leaves a fifth of the disk free."""
    gpu_augmentation: bool = False
    """Decode JPEGs and make samples on the GPU; the same distribution as on CPUs, but not the same bits."""
    cuda_graphs: bool = False
    """Take training steps on a GPU as CUDA graphs, which queue small kernels sooner; checked on an H100 with the
    variant paper, but no whole training has used them yet."""
    validate_every_epochs: int = 1
    """Epochs of the training between two validations; the last epoch always has one."""
    validation_images: int | None = None
    """Validate during training on this many images, spread evenly over all of them; the default is all."""

    def resources(self) -> Resources:
        """Return them as resources, with one CPU for a worker until the cluster is known.

        Raises:
            UserError: they cannot be had.
        """
        return Resources(
            1.0 if self.cpus_per_worker is None else self.cpus_per_worker,
            self.gpus_per_worker,
            self.worker_resources,
            self.max_failures,
            self.checkpoint_minutes,
            self.parallel_replicas,
            self.shard_cache_gb,
            validation=ValidationPlan(self.validate_every_epochs, self.validation_images),
            gpu_augmentation=self.gpu_augmentation,
            cuda_graphs=self.cuda_graphs,
            cpus_are_given=self.cpus_per_worker is not None,
        )
