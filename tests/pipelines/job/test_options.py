"""Options of commands: every kind of value, help in groups, errors in one line that name the option."""

from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

import pytest

from pipelines import (
    compare_runs,
    evaluate_ensemble,
    export_ensemble,
    export_onnx,
    prepare_dataset,
    replay_to_mlflow,
    review,
    train_ensemble,
)
from pipelines.errors import UserError
from pipelines.job.limits import Limits
from pipelines.job.option_groups import GROUPS, OTHER, group_of
from pipelines.job.options import parse_options
from pipelines.run.recipe import Recipe
from pipelines.training.options import WorkerOptions

COMMANDS = (
    compare_runs,
    evaluate_ensemble,
    export_ensemble,
    export_onnx,
    prepare_dataset,
    replay_to_mlflow,
    review,
    train_ensemble,
)


@dataclass(frozen=True)
class Inner:
    """Options that another dataclass holds."""

    width: float = 1.0
    """Width, -4 % at most."""
    pairs: tuple[tuple[float, float], ...] = ((0.5, 1.0),)
    """Some pairs."""
    range: tuple[float, float] | None = (0.5, 1.5)
    """A range."""
    limit: int | None = None
    """A limit."""


@dataclass(frozen=True)
class Options:
    """Options of every kind."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("place",)

    inner: Inner
    place: str
    """A place."""
    run_dir: str
    """A folder."""
    kind: Literal["left", "right"] = "left"
    """A side."""
    mirror: bool = True
    """Mirror it."""
    dry: bool = False
    """Only look."""
    mixed: tuple[int | str, ...] = (1, "a")
    """Numbers and words."""
    amounts: dict[str, float] = field(default_factory=dict)
    """Amounts by name."""


def parsed(words: str) -> Options:
    return parse_options(Options, words.split(), inner=Inner())


def test_every_kind_of_value_is_read_and_the_rest_keeps_its_default() -> None:
    assert parsed("here --run-dir x") == Options(Inner(), "here", "x")
    words = "--run_dir=x --kind right --no-mirror --dry --mixed 10 256+320 --amounts TPU 1 disk 2.5 --width -1 "
    words += "--pairs 0 1 2 3 --range None --limit 7 there"
    assert parsed(f"there {words[:-6]}") == Options(
        Inner(-1.0, ((0.0, 1.0), (2.0, 3.0)), None, 7), "there", "x", "right", False, True, (10, "256+320"),
        {"TPU": 1.0, "disk": 2.5},
    )  # fmt: skip
    assert parsed("here --run-dir x --dry --no-dry --range 1 2 --limit None").inner == Inner(range=(1.0, 2.0))


@dataclass(frozen=True)
class Two:
    """Two words by their places."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("first", "second")

    first: str
    """The first."""
    second: str
    """The second."""
    kind: str = ""
    """A kind."""


@pytest.mark.parametrize("words", ["A B --kind x", "A --kind x B", "--kind x A B", "A --kind=x B"])
def test_words_by_their_places_stand_anywhere_among_the_options(words: str) -> None:
    assert parse_options(Two, words.split()) == Two("A", "B", "x")


@pytest.mark.parametrize(
    ("words", "message"),
    {
        "A --kind x": "SECOND is missing; --help lists all options",
        "A --kind x B C": "unexpected word 'C'; values follow the name of their option, --help lists all options",
        "A --knid x B": "unknown option --knid (did you mean --kind?); --help lists all options",
    }.items(),
)
def test_a_word_too_few_or_too_many_is_told(words: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_options(Two, words.split())
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("words", "message"),
    {
        "here": "--run-dir is missing; --help lists all options",
        "": "PLACE, --run-dir are missing; --help lists all options",
        "here --run-dir x --knid left": "unknown option --knid (did you mean --kind?); --help lists all options",
        "here --rundir x": "unknown option --rundir (did you mean --run-dir?); --help lists all options",
        "here --run-dir x --kind lef": "--kind: expected one of left, right, got 'lef' (did you mean left?)",
        "here --run-dir x --limit 1.5": "--limit: expected a whole number, got '1.5'",
        "here --run-dir x --width wide": "--width: expected a number, got 'wide'",
        "here --run-dir x --width nan": "--width: expected a number, got 'nan'",
        "here --run-dir -x": "--run-dir needs a value (if -x is one, write --run-dir=-x); --help lists all options",
        "here --run-dir --kind left": "--run-dir needs a value; --help lists all options",
        "here --run-dir x --pairs 1 2 3": "--pairs: expected values in groups of 2, got 1 2 3",
        "here --run-dir x --range 1": "--range: expected 2 values, got 1",
        "here --run-dir x --amounts TPU": "--amounts: expected values in groups of 2, got TPU",
        "here --run-dir": "--run-dir needs a value; --help lists all options",
        "here --run-dir x --pairs": "--pairs needs a value; --help lists all options",
        "here --run-dir x --amounts": "--amounts needs a value; --help lists all options",
        "here --run-dir x --pairs 1 2 --pairs 3 4": "--pairs: it is given twice: list all its values behind one",
        "here --run-dir x --dry=1": "--dry takes no value; its opposite is --no-dry",
        "here there --run-dir x": "unexpected word 'there'; values follow the name of their option, --help lists all "
        "options",
    }.items(),
)
def test_an_error_is_one_line_that_names_the_option(words: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parsed(words)
    assert str(error.value) == message


@pytest.mark.parametrize("words", [["--kind", ""], ["--mixed", "a", ""], ["--run-dir="]])
def test_an_unset_variable_of_the_shell_is_not_taken_for_the_default(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"^--[\w-]+: its value is empty; is a shell variable unset\?$"):
        parse_options(Options, ["here", "--run-dir", "x", *words], inner=Inner())


def test_a_word_that_is_not_utf8_is_refused_before_a_file_has_to_hold_it() -> None:
    store = "--kind=sqlite:////caf\udce9/mlflow.db"  # as Python reads bytes of Latin-1
    with pytest.raises(UserError, match=r"^--kind=sqlite:////caf\\xe9/mlflow\.db is not UTF-8: rename"):
        parse_options(Options, ["here", "--run-dir", "x", store], inner=Inner())


def test_help_comes_in_groups_with_the_common_options_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(train_ensemble.Arguments, ["--help"], train_ensemble.FIRST, fields=Recipe())
    assert not ended.value.code
    text = capsys.readouterr().out
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["options:", "options that most runs need:", *(f"{group}:" for group in GROUPS)]
    assert len(train_ensemble.FIRST) == 12  # about a page
    common = text.partition("most runs need:")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in common.splitlines() if line.startswith("  --")] == [
        f"--{name.replace('_', '-')}" for name in train_ensemble.FIRST
    ]


def test_every_option_of_every_command_has_a_group_and_a_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    names = {each.name for command in COMMANDS for each in fields(command.Arguments)}
    names -= {"fields", "limits", "workers", "first", "second"}
    names |= {each.name for holder in (Recipe, Limits, WorkerOptions) for each in fields(holder)}
    assert not [name for name in names if group_of(name) == OTHER]
    listed = [name for members in GROUPS.values() for name in members]
    assert sorted(listed) == sorted(names)


@pytest.mark.parametrize("columns", [80, 40])
def test_help_fits_a_narrow_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        parse_options(prepare_dataset.Arguments, ["--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= columns
