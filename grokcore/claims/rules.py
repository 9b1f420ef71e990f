"""The claims file: every claim with its source, our choices and the rule that judges it, read and checked."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grokcore.claims.statistics import cycles, epochs, fractions, grid, times, weights
from grokcore.claims.statistics.times import Finding
from grokcore.claims.wording import ClaimsError, listed
from grokcore.records import yaml_files
from grokcore.records.store import repository
from grokcore.spec.base import short_repr, suggestion

Judgement = Literal["confirmed", "refuted", "partly", "not settled"]
STATISTICS: dict[str, Callable[..., Finding]] = {
    function.__name__: function
    for function in (
        times.delayed_generalisation,
        times.groks_in_every_cell,
        times.sudden_generalisation,
        times.fills_in,
        times.symmetric_before_asymmetric,
        times.sooner_with_alpha,
        times.worse_than_neighbour,
        times.same_result,
        times.beginnings_only,
        times.worsens_with_alpha,
        weights.norm_rise_and_fall,
        weights.decay_is_the_key,
        weights.validation_loss_shape,
        weights.descent_along_a_ray,
        weights.few_frequencies,
        cycles.drops_with_jumps,
        cycles.saw_tooth,
        cycles.effective_gradient_falls,
        cycles.needs_weight_decay,
        cycles.needs_normalisation,
        cycles.partial_invariance,
        epochs.events_at_epochs,
        epochs.brief_dips,
        epochs.smoother,
        epochs.quieter,
        epochs.unstable_at_small_alpha,
        epochs.grokking_with_operands,
        epochs.validation_falls_while_training_rises,
        epochs.harder_with_p,
        fractions.no_grokking_in_any,
        fractions.too_little_and_too_much,
        fractions.sooner_in_every_table,
        fractions.operations_differ,
        fractions.weight_decay_saves_data,
        grid.converges_nowhere,
        grid.converges_only_from,
        grid.converges_below,
        grid.u_shaped,
        grid.rises_exponentially,
    )
}


class Claim(BaseModel):
    """One claim: what its source says and shows, our choices, and the rule that judges it (data/claims.yaml)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    source: str
    citation: str
    statement: str
    figure: str
    setting: str
    choices: str
    notebook: str
    statistic: str
    parameters: dict[str, Any]
    cells: dict[str, dict[str, Any]] = Field(min_length=1)
    parts: dict[str, str] = Field(min_length=1)
    headline: str
    measured: str
    rule: dict[Judgement, str] = Field(min_length=4)
    min_seeds: int = Field(ge=1)
    first_seed: int = Field(default=0, ge=0)
    share: float = Field(gt=0.5, le=1)
    at_best: Literal["confirmed", "partly"] = "confirmed"
    why_capped: str = ""

    @property
    def function(self) -> Callable[..., Finding]:
        """The statistic that judges the parts of the claim on one seed."""
        return STATISTICS[self.statistic]

    @property
    def rule_sha256(self) -> str:
        """The SHA-256 of what decides: statistic, parameters, cells, parts, rule in words, seeds and shares."""
        names = ["statistic", "parameters", "cells", "parts", "rule", "min_seeds", "share", "at_best"]
        names += ["first_seed"] if self.first_seed else []
        text = json.dumps({name: getattr(self, name) for name in names}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load(path: str | Path | None = None) -> dict[str, Claim]:
    """Return the claims of a file (default: data/claims.yaml of the repository) by id, in its order.

    Raises ClaimsError, naming file and claim, if it is not there, not YAML, or a claim lacks or misspells something.
    """
    file = repository() / "data" / "claims.yaml" if path is None else Path(path)
    try:
        content = yaml_files.read(file)
    except yaml_files.YamlError as error:
        raise ClaimsError(f"{file} cannot be read as claims: {error}. Restore it, for instance from git.") from error
    blocks = ("sources", "settings", "verdict_rule", "claims")
    if not isinstance(content, dict) or any(name not in content for name in blocks):
        has = short_repr(list(content)) if isinstance(content, dict) else "no mapping"
        raise ClaimsError(
            f"{file} needs the blocks {', '.join(blocks)}; it has {has}. Restore it, for instance from git."
        )
    for name in ("sources", "settings", "verdict_rule"):
        if not isinstance(content[name], dict):
            raise ClaimsError(
                f"{file}: {name} must be a mapping, it is {short_repr(content[name])}. Restore it from git."
            )
    if not isinstance(content["claims"], list):
        raise ClaimsError(f"{file}: claims must be a list, it is {short_repr(content['claims'])}. Restore it from git.")
    claims: dict[str, Claim] = {}
    for position, entry in enumerate(content["claims"], start=1):
        claim = _claim(entry, content, f"{file}, claim {position}")
        if claim.id in claims:
            raise ClaimsError(f"{file} has two claims {claim.id!r}: give one of them another id")
        claims[claim.id] = claim
    return claims


def _claim(entry: Any, content: dict[str, Any], where: str) -> Claim:
    """Return one claim of a file with its settings filled in; `where` says which for an error."""
    if not isinstance(entry, dict) or "id" not in entry:
        raise ClaimsError(f"{where}: expected a mapping with an id, got {short_repr(entry)}")
    where = f"{where} ({str(entry['id'])[:80]})"
    source = entry.get("source")
    if not isinstance(source, Hashable) or source not in content["sources"] or source not in content["settings"]:
        raise ClaimsError(
            f"{where}: source {short_repr(source)} is not among sources and settings: {listed(content['sources'])}"
        )
    try:
        wanted = {name: cell for given, new in entry.get("cells", {}).items() for name, cell in _each(given, new or {})}
        cells = {name: {**content["settings"][source], **cell} for name, cell in wanted.items()}
        known = {"citation": content["sources"][source], "share": content["verdict_rule"]["share"], "cells": cells}
        claim = Claim.model_validate({**entry, **known})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ClaimsError(f"{where}: {wrong}") from None
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise ClaimsError(
            f"{where}: settings, cells, verdict_rule must be mappings, lists under `each` of one length ({error!r})"
        ) from None
    if claim.statistic not in STATISTICS:
        raise ClaimsError(
            f"{where}: unknown statistic {short_repr(claim.statistic)}; {suggestion(claim.statistic, STATISTICS)}"
        )
    try:
        inspect.signature(claim.function).bind({}, **claim.parameters)
    except TypeError as error:
        raise ClaimsError(f"{where}: parameters of {claim.statistic}: {error}") from None
    for name, cell in claim.cells.items():
        if not isinstance(cell.get("budget"), int) or cell["budget"] < 1:
            raise ClaimsError(
                f"{where}, cell {name}: budget must be a number of steps, got {short_repr(cell.get('budget'))}"
            )
    return claim


def _each(name: str, cell: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a cell by name, or those that its lists under `each` stand for, named after the first list's values."""
    lists = cell.get("each")
    if lists is None:
        yield name, cell
        return
    same = {key: value for key, value in cell.items() if key != "each"}
    for values in zip(*lists.values(), strict=True):
        yield f"{name}, {values[0]:g}", {**same, **dict(zip(lists, values, strict=True))}
