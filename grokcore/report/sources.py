"""The documents whose claims are examined, and what is said of them together (data/sources.yaml): findings and
disagreements.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grokcore.claims.rules import Judgement
from grokcore.claims.verdicts import Verdict
from grokcore.claims.wording import KINDS, ClaimsError, Shown, listed, unbroken, values_shown
from grokcore.records import yaml_files
from grokcore.records.store import repository
from grokcore.spec.base import suggestion


class Document(BaseModel):
    """A document whose claims are examined, as data/sources.yaml has it."""

    model_config = ConfigDict(extra="forbid")
    authors: str
    original_authors: str
    title: str
    original: str | None = None
    lang: str = Field(pattern=r"^[a-z]{2,3}$")
    kind: str = Field(min_length=1)


class Work(BaseModel):
    """A work behind the documents; its link is one that a page may lead to."""

    model_config = ConfigDict(extra="forbid")
    text: str
    link: str | None = Field(default=None, pattern=r"^https?://")


class Disagreement(BaseModel):
    """Claims that contradict each other, and how both might be true all the same."""

    model_config = ConfigDict(extra="forbid")
    question: str
    claims: list[str] = Field(min_length=2)
    both: str


class Finding(BaseModel):
    """What came out, in a sentence or two with numbers of the claims it rests on, each with the verdict it needs."""

    model_config = ConfigDict(extra="forbid")
    short: str = Field(min_length=1)
    text: str
    rests_on: dict[str, Judgement] = Field(min_length=1)


class Sources(BaseModel):
    """What the front page cites, finds and holds against each other, and lists as not examined (data/sources.yaml)."""

    model_config = ConfigDict(extra="forbid")
    findings: list[Finding]
    documents: dict[str, Document]
    literature: list[Work]
    disagreements: list[Disagreement]
    topics: list[str]


def load(path: Path | None = None) -> Sources:
    """Return what a file holds (default: data/sources.yaml of the repository); raises ClaimsError if it is damaged."""
    file = repository() / "data" / "sources.yaml" if path is None else path
    try:
        return Sources.model_validate(yaml_files.read(file))
    except yaml_files.YamlError as error:
        raise ClaimsError(f"{file} cannot be read as sources: {error}. Restore it, for instance from git.") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(str(key)[:80] for key in e['loc'])}: {e['msg']}" for e in error.errors()[:5])
        raise ClaimsError(f"{file}: {wrong}. Restore it, for instance from git.") from None


def findings(cited: Sources, verdicts: dict[str, Verdict]) -> list[tuple[str, str, list[str]]]:
    """Return the findings whose claims have the verdicts that they rest on: a few words, the text and the claims.

    In a text `{msu-1.val:step}` is a value of a claim over its seeds. Raises ClaimsError for an unknown claim or value.
    """
    shown = []
    for one in cited.findings:
        if unknown := set(one.rests_on) - set(verdicts):
            raise ClaimsError(
                f"data/sources.yaml: {one.short!r} names {min(unknown)!r}; {suggestion(min(unknown), verdicts)}"
            )
        if all(verdicts[id].verdict == needed for id, needed in one.rests_on.items()):
            values = {id: values_shown(verdicts[id].values, ranges=True) for id in one.rests_on}
            shown.append((one.short, _filled(one, values), list(one.rests_on)))
    return shown


def _filled(one: Finding, values: dict[str, dict[str, Shown]]) -> str:
    def number(match: re.Match[str]) -> str:
        id, name, kind = match.groups()
        if name not in values.get(id, {}) or kind not in KINDS:
            raise ClaimsError(
                f"data/sources.yaml: {one.short!r} needs {match[0]}; it rests on {listed(values)}, each with "
                f"the values of its claim, shown as {listed(KINDS)}"
            )
        return format(values[id][name], kind)

    return re.sub(r"\{([^.{}]*)\.([^:{}]*):([^{}]*)\}", number, unbroken(one.text))
