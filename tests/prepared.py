"""Data sets that are prepared in the process of the tests."""

import pytest

from pipelines.data.prepare import prepare
from pipelines.data.shards import write_shard
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage


def prepare_here(run: Storage, recipe: Recipe) -> None:
    """Prepare the data set of a run without a cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pipelines.data.prepare.write_shards",
            lambda run, reader, plans: [write_shard(run, reader, plan) for plan in plans],
        )
        prepare(run, recipe)
