"""URIs of object stores, without a server: names, options, and those that cannot be meant."""

import pyarrow.fs as pafs
import pytest

from pipelines.errors import UserError
from pipelines.run.object_store import OPTIONS, open_filesystem
from pipelines.run.storage import Storage


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://key:secret@bucket/run", "contains a secret.*environment"),
        ("abfs://container@account.dfs.core.windows.net/run?sig=secret", "unknown option sig"),
        ("s3://bucket/photos#2", "a name with # cannot be used"),
        ("s3://bucket/run?regoin=x", "unknown option regoin"),
        ("s3://bucket/run?regoin=", "unknown option regoin"),
        ("s3://bucket/run?endpoint_override=&scheme=http", "endpoint_override is empty; is a shell variable unset"),
        ("s3:///run", "names no bucket"),
        ("ftq://bucket/run", "ftq"),
        ("zip:///photos.zip", "zip:// cannot be used; unpack it"),
        ("ssh://me@host/photos", "ssh:// cannot be used; mount it as a folder, or copy the files"),
        ("ftp://host/photos", "ftp:// cannot be used; mount"),
        ("hdfs://host/photos", "hdfs://host/photos: "),
        ("gs://a b/run", "gs://a b/run cannot be used: Cannot parse URI"),
    ],
)
def test_a_uri_that_cannot_be_meant_is_refused(uri: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        Storage.at(uri).exists("a")
    assert "secret@" not in str(error.value)
    assert "=secret" not in str(error.value)


@pytest.mark.parametrize("store", ["gs://anonymous@b", "abfs://b@account.dfs.core.windows.net", "s3://b"])
def test_names_are_those_that_the_uri_shows_on_every_store(store: str) -> None:
    name = "my photos/Фото[1] 100%20"
    options = "?region=x" if store == "s3://b" else ""
    assert Storage.at(f"{store}/{name}{options}")._resolved[1] == f"b/{name}"


VALUES = {
    "region": "eu-west-1", "scheme": "http", "endpoint_override": "localhost:1", "retry_limit_seconds": "5",
    "enable_tls": "false", "blob_storage_authority": ".blob.local", "dfs_storage_authority": ".dfs.local",
    "client_id": "0123",
}  # fmt: skip


@pytest.mark.parametrize(("scheme", "option"), [(scheme, name) for scheme, names in OPTIONS.items() for name in names])
def test_every_option_that_is_offered_opens_the_store(scheme: str, option: str) -> None:
    region = "&region=x" if scheme == "s3" and option != "region" else ""
    account = VALUES[option] if option.endswith("_authority") else ".dfs.core.windows.net"
    host = f"bucket@account{account}" if scheme == "abfs" else "bucket"
    opened, path = open_filesystem(f"{scheme}://{host}/run?{option}={VALUES[option]}{region}")
    assert isinstance(opened, {"s3": pafs.S3FileSystem, "gs": pafs.GcsFileSystem, "abfs": pafs.AzureFileSystem}[scheme])
    assert path.endswith("run")
