"""Untrusted tar archives: unsafe ones are refused, intact ones are read completely."""

import io
import os
import tarfile
from pathlib import Path

import pytest

import pipelines.data.tar_archives
from googlenet.images.decoding import MAX_IMAGE_BYTES, ImageDecodeError
from pipelines.data.listing import ImageFile
from pipelines.data.tar_archives import TarImages, place_of, read_index, remarks_on_archives
from pipelines.errors import UserError
from pipelines.run.storage import Storage


def archive(path: Path, *infos: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> Storage:
    with tarfile.open(path / "x.tar", "w", format=form) as file:
        for info in infos:
            file.addfile(info, io.BytesIO(b"b" * info.size))
    return Storage.at(str(path))


def member(name: str, size: int = 1000, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_index_is_tarfiles_own_in_every_format(tmp_path: Path, form: int) -> None:
    long = "" if form == tarfile.USTAR_FORMAT else "ä" * 150
    infos = [member("./a.jpg", 0), member(f"b/{long}c.jpg", 512), member("b", 0, tarfile.DIRTYPE), member("d", 1)]
    root = archive(tmp_path, *infos, form=form)
    with tarfile.open(tmp_path / "x.tar") as file:
        expected = [(i.name.removeprefix("./"), i.offset_data, i.size) for i in file.getmembers() if i.isreg()]
    assert [(m.name, m.first_byte, m.num_bytes) for m in read_index(root, "x.tar").members] == expected
    reader = TarImages(root)
    read = [reader.read(ImageFile(m.name, 0, place_of("x.tar", m))) for m in read_index(root, "x.tar").members]
    assert read == [b"", b"b" * 512, b"b"]


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (member("../../etc/passwd"), "points outside the archive"),
        (member("/etc/passwd"), "points outside the archive"),
        (member("a\\b.jpg"), r"the name 'a\\+b\.jpg' has a backslash; pack it with / between folders"),
        (member("a" * 5000), r"the name 'a{40}'\.\.\. has 5,000 characters$"),
        (member("a.jpg", 0, tarfile.SYMTYPE, "/etc/passwd"), "a.jpg is a link or a device"),
        (member("a.jpg", 0, tarfile.LNKTYPE, "b.jpg"), "a.jpg is a link or a device"),
        (member("a.jpg", 0, tarfile.CHRTYPE), "a.jpg is a link or a device"),
    ],
)
def test_what_is_no_plain_file_in_the_archive_is_refused(tmp_path: Path, info: tarfile.TarInfo, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_index(archive(tmp_path, member("fine.jpg"), info), "x.tar")


def test_a_cut_or_damaged_archive_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    root = archive(tmp_path, *(member(f"{number}.jpg", 600) for number in range(3)), form=tarfile.USTAR_FORMAT)
    whole = (tmp_path / "x.tar").read_bytes()
    index = read_index(root, "x.tar")
    assert (len(index.members), index.is_ended) == (3, True)
    for length in (100, 512, 700, 1700, 2048, 3600, 4300):
        (tmp_path / "x.tar").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"x\.tar (is cut off|is damaged)"):
            read_index(root, "x.tar")
    for images in (1, 2, 3):  # cut between two members, only the mark at its end is missing
        (tmp_path / "x.tar").write_bytes(whole[: images * 1536])
        index = read_index(root, "x.tar")
        assert (len(index.members), index.is_ended) == (images, False)
        assert "perhaps cut off" in remarks_on_archives([(index, images)])[0]
        assert f"x.tar ({images} image" in remarks_on_archives([(index, images)])[0]
    for broken in (0, 1, 2):
        data = bytearray(whole)
        data[broken * 1536 + 10] ^= 255
        (tmp_path / "x.tar").write_bytes(data)
        with pytest.raises(UserError, match=r"x\.tar (is damaged after|is cut off, not a tar)"):
            read_index(root, "x.tar")


def test_every_cut_between_two_blocks_is_refused_or_told(tmp_path: Path) -> None:
    infos = [member(f"{number}{'n' * 120}.jpg", 400 * number) for number in range(8)]
    root = archive(tmp_path, *infos)
    whole = (tmp_path / "x.tar").read_bytes()
    content = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # zeros follow
    for length in range(0, content + 1, 512):
        (tmp_path / "x.tar").write_bytes(whole[:length])
        try:
            assert not read_index(root, "x.tar").is_ended
        except UserError as error:
            assert "x.tar" in str(error)


@pytest.mark.linux
def test_a_name_that_is_not_utf8_is_read_and_shown(tmp_path: Path) -> None:
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / os.fsdecode(b"\xe9.tar"), "w", format=form, encoding="latin-1") as file:
            file.addfile(member("café/1.jpg", 3), io.BytesIO(b"abc"))
        name = "café/1.jpg" if form == tarfile.PAX_FORMAT else r"caf\xe9/1.jpg"
        root = Storage.at(str(tmp_path))
        [found] = read_index(root, r"\xe9.tar").members
        assert found.name == name
        assert TarImages(root).read(ImageFile(found.name, 0, place_of(r"\xe9.tar", found))) == b"abc"


def test_absurd_numbers_and_sizes_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = archive(tmp_path, *(member(f"{number}", 0) for number in range(20)))
    monkeypatch.setattr(pipelines.data.tar_archives, "MAX_MEMBERS", 19)
    with pytest.raises(UserError, match="more than 19 members"):
        read_index(root, "x.tar")
    header = member("x", 8 << 30, tarfile.XHDTYPE)  # a header that announces 8 GiB, with no content
    (tmp_path / "x.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(UserError, match=r"x\.tar is refused: it has a header of 8,589,934,592 bytes"):
        read_index(root, "x.tar")
    with pytest.raises(ImageDecodeError, match="too many for an image"):
        TarImages(root).read(ImageFile("x", 0, f"x.tar@512+{MAX_IMAGE_BYTES + 1}"))


def test_a_compressed_archive_is_refused_with_the_mend(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w:gz") as file:
        file.addfile(member("a", 3), io.BytesIO(b"abc"))
    with pytest.raises(UserError, match=r"x\.tar is cut off, not a tar archive, or compressed"):
        read_index(Storage.at(str(tmp_path)), "x.tar")


def test_joined_archives_are_refused_and_padding_of_any_length_is_not(tmp_path: Path) -> None:
    root = archive(tmp_path, member("0.jpg", 600))
    one = (tmp_path / "x.tar").read_bytes()
    for zeros in (0, 512, 10_240, 3 << 20):
        (tmp_path / "x.tar").write_bytes(one + bytes(zeros))
        index = read_index(root, "x.tar")
        assert ([m.name for m in index.members], index.is_ended) == (["0.jpg"], True)
        (tmp_path / "x.tar").write_bytes(one + bytes(zeros) + one)
        with pytest.raises(UserError, match=r"x\.tar has data after its end mark"):
            read_index(root, "x.tar")
    (tmp_path / "x.tar").write_bytes(one)
    outer = tarfile.TarInfo("inner.tar"), tarfile.TarInfo("inner2.tar")  # as ImageNet's lie one after the other
    with tarfile.open(tmp_path / "outer.tar", "w") as file:
        for info in outer:
            info.size = len(one)
            file.addfile(info, io.BytesIO(one))
    for inner in read_index(root, "outer.tar").members:
        assert len(read_index(root, "outer.tar", inner).members) == 1
