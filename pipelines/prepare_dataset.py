"""Preparation of a data set: images become Parquet shards and a manifest, with Ray Data.

    python pipelines/prepare_dataset.py --data FOLDER --run-dir RUN

Every file is checked once; the original bytes are stored, unless the recipe asks for smaller images. A file that cannot
be decoded, or a JPEG with missing pixel data, stops the command with a list of all such files (if they are many, in
``dataset/bad_images.jsonl``), or, with ``--bad-images quarantine``, is listed in ``dataset/quarantine.jsonl`` and left
out of the data set.
"""

if __name__ == "__main__":  # by a Python that may lack packages, or an installed project
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from pipelines.job.interpreter import check_interpreter

    check_interpreter()

from dataclasses import dataclass

from pipelines.data.prepare import find_images, prepare
from pipelines.data.sources import absolute_data
from pipelines.job.command_line import parse, run_command
from pipelines.job.console import complain, say
from pipelines.job.ray_session import connected, native_stderr_to_log
from pipelines.job.run_option import run_to_write_at
from pipelines.run.claims import check_own
from pipelines.run.dataset import BadImages
from pipelines.run.lock import only_job_on
from pipelines.run.recipe import Recipe


@dataclass(frozen=True)
class Arguments:
    """Prepare images: write Parquet shards and a manifest into the run directory."""

    data: str
    """Image folder, archive, or data set by name (hf://datasets/OWNER/NAME); 'embedded' for the built-in digits."""
    run_dir: str
    """Run directory: a path, or a URI of an object store."""
    data_seed: int = 0
    """Seed of the embedded data set."""
    val_percent: float = 10.0
    """Percentage of each class that is held out for validation if the folder has no split."""
    images_per_shard: int = 256
    """Images per Parquet shard."""
    stored_short_side_px: int | None = None
    """Shrink larger images to this shorter side, as JPEG of quality 95; None keeps the original bytes of all images."""
    bad_images: BadImages = "stop"
    """What to do about files that cannot be decoded, and JPEGs with missing pixel data."""


def _main() -> None:
    arguments = parse(Arguments)
    recipe = Recipe(
        data=absolute_data(arguments.data),
        data_seed=arguments.data_seed,
        val_percent=arguments.val_percent,
        images_per_shard=arguments.images_per_shard,
        stored_short_side_px=arguments.stored_short_side_px,
    )
    run = run_to_write_at(arguments.run_dir)
    check_own(run, data=recipe.data)  # the job would refuse it after the preparation
    images = find_images(run, recipe)
    with only_job_on(run, tell=complain), native_stderr_to_log(run), connected():
        manifest = prepare(run, recipe, arguments.bad_images, images)
    say(manifest.summary())


if __name__ == "__main__":
    run_command(_main)
