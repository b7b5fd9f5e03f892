"""How shapes and types of googlenet/ are checked under pytest: beartype, and int will do where float is said."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
