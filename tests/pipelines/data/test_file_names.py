"""Names that are not UTF-8, and text files of several encodings."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.class_list import classes_by_label, read_class_list
from pipelines.data.file_names import normalisation_twins, original, readable
from pipelines.data.text_files import decode_text
from pipelines.errors import UserError

AWKWARD = st.binary() | st.lists(st.sampled_from([b"\\", b"x", b"e9", b"5c", b"\xe9", b"\xc3\xa9", b"a", b"\n"])).map(
    b"".join
)


@given(AWKWARD)
def test_every_name_can_be_written_and_found_again(name: bytes) -> None:
    text = readable(os.fsdecode(name))
    text.encode()  # has no surrogates
    assert not {"\n", "\r", "\t", "\x7f", "\0"} & {*text}  # one line of a table
    assert os.fsencode(original(text)) == name


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\")))
def test_a_utf8_name_stays_as_it_is(name: str) -> None:
    assert readable(name) == name == original(name)


@given(AWKWARD, AWKWARD)
def test_two_names_are_never_written_alike(one: bytes, other: bytes) -> None:
    assert (readable(os.fsdecode(one)) == readable(os.fsdecode(other))) == (one == other)


def test_names_that_look_alike_are_grouped() -> None:
    assert normalisation_twins(["e", "\u00e9", "e\u0301", "\u00e4"]) == [("e\u0301", "\u00e9")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_in_its_encoding_without_its_mark(encoding: str) -> None:
    assert decode_text("naïve\ncafé\n".encode(encoding), "x") == "naïve\ncafé\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("café".encode("latin-1"), r"classes\.txt is not UTF-8 \(byte 0xe9 at position 3; Latin-1 perhaps\)"),
        ("café".encode("utf-16-le"), r"classes\.txt .*save it as UTF-8"),
        ("cafe".encode("utf-16-le"), r"classes\.txt has zero bytes, as UTF-16 without a byte order mark"),
        ("cafe".encode("utf-16") + b"!", r"classes\.txt is not UTF-16"),
    ],
)
def test_another_encoding_is_refused_with_the_file_and_the_encoding(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        decode_text(data, "classes.txt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_classes_of_outputs_are_read_in_the_encoding_of_their_file(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "names").write_text("Äpfel\n\nBirnen\n", encoding=encoding)
    assert read_class_list(str(tmp_path / "names")) == ("Äpfel", "Birnen")


def test_a_list_of_classes_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    for content, message in (
        ("Äpfel".encode("latin-1"), r"names is not UTF-8 \(byte 0xc4 at position 0; Latin-1 perhaps\)"),
        (b"\n", "names lists no classes"),
        (b"a\nb\na\n", "names lists class a more than once"),
    ):
        (tmp_path / "names").write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_class_list(str(tmp_path / "names"))
    with pytest.raises(UserError, match=r"cannot read the classes in .*absent: No such file"):
        read_class_list(str(tmp_path / "absent"))


def test_a_list_of_classes_is_read_from_a_pipe() -> None:
    """As a shell gives it: ``--classes <(...)``."""
    reading, writing = os.pipe()
    os.write(writing, b"a\nb\n")
    os.close(writing)
    try:
        assert read_class_list(f"/dev/fd/{reading}") == ("a", "b")
    finally:
        os.close(reading)
    with pytest.raises(UserError, match=r"^~nobody-of-this-name/x cannot be used: "):
        read_class_list("~nobody-of-this-name/x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# my classes\ncat\ndog\n", "begins with a comment"),
        ("1 dog\n0 cat\n", "numbers its classes in another order"),
        ("0: cat\n2: pig\n1: dog", "numbers its classes in another order"),
    ],
)
def test_a_class_list_whose_lines_are_not_the_labels_is_refused(content: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"{message}; line n is the class of label n - 1"):
        classes_by_label(content.encode(), "classes.txt")
    for fine in ("0 cat\n1 dog\n", "cat\ndog\n", "3 blind mice\n101 dalmatians\n"):
        assert len(classes_by_label(fine.encode(), "classes.txt")) == 2


def test_characters_that_are_no_line_breaks_to_an_editor_divide_no_name_of_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "a\x85b\r\nc\u2028d\n".encode()
    assert classes_by_label(content, "classes.txt") == ("a\x85b", "c\u2028d")
    (tmp_path / "names").write_bytes(content)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_class_list("~/names") == ("a\x85b", "c\u2028d")
