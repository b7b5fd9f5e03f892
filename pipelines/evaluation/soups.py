"""Soups of a run's replicas: averaged, chosen on validation images, and predicted like replicas.

The greedy soup is chosen with the centre crop. Its errors on the very images that chose it would be too low, so each
fold of the images is judged with the soup that the other folds chose. All of this is kept in ``soup/``: the errors of
each candidate, then the weights, then the predictions by shard.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.soup import Members, SoupError, average_of, estimate_statistics, greedy_soups
from googlenet.evaluation.temperature import FOLDS, folds_of, hash_shares
from googlenet.network.weights import Replica, StoredNetwork, to_safetensors
from pipelines.errors import UserError
from pipelines.evaluation.evaluate import Settings, evaluate
from pipelines.evaluation.predictors import AS_MANY_AS_FIT, PredictorOptions, Predictors, device_of
from pipelines.job.console import count, say
from pipelines.job.unplaced import once_placed
from pipelines.run.dataset import image_ids, open_records, read_manifest
from pipelines.run.directory import CANDIDATES, ReplicaFiles, replica_number
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.recipe import Recipe
from pipelines.run.soups import (
    MOST_CHOICE_IMAGES,
    Soups,
    at,
    check_soup,
    folder_of_soups,
    numbers_of,
    read_soups,
    write_soups,
)
from pipelines.run.storage import Storage
from pipelines.run.weights import read_replica

# Training images, in batches, from which statistics of batch normalisation are estimated again.
STATISTICS_IMAGES, STATISTICS_BATCH = 512, 64
ONE_CROP = 1


def evaluate_soups(
    run: Storage, recipe: Recipe, ensemble: EvaluatedEnsemble, predictors: PredictorOptions = AS_MANY_AS_FIT
) -> Soups | None:
    """Make the soups of an evaluated run, and predict its validation images with them, unless that is done.

    Needs a connection to a Ray cluster. With one replica there are none.

    Raises:
        UserError: the replicas have no average.
    """
    check_soup(recipe, soup=True)
    if len(ensemble.replicas) < 2:
        say("no soup: it takes two replicas or more")
        return None
    soups, folder = read_soups(run, ensemble), folder_of_soups(run)
    if not soups or not all(folder.exists(ReplicaFiles(number).weights) for number in range(len(soups.networks))):
        import ray

        say("soup: choosing replicas ...")
        one = Predictors.that_fit(predictors, {"cpu": 0, "gpu": 0})
        choose = ray.remote(num_cpus=1, num_gpus=one.num_gpus, max_calls=1)(_chosen)
        try:
            chosen = choose.remote(SoupChoice(run, recipe, ensemble), one.num_gpus)
            soups = once_placed(chosen, "the choice of soups", one.needs)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):  # the task's own would print a traceback
                raise error.cause from None
            raise
        write_soups(run, soups)
    say(f"soup: greedy of {count(len(soups.greedy), 'replica')}, uniform of {len(soups.uniform)}")
    settings = Settings(
        ensemble.policies, ensemble.crop_px, ensemble.arithmetic.precision, predictors, keep_views=False, images=run
    )
    evaluate(folder, folder, range(len(soups.networks)), read_manifest(run), settings)
    if not soups.are_predicted:
        write_soups(run, replace(soups, are_predicted=True))
    return soups


def _chosen(choice: "SoupChoice", num_gpus: float) -> Soups:
    import torch

    torch.set_num_threads(1)  # as predictors have
    return replace(choice, device=device_of(num_gpus)).make()


def statistics_images(images: int) -> int:
    """Return on how many of so many training images statistics are estimated: whole batches, if there is one."""
    return min(STATISTICS_IMAGES, images // STATISTICS_BATCH * STATISTICS_BATCH or images)


@dataclass(frozen=True)
class SoupChoice:
    """Choice of the soups of a run; here, members are places in the list of the ensemble's replicas.

    Attributes:
        run: the run directory.
        recipe: its recipe.
        ensemble: the evaluated replicas.
        device: device of the networks.
    """

    run: Storage
    recipe: Recipe
    ensemble: EvaluatedEnsemble
    device: str = "cpu"

    def make(self) -> Soups:
        """Choose the greedy soups, write the weights of all soups, and return them.

        Raises:
            UserError: the replicas have no average.
        """
        stored = self._stored()
        ids = self._ids()
        folds, replicas = folds_of(ids), len(stored)
        # Last, all images: for the greedy soup that is kept.
        groups = [folds != fold for fold in range(FOLDS)] + [np.ones(len(ids), bool)]
        *by_fold, greedy = greedy_soups(lambda soups: self._wrong_of(soups, stored, ids), replicas, groups)
        uniform = tuple(range(replicas))
        several = [members for members in (uniform, greedy, *by_fold) if len(members) > 1]
        networks = tuple(dict.fromkeys(several))
        for number, members in enumerate(networks):
            self._write(number, self.soup_of(members, stored), members)
        statistics = statistics_images(read_manifest(self.run).splits["train"].images)
        used = statistics if self.recipe.variant == "bn" else 0
        numbers, digests = numbers_of(self.ensemble), self.ensemble.weights_digests
        return Soups(numbers, digests, networks, uniform, greedy, tuple(by_fold), used, len(ids)).with_numbers()

    def _stored(self) -> list[StoredNetwork]:
        names = [ReplicaFiles(replica_number(name)).weights for name in self.ensemble.replicas]
        return [read_replica(self.run, name)[1] for name in names]

    def _ids(self) -> list[str]:
        """Return the ids of the validation images on which soups are chosen, in the order of the images."""
        ids = image_ids(self.run, read_manifest(self.run).splits["val"])
        kept = hash_shares(ids) < MOST_CHOICE_IMAGES / max(1, len(ids))
        return [name for name, is_kept in zip(ids, kept, strict=True) if is_kept]

    def soup_of(self, members: Members, stored: Sequence[StoredNetwork]) -> Replica:
        """Return a soup with its own statistics of batch normalisation; a single replica as it is."""
        if len(members) == 1:
            return stored[members[0]].build()
        try:
            soup = average_of([stored[member] for member in members])
        except SoupError as error:
            raise UserError(f"no soup of {self.run}: {error}") from error
        soup.model.to(self.device)
        estimate_statistics(soup.model, self._inputs(soup))
        return soup

    def _inputs(self, soup: Replica) -> Iterator[Any]:
        """Yield training samples as inputs: the first of the first epoch of sampling seed, at the final crop size."""
        import torch

        from googlenet.training.batches import TrainingSamples
        from googlenet.training.epoch_order import EpochOrder

        records = open_records(self.run, read_manifest(self.run).splits["train"])
        seed = self.recipe.sampling_seed
        samples = TrainingSamples(records, self.recipe.crop_px, self.recipe.sampling(0), seed)
        indices = EpochOrder(len(records), seed, 0)[: statistics_images(len(records))].tolist()
        for start in range(0, len(indices), STATISTICS_BATCH):
            pixels = [samples[0, index][0] for index in indices[start : start + STATISTICS_BATCH]]
            yield soup.preprocessing(torch.stack(pixels).permute(0, 3, 1, 2)).to(self.device)

    def _wrong_of(
        self, soups: Sequence[Members], stored: Sequence[StoredNetwork], ids: Sequence[str]
    ) -> Mapping[Members, npt.NDArray[np.bool_]]:
        """Return which images each soup answers wrongly with the centre crop, from its file or computed and kept."""
        by_soup = {members: self._kept(members, len(ids)) for members in soups}
        missing = [members for members, wrong in by_soup.items() if wrong is None]
        if missing:
            networks = [self.soup_of(members, stored) for members in missing]
            wrong = self._predicted_wrong(networks, set(ids))
            for members, of_one in zip(missing, wrong, strict=True):
                self.run.write_json(self._file(members), {"wrong": of_one.astype(int).tolist()})
                by_soup[members] = of_one
        return {members: wrong for members, wrong in by_soup.items() if wrong is not None}

    def _kept(self, members: Members, images: int) -> npt.NDArray[np.bool_] | None:
        if not self.run.exists(self._file(members)):
            return None
        wrong = np.array(self.run.read_json(self._file(members))["wrong"], bool)
        return wrong if len(wrong) == images else None

    def _file(self, members: Members) -> str:
        """Return the file of a candidate's errors: named after its members' weights, so that others are never mixed."""
        digests = [self.ensemble.weights_digests[member] for member in members]
        return f"{CANDIDATES}/{hashlib.sha256(' '.join(digests).encode()).hexdigest()[:16]}.json"

    def _predicted_wrong(self, networks: Sequence[Replica], ids: set[str]) -> npt.NDArray[np.bool_]:
        """Return (M, N): which of the images each of M networks answers wrongly."""
        from googlenet.evaluation.crops import policy_scales_px
        from googlenet.evaluation.predictor import Predictor
        from googlenet.images.scaled_image import ScaledImage

        crop_px = self.ensemble.crop_px
        predictor = Predictor(networks, crop_px, (ONE_CROP,), self.device)
        val = read_manifest(self.run).splits["val"]
        records = open_records(self.run, val)
        wrong = []
        for index, image_id in enumerate(image_ids(self.run, val)):
            if image_id in ids:
                record = records[index]
                image = ScaledImage.decode(record.image, policy_scales_px(ONE_CROP, crop_px))
                wrong.append(predictor.predict(image).probabilities[:, 0].argmax(axis=1) != record.label)
        return np.stack(wrong, axis=1)

    def _write(self, number: int, soup: Replica, members: Members) -> None:
        manifest = read_manifest(self.run)
        soup_of = at(numbers_of(self.ensemble), members)
        extra = {"classes": list(manifest.classes), "soup": list(soup_of), "crop_px": self.ensemble.crop_px}
        weights = to_safetensors(soup.model, soup.model.state_dict(), soup.preprocessing, **extra)
        folder_of_soups(self.run).write(ReplicaFiles(number).weights, weights)
