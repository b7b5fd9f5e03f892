"""Options of a command from the fields of its dataclass: types, defaults, and docstrings as help.

A field that is itself a dataclass contributes its own fields as options. Every error is a :class:`UserError` of one
line, that names the option and says what it expects.
"""

import argparse
import ast
import inspect
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

from pipelines.errors import UserError, did_you_mean
from pipelines.job.console import fitted
from pipelines.job.option_groups import GROUPS, OTHER, POSITIONAL, group_of
from pipelines.job.option_values import NONE, kind_name, words_of

T = TypeVar("T")

COMMON = "options that most runs need"
HELP = "--help lists all options"
TOO_FEW = re.compile(r"expected (one|at least one|\d+) arguments?")


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        name: name of the field.
        holder: name of the field whose dataclass has it; empty for a field of the command itself.
        type: annotation of the field.
        default: default value; ``MISSING`` if it is required.
        help: docstring of the field.
        positional: whether it is given by its place, without its name.
    """

    name: str
    holder: str
    type: Any
    default: Any
    help: str
    positional: bool = False

    @property
    def flag(self) -> str:
        """The option as users type it."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def shown(self) -> str:
        """Its name in messages."""
        return self.name.upper() if self.positional else self.flag


def parse_options(arguments: type[T], argv: Sequence[str], first: Sequence[str] = (), **given: Any) -> T:
    """Return an instance of the dataclass ``arguments`` from the words ``argv``.

    Args:
        arguments: dataclass of the options. Its class attribute ``POSITIONAL`` may name fields given by their place.
        argv: words of the command line, without the name of the command.
        first: names of the fields that ``--help`` lists first.
        given: an instance for a field whose type is a dataclass; its values are the defaults of its options. Without
            one, that is the field's own default.

    Raises:
        UserError: a word is unknown, misplaced or not UTF-8, a value is wrong, or a required option is missing.
    """
    for word in argv:
        _refuse_other_encoding(word)
    held = _held(arguments, given)
    options = list(_options(arguments, held))
    parser = _parser(arguments, options, first)
    parser.words = [_with_hyphens(word) for word in argv]
    values, unknown = parser.parse_known_intermixed_args(parser.words)
    if unknown:
        raise UserError(_about_unknown(unknown, options))
    read = {option.name: vars(values)[option.name] for option in options if option.name in values}
    if missing := [o.shown for o in options if o.default is MISSING and o.name not in read]:
        raise UserError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; {HELP}")
    own = {option.name: read[option.name] for option in options if not option.holder and option.name in read}
    for holder, instance in held.items():
        inner = {o.name: read[o.name] for o in options if o.holder == holder and o.name in read}
        own[holder] = replace(instance, **inner)
    return arguments(**own)


def _refuse_other_encoding(word: str) -> None:
    """Refuse a word with bytes that are not UTF-8, which neither a recipe nor the log of a job could hold."""
    try:
        word.encode()
    except UnicodeEncodeError as error:
        readable = os.fsencode(word).decode(errors="backslashreplace")
        raise UserError(f"{readable} is not UTF-8: rename what it names, or write it in UTF-8") from error


def _held(arguments: type, given: dict[str, Any]) -> dict[str, Any]:
    """Return an instance for each field whose type is a dataclass."""
    hints = get_type_hints(arguments)
    return {f.name: given.get(f.name, _default(f)) for f in fields(arguments) if is_dataclass(hints[f.name])}


def _options(arguments: type, held: dict[str, Any]) -> Iterator[Option]:
    hints, docs = get_type_hints(arguments), _field_docs(arguments)
    positional = getattr(arguments, "POSITIONAL", ())
    for field in fields(arguments):
        if field.name in held:
            instance = held[field.name]
            inner, inner_docs = get_type_hints(type(instance)), _field_docs(type(instance))
            for each in fields(instance):
                default = getattr(instance, each.name)
                yield Option(each.name, field.name, inner[each.name], default, inner_docs.get(each.name, ""))
        else:
            is_positional = field.name in positional
            yield Option(field.name, "", hints[field.name], _default(field), docs.get(field.name, ""), is_positional)


def _default(field: "Field[Any]") -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _field_docs(cls: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass, in one line."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    docs, name = {}, ""
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            docs[name], name = " ".join(str(node.value.value).split()), ""
    return docs


class _Parser(argparse.ArgumentParser):
    """Parser of ``words``, whose errors are those of all commands: one line."""

    words: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        name, _, rest = message.removeprefix("argument ").partition(": ")
        option = name.partition("/")[0]
        if number := TOO_FEW.fullmatch(rest):
            needed = f"{number[1]} values" if number[1].isdigit() else "a value"
            raise UserError(f"{option} needs {needed}{self._about_dash(option)}; {HELP}")
        if rest.startswith("ignored explicit argument"):
            raise UserError(f"{option} takes no value; its opposite is --no-{option.removeprefix('--')}")
        raise UserError(f"{option}: {rest}" if rest else message)

    def _about_dash(self, option: str) -> str:
        """Return how to write a value that begins with a dash, which argparse takes for an option."""
        behind = next((word for name, word in pairwise(self.words) if name == option), "")
        is_value = behind.startswith("-") and behind not in self._option_string_actions
        return f" (if {behind} is one, write {option}={behind})" if is_value else ""


class _Take(argparse.Action):
    """Converts all words of an option together."""

    def __init__(self, *args: Any, convert: Callable[[list[str]], Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._convert = convert

    def __call__(self, _parser: Any, namespace: Any, values: Any, _option: Any = None) -> None:
        words = values if isinstance(values, list) else [values]
        if "" in words:
            raise argparse.ArgumentError(self, "its value is empty; is a shell variable unset?")
        if self.nargs == "+" and hasattr(namespace, self.dest):  # the values given first would be lost
            raise argparse.ArgumentError(self, "it is given twice: list all its values behind one")
        try:
            setattr(namespace, self.dest, self._convert(words))
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from error


def _parser(arguments: type, options: Sequence[Option], first: Sequence[str]) -> _Parser:
    required = [o.shown if o.positional else f"{o.flag} {_metavar(o)}" for o in options if o.default is MISSING]
    usage = " ".join(["usage:", Path(sys.argv[0]).name, *required, "[options]"])
    parser = _Parser(
        usage=fitted(usage, shutil.get_terminal_size().columns).removeprefix("usage: ").replace("%", "%%"),
        description=(arguments.__doc__ or "").partition("\n\n")[0],
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    by_name = {option.name: option for option in options}
    places = dict.fromkeys(first, COMMON)
    for option in options:
        places.setdefault(option.name, POSITIONAL if option.positional else group_of(option.name))
    for group in (POSITIONAL, COMMON, *GROUPS, OTHER):
        listed = [*first, *GROUPS.get(group, ()), *by_name]
        members = [name for name in dict.fromkeys(listed) if places.get(name) == group]
        if members:
            section = parser.add_argument_group(group)
            for name in members:
                _add(section, by_name[name])
    return parser


def _add(section: Any, option: Option) -> None:
    help_text = f"{option.help}{_shown_default(option)}".replace("%", "%%")
    if option.type is bool:
        _add_switch(section, option, help_text)
        return
    number, convert = words_of(option.type)
    settings = {"action": _Take, "convert": convert, "metavar": _metavar(option), "help": help_text}
    if option.positional:
        section.add_argument(option.name, nargs="?", **settings)
    else:
        section.add_argument(option.flag, nargs=number, **settings)


def _add_switch(section: Any, option: Option, help_text: str) -> None:
    """Add --name and --no-name; what is off is listed by the word that turns it on alone."""
    if option.default:
        section.add_argument(option.flag, action=argparse.BooleanOptionalAction, help=help_text)
        return
    section.add_argument(option.flag, action="store_true", help=help_text)
    opposite = f"--no-{option.flag.removeprefix('--')}"
    section.add_argument(opposite, dest=option.name, action="store_false", help=argparse.SUPPRESS)


def _shown_default(option: Option) -> str:
    if option.default is MISSING:
        return "" if option.positional else " (required)"
    if option.default in ("", (), {}) or option.default is None:
        return ""
    if isinstance(option.default, bool):
        return f" (default: {'on' if option.default else 'off'})"
    return f" (default: {' '.join(_flat(option.default))})"


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, tuple):
        for part in value:
            yield from _flat(part)
    else:
        yield f"{value:g}" if isinstance(value, float) else str(value)


def _metavar(option: Option) -> str:
    shown = option.name.upper() if option.positional else kind_name(option.type)
    # Of several words, argparse shows the second as optional, which says enough about None.
    return shown.removesuffix(f"|{NONE}") if words_of(option.type)[0] == "+" else shown


def _about_unknown(words: Sequence[str], options: Sequence[Option]) -> str:
    word = next((word for word in words if word.startswith("-")), words[0]).partition("=")[0]
    if not word.startswith("-"):
        return f"unexpected word {word!r}; values follow the name of their option, {HELP}"
    known = [option.flag for option in options]
    return f"unknown option {word}{did_you_mean(word, known)}; {HELP}"


def _with_hyphens(word: str) -> str:
    """Return an option that is typed like the field's name, --run_dir, with hyphens."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word
