"""Pictures that are both training and validation images, or in two classes, byte for byte.

Each shard's result has the first digits of the SHA-256 of its images. The driver keeps 16 characters of each, so
that those of ImageNet take 20 MB.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pipelines.data.listing import ImageFile
from pipelines.data.shards import CONTENT_DIGITS, ShardPlan
from pipelines.data.written_shards import WrittenShard

NAMES_IN_MESSAGE = 3


def remarks_on_copies(plans: Sequence[ShardPlan], results: Sequence[WrittenShard]) -> Iterator[str]:
    """Yield a line if validation images are also training images; of shards of earlier versions that is not known."""
    written = [*zip(plans, results, strict=True)]
    train, val = ([one for one in written if one[0].file.startswith(f"{split}/")] for split in ("train", "val"))
    learnt, judged = _contents(train), _contents(val)
    places = np.flatnonzero(np.isin(judged, learnt))
    if len(places):
        pairs = [
            f"{_name(val, place)} is {_name(train, int(np.flatnonzero(learnt == judged[place])[0]))}"
            for place in places[:NAMES_IN_MESSAGE].tolist()
        ]
        yield (
            f"validation images that are also training images, byte for byte: {_counted(pairs, len(places))}; this "
            "makes the error too low: remove them from one of the two splits"
        )


def remarks_on_labels(plans: Sequence[ShardPlan], results: Sequence[WrittenShard]) -> Iterator[str]:
    """Yield a line if a picture has two labels; of shards of earlier versions that is not known."""
    written = [(plan, shard) for plan, shard in zip(plans, results, strict=True) if shard.contents]
    contents, labels = _contents(written), np.array([image.label for pair in written for image in _stored(*pair)])
    order = np.lexsort((labels, contents))
    contents, labels = contents[order], labels[order]
    twins = np.flatnonzero((contents[1:] == contents[:-1]) & (labels[1:] != labels[:-1]))
    if len(twins):
        pairs = [
            f"{_name(written, int(order[place + 1]))} is {_name(written, int(order[place]))}"
            for place in twins[:NAMES_IN_MESSAGE]
        ]
        yield f"pictures in two classes, byte for byte: {_counted(pairs, len(twins))}; remove each from the wrong one"


def _counted(pairs: Sequence[str], number: int) -> str:
    """Return a number of pairs, and the first of them by name."""
    more = f" and {number - len(pairs):,} more" if number > len(pairs) else ""
    return f"{number:,} ({', '.join(pairs)}{more})"


def _contents(written: Sequence[tuple[ShardPlan, WrittenShard]]) -> npt.NDArray[np.uint64]:
    """Return a number for the content of each image, in the order of the shards."""
    digits = "".join(shard.contents for _, shard in written)
    return np.frombuffer(bytes.fromhex(digits), np.uint64)


def _name(written: Sequence[tuple[ShardPlan, WrittenShard]], place: int) -> str:
    """Return the id of the image at a place among the contents."""
    for plan, shard in written:
        images = len(shard.contents) // CONTENT_DIGITS
        if place < images:
            return _stored(plan, shard)[place].image_id
        place -= images
    raise IndexError(place)


def _stored(plan: ShardPlan, shard: WrittenShard) -> list[ImageFile]:
    """Return the images of a shard without those that were left out."""
    left_out = {bad.image_id for bad in shard.bad_images}
    return [image for image in plan.images if image.image_id not in left_out]
