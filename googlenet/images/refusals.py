"""Reasons why bytes cannot be decoded as an image, in the user's words: what they are instead, or what is missing."""

import re
from collections.abc import Iterable

from PIL import Image

from googlenet.images import png
from googlenet.images.grey_levels import UnknownWhiteError
from googlenet.images.jpeg_damage import Condition, check_pixel_data
from googlenet.images.jpeg_segments import START, pixel_jpeg
from googlenet.images.png import DamagedChunkError
from googlenet.images.tiff import (
    BITS_PER_SAMPLE,
    SAMPLE_FORMAT,
    SAMPLES_PER_PIXEL,
    DamagedBlockError,
    read_directory,
    stated_size,
)

HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
HEIC = "HEIC, the format of iPhones: pip install pillow-heif on every node, or convert it to JPEG"
CONVERT = "convert it to JPEG or PNG"
# What texts in place of a file of any kind begin with, after white space.
PLACEHOLDERS = (
    (rb"version https://git-lfs\.github\.com/spec", "a Git-LFS pointer instead of the file: run `git lfs pull`"),
    (rb"/annex/objects/", "a git-annex pointer instead of the file: run `git annex get`"),
    (rb"<!doctype html|<html", "a web page (HTML) instead of the file: download it again"),
)
# What files that are no images begin with, after white space.
TEXT_STARTS = (
    *PLACEHOLDERS,
    (
        rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg[^>]*>\s*)?<svg",
        f"an SVG drawing, which has no pixels: {CONVERT}",
    ),
    (rb"<\?xml|<[a-z]+[ >]", "an XML document, not an image"),
    (rb"[\[{]", "JSON text, not an image"),
    (rb".*\s", "text, not an image"),
)
CONTROL_CHARACTERS = re.compile(rb"[\0-\x08\x0e-\x1f\x7f]")
BINARY_STARTS = {
    b"%PDF": f"a PDF document, not an image: {CONVERT}",
    b"PK\3\4": "a ZIP archive, not an image: unpack it",
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"Rar!": "a RAR archive, not an image: unpack it",
    b"7z\xbc\xaf": "a 7z archive, not an image: unpack it",
    b"\xff\x0a": f"JPEG XL, which Pillow does not decode: {CONVERT}",
    b"\0\0\0\x0cJXL ": f"JPEG XL, which Pillow does not decode: {CONVERT}",
    b"\x1aE\xdf\xa3": "a video (Matroska or WebM), not an image",
    b"%!PS": f"PostScript, which is not run: {CONVERT}",
    b"\xc5\xd0\xd3\xc6": f"PostScript, which is not run: {CONVERT}",
}
FORMATS = {
    START: "a JPEG",
    png.SIGNATURE: "a PNG",
    b"GIF8": "a GIF",
    b"RIFF": "a WebP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"BM": "a BMP",
}
PILLOWS_WORDS = {
    "image file is truncated": "truncated: its end is missing",
    "Truncated File Read": "truncated: its end is missing",
    "broken data stream": "damaged: its pixel data cannot be decoded",
    "unrecognized data stream": "damaged: its pixel data cannot be decoded",
    "failed to read next frame": "damaged: its pixel data cannot be decoded",
    "decoder error": "damaged: its pixel data cannot be decoded",
}
UNKNOWN = "not an image in any format that Pillow knows"
SAMPLE_KINDS = {1: "unsigned", 2: "signed", 3: "floating-point"}
LOOKED_AT_BYTES = 4096


def reason_for_refusal(data: bytes, error: Exception) -> str:
    """Return why ``data`` cannot be decoded; ``error`` is the decoder's."""
    if isinstance(error, DamagedChunkError | UnknownWhiteError | Image.DecompressionBombError):
        return str(error)
    return _other_content(data) or _missing(data) or _decoders_words(data, error)


def _other_content(data: bytes) -> str | None:
    """Return what the bytes are, if they begin like something that is not decoded."""
    if not data.strip(b"\0"):
        return f"{len(data):,} zeros instead of the file: copy or download it again"
    if data[4:8] == b"ftyp":
        return _iso_media(data)
    if words := next((words for start, words in BINARY_STARTS.items() if data.startswith(start)), None):
        return words
    return _words_of(TEXT_STARTS, data)


def placeholder(data: bytes) -> str | None:
    """Return what the bytes are in place of a file of any kind, if they begin like a pointer or a web page."""
    return _words_of(PLACEHOLDERS, data)


def _words_of(starts: Iterable[tuple[bytes, str]], data: bytes) -> str | None:
    start = data[:LOOKED_AT_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()
    if CONTROL_CHARACTERS.search(start):
        return None
    return next((words for pattern, words in starts if re.match(pattern, start, re.IGNORECASE | re.DOTALL)), None)


def _iso_media(data: bytes) -> str | None:
    """Return what a file of boxes is: HEIC, AVIF and many videos are made of them."""
    length = int.from_bytes(data[:4], "big")
    brands = {data[at : at + 4] for at in (8, *range(16, min(length, len(data), LOOKED_AT_BYTES), 4))}
    if brands & {b"avif", b"avis"}:
        return None
    if brands & HEIC_BRANDS:
        return _missing(data) if _reads_heic() else HEIC
    if data[8:11] == b"crx":
        return f"a camera's raw file (CR3): {CONVERT}"
    return "a video, not an image"


def _reads_heic() -> bool:
    return "HEIF" in Image.ID


def _missing(data: bytes) -> str | None:
    """Return which part of a truncated file is missing; None if it is complete, or does not tell."""
    if data.startswith(START):
        jpeg = pixel_jpeg(data)
        if jpeg.scan_at is None:
            return "truncated within its header: it has no pixel data"
        finding = check_pixel_data(jpeg)
        return finding.text if finding.condition is Condition.DAMAGED else None
    if data.startswith(png.SIGNATURE):
        return _last(png.missing_share(data), "picture") or _damaged(png.damaged_chunk(data))
    size = _stated_size(data)
    return _last(1 - len(data) / size, "file") if size else None


def _last(share: float, of: str) -> str | None:
    return f"truncated: the last {max(1, round(100 * share))} % of the {of} is missing" if share > 0 else None


def _damaged(chunk: str | None) -> str | None:
    return f"damaged: its {chunk} chunk has a wrong checksum" if chunk else None


def _stated_size(data: bytes) -> int:
    """Return the size of a file by its own header; 0 if it states none."""
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8
    if data.startswith(b"BM"):
        return int.from_bytes(data[2:6], "little")
    if data.startswith((b"II", b"MM")):
        return stated_size(data)
    at = 0
    while data[4:8] == b"ftyp" and at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
        if length < 8:  # the last box reaches to the end, or the file is damaged
            return 0
        at += length
    return at


def _decoders_words(data: bytes, error: Exception) -> str:
    """Return Pillow's words, or plainer ones for its common messages."""
    text = str(error) or type(error).__name__
    name = _format_name(data)
    if "cannot identify image file" in text:
        return (_unread_tiff(data) or f"{name} file whose header is damaged") if name else UNKNOWN
    if known := next((words for start, words in PILLOWS_WORDS.items() if text.startswith(start)), None):
        return known
    return f"{name or 'a'} file that Pillow cannot decode ({text})"


def _format_name(data: bytes) -> str | None:
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "an AVIF"
    return next((name for start, name in FORMATS.items() if data.startswith(start)), None)


def _unread_tiff(data: bytes) -> str | None:
    """Return the kind of samples of a TIFF file that Pillow does not read."""
    try:
        directory = read_directory(data)
        bits = directory.number(data, BITS_PER_SAMPLE) or 1
        kind = SAMPLE_KINDS.get(directory.number(data, SAMPLE_FORMAT) or 1, "other")
        channels = directory.number(data, SAMPLES_PER_PIXEL) or 1
    except DamagedBlockError:
        return None
    return f"a TIFF file with {channels} x {bits} bits ({kind}), which Pillow does not read: save it with 8 bits"
