"""Endings of files: which are pictures, which lie beside pictures, which are archives and tables."""

import re

# What programs and people put beside pictures: notes, labels, code, documents.
DOCUMENTS = {
    *("txt", "md", "rst", "csv", "tsv", "json", "jsonl", "ndjson", "xml", "yaml", "yml", "toml", "ini", "cfg", "log"),
    *("html", "htm", "css", "js", "py", "pyc", "ipynb", "sh", "bat", "m", "r", "pdf", "doc", "docx", "xls", "xlsx"),
    *("bib", "mat", "npy", "pkl", "pt", "pth", "onnx", "safetensors", "h5", "hdf5", "db", "sqlite", "lock", "md5"),
    *("readme", "license", "copying", "notice", "checksums", "md5sums", "sha256sums", "sha256"),
    *("cache", "lst", "list", "names", "geojson"),
}
# What telephones and cameras put beside pictures: films, sounds, settings of an edited picture, thumbnails of films.
FROM_CAMERAS = {
    *("mov", "mp4", "m4v", "avi", "mkv", "webm", "3gp", "mpg", "mpeg", "mts", "m2ts", "wmv", "lrv"),
    *("mp3", "m4a", "wav", "aac", "aae", "xmp", "pp3", "dop", "thm", "ctg", "gpx"),
}
# Files that may hold pictures themselves, so that leaving them out would lose some.
CONTAINERS = {
    *("tar", "parquet", "arrow", "tfrecord", "tfrec", "lmdb", "mdb", "rec", "npz"),
    *("gz", "tgz", "zip", "xz", "bz2", "zst", "7z", "rar", "part"),
}
# Pictures that need a package beside Pillow, or are refused.
OTHER_PICTURES = {"heic", "heif", "dng", "nef", "cr2", "cr3", "arw", "orf", "raf", "rw2", "svg"}
COMPRESSED = re.compile(
    r"\.(?:tar\.(?:gz|xz|bz2|zst)|tgz|tbz2?|txz|zip|7z|rar)(?:\.(?:\d{2,3}|[a-z]{2}))?$|\.[rz]\d\d$", re.IGNORECASE
)
TABLES = ("csv", "tsv", "json", "jsonl", "xlsx", "xls")


def ending(name: str) -> str:
    """Return the ending of a file's name in lower case; the name itself if it has none."""
    return name.rpartition("/")[2].rpartition(".")[2].lower()


def is_picture(name: str) -> bool:
    """Return whether a file may be a picture by its ending; a name without an ending may be one."""
    return not lies_beside_pictures(name) and ending(name) not in CONTAINERS and not is_compressed(name)


def has_ending_of_picture(name: str) -> bool:
    """Return whether a file has the ending of some kind of picture, or none."""
    return is_picture(name) and ("." not in name or has_known_ending(name))


def lies_beside_pictures(name: str) -> bool:
    """Return whether a file is neither a picture nor holds any, by its ending."""
    return ending(name) in DOCUMENTS or ending(name) in FROM_CAMERAS


def has_known_ending(name: str) -> bool:
    """Return whether a name has the ending of some kind of file; ``St. Bernard`` has a dot, but none."""
    from PIL import Image

    kind = ending(name)
    known = kind in DOCUMENTS or kind in FROM_CAMERAS or kind in CONTAINERS or kind in OTHER_PICTURES
    return "." in name and (known or f".{kind}" in Image.registered_extensions())


def is_compressed(name: str) -> bool:
    """Return whether a file is an archive that has to be unpacked before use, or a part of one, by its ending."""
    return COMPRESSED.search(name) is not None


def is_further_part(name: str) -> bool:
    """Return whether a file is a part of an archive that is unpacked by another one: pets.z01 of pets.zip."""
    return ending(name)[:1] in ("r", "z") and ending(name)[1:].isdigit()


def without_ending_of_archive(name: str) -> str:
    """Return the name that an archive's folder would have: ``St. Bernard`` of ``St. Bernard.tar.gz``."""
    return COMPRESSED.sub("", name) if is_compressed(name) else name.rpartition(".")[0]
