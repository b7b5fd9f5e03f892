"""Message about images that stop a preparation, and the list of all of them."""

import errno
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

from pipelines.data.file_versions import FileVersions
from pipelines.data.sources import Images
from pipelines.data.written_shards import BadImage
from pipelines.errors import UserError
from pipelines.job.console import count, some
from pipelines.run.directory import BAD_IMAGES
from pipelines.run.storage import Storage

NAMES_IN_MESSAGE, NAMES_OF_A_REASON = 10, 3
NOT_THERE = os.strerror(errno.ENOENT)


def error_about(bad: Sequence[BadImage], run: Storage, problem: str, fix: str) -> UserError:
    """Return an error that names images; a file of ``run`` lists them all, each with its reason."""
    run.write_json_lines(BAD_IMAGES, map(asdict, bad))
    if len(bad) > NAMES_IN_MESSAGE:
        fix = f"{run.below(BAD_IMAGES)} lists all of them. {fix}"
    return UserError(names_of_bad(bad, problem, fix))


def refuse_unseen(bad: Sequence[BadImage], data: str, images: Images) -> None:
    """Refuse data that lie on the machine of the command, and not on the nodes that prepare them.

    Raises:
        UserError: this machine sees some of the images, but the nodes do not.
    """
    absent = {one.image_id for one in bad if one.unreadable and NOT_THERE in one.reason}
    listed = (image for files in images.listing.splits.values() for image in files if image.image_id in absent)
    versions = FileVersions(images.reader)
    if unseen := [image.image_id for image in listed if versions.is_here(image)]:
        names = some(unseen, NAMES_OF_A_REASON)
        raise UserError(
            f"{count(len(unseen), 'file')} of {data} ({names}) can be seen from this machine, but not from the nodes "
            "that prepare them: use a folder that all nodes see under the same path, or an object store"
        )


def names_of_bad(bad: Sequence[BadImage], problem: str, fix: str) -> str:
    """Return all of a few names, of many the first ones for each reason, so that one reason hides no other."""
    named = {one.image_id: [one.image_id] for one in bad}
    if len(bad) > NAMES_IN_MESSAGE:
        named = defaultdict(list)
        for one in bad:
            named[one.reason].append(one.image_id)
    reasons = {one.image_id: one.reason for one in bad}
    shown = [f"  {some(names, NAMES_OF_A_REASON)}: {reasons[names[0]]}" for names in named.values()]
    if len(shown) > NAMES_IN_MESSAGE:
        others = sum(map(len, list(named.values())[NAMES_IN_MESSAGE:]))
        shown[NAMES_IN_MESSAGE:] = [f"  and {count(others, 'file')} for other reasons"]
    return "\n".join([f"{count(len(bad), 'file')} {problem}:", *shown, fix])
