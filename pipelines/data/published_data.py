"""Data sets on Hugging Face and on web servers, by the names that ``--data`` takes."""

from googlenet.network.hub import HUB_PREFIX, HubError, hub_api, is_hub_name, name_of_page, parse_hub_name
from pipelines.data.advice import advice_on_file
from pipelines.data.file_endings import is_compressed
from pipelines.data.listing import ImageReader, storage_read_by
from pipelines.data.packed_files import is_packed
from pipelines.errors import UserError
from pipelines.job.console import say
from pipelines.run.published_files import PublishedFilesError, ask_hub, is_published, patiently
from pipelines.run.storage import Storage


def storage_of(data: str) -> Storage:
    """Return where the files of ``data`` are: a folder, or a single file.

    Of ``hf://datasets/OWNER/NAME[@revision]`` it is the commit that the revision is at now, so that all processes read
    the same files.

    Raises:
        UserError: the name is no data set's, or nothing is there.
    """
    if is_hub_name(data):
        return _at_commit(data)
    if page := name_of_page(data):
        raise UserError(f"{data} is a web page of Hugging Face; give the name of the data set instead: {page}")
    storage, address = Storage.at(data), data.partition("?")[0]
    if not is_published(data):
        return storage
    if not is_packed(address):
        advice = advice_on_file(address) if is_compressed(address) else "download pictures, and specify their folder"
        raise UserError(f"{address}: from a web server, only a .tar or .parquet file can be read; {advice}")
    if not storage.is_file:
        raise UserError(f"there is no file {data}")
    return storage


def commit_read_by(reader: ImageReader) -> str:
    """Return the commit of a data set on Hugging Face from which ``reader`` reads; empty for any other reader."""
    storage = storage_read_by(reader)
    if storage is None or not is_hub_name(storage.root):
        return ""
    return str(parse_hub_name(storage.root).revision)


def _at_commit(data: str) -> Storage:
    try:
        uri = parse_hub_name(data)
        if uri.type != "dataset":
            raise UserError(f"{data} is not a data set's name: that begins with {HUB_PREFIX}datasets/")

        def commit() -> str:
            return str(hub_api().dataset_info(uri.id, revision=uri.revision, expand=["sha"]).sha)

        sha = patiently(lambda: ask_hub(data, commit))
    except (HubError, PublishedFilesError) as error:
        raise UserError(str(error)) from error
    say(f"data: {HUB_PREFIX}datasets/{uri.id} at commit {sha}")
    return Storage.at(f"{HUB_PREFIX}datasets/{uri.id}@{sha}/{uri.path_in_repo or ''}")
