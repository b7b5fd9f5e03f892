"""Checks of shapes and types in googlenet/ under pytest: beartype, which accepts int for float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
