"""Which version of the registered ensemble is the champion."""

from typing import Any, Literal

from pipelines.tracking.models import ERRORS, MODEL, VAL_DIGEST_TAG
from pipelines.tracking.store import RunsOf

ChampionRule = Literal["better", "always", "never"]
CHAMPION = "champion"


def choose_champion(runs: RunsOf, number: str, rule: ChampionRule) -> str:
    """Give the alias ``champion`` to version ``number`` if ``rule`` says so; what was done, and why."""
    new = runs.client.get_model_version(MODEL, number)
    aliases = runs.client.get_registered_model(MODEL).aliases
    champion = runs.client.get_model_version(MODEL, aliases[CHAMPION]) if CHAMPION in aliases else None
    wins, why = _verdict(new, champion, rule)
    if wins:
        runs.client.set_registered_model_alias(MODEL, CHAMPION, number)
    return why


def _verdict(new: Any, champion: Any, rule: ChampionRule) -> tuple[bool, str]:
    name = f"{MODEL} version {new.version}"
    if champion is None:
        return rule != "never", f"{name}, the first" + (" champion" if rule != "never" else "")
    old = f"version {champion.version}"
    if champion.version == new.version:
        return False, f"{name}, the champion"
    if rule == "always":
        return True, f"{name}, the champion now, after {old}"
    if rule == "never" or new.tags[VAL_DIGEST_TAG] != champion.tags.get(VAL_DIGEST_TAG):
        why = "" if rule == "never" else ", which was evaluated on other images"
        return False, f"{name}; {old}{why}, stays champion"
    ours, theirs = (tuple(float(version.tags[error]) for error in ERRORS) for version in (new, champion))
    errors = f"top-5 / top-1 error {ours[0]:.2f} / {ours[1]:.2f} %, {old} {theirs[0]:.2f} / {theirs[1]:.2f} %"
    return ours < theirs, f"{name}{', the champion now' if ours < theirs else f'; {old} stays champion'} ({errors})"
