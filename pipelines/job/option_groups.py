"""The groups under which ``--help`` lists the options of all commands."""

GROUPS: dict[str, tuple[str, ...]] = {
    "job": (
        "run_dir", "recipe", "name", "from_scratch", "dry_run", "print_recipe", "min_replicas", "max_failures",
        "checkpoint_minutes", "cpus_per_worker", "gpus_per_worker", "worker_resources", "gpus_per_predictor",
        "predictors", "parallel_replicas", "shard_cache_gb", "gpu_augmentation", "cuda_graphs", "validate_every_epochs",
        "validation_images", "price_per_node_hour", "max_hours", "max_cost", "output", "format", "replica",
    ),
    "data": (
        "data", "output_dir", "unlabelled", "bad_images", "data_seed", "val_percent", "images_per_shard",
        "stored_short_side_px",
    ),
    "network": (
        "init_weights", "weights", "classes", "crop_px", "variant", "width", "wide_replica_width", "aux_heads", "lrn",
        "dropout", "aux_dropout", "initialisation", "preprocessing",
    ),
    "training": (
        "epochs", "batch_size", "learning_rate", "schedule", "warmup_epochs", "momentum", "weight_decay",
        "decay_biases", "label_smoothing", "max_gradient_norm", "polyak_epochs", "replicas", "weights_seed",
        "shared_initial_weights", "sampling_seed", "workers_per_replica", "min_workers_per_replica",
        "training_precision", "areas", "area_sampling", "aspect", "interpolations", "mirror", "alternate_mirror",
        "first_crop_px", "photometric", "lighting_sigma",
        "dead_head_epochs", "on_dead_head", "teacher", "teacher_policy", "teacher_temperature", "label_weight",
    ),
    "evaluation": ("policies", "precision", "calibrated", "coverage", "set_penalty", "budget", "ood", "soup"),
    "tracking": ("tracking_uri", "mlflow", "models", "champion", "champion_metric", "runs", "port"),
}  # fmt: skip
POSITIONAL, OTHER = "arguments", "other"


def group_of(name: str) -> str:
    """Return the group of the option ``name``; a group of its own kind if no group lists it."""
    return next((group for group, names in GROUPS.items() if name in names), OTHER)
