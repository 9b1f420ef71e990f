"""The documents whose claims are examined, the findings, and where documents disagree (data/sources.yaml)."""

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
    """A result in a sentence or two.

    Attributes:
        short: It in a few words.
        text: It with numbers, each a value of a claim over its seeds, written as `{msu-1.val:step}`.
        rests_on: The verdict that each claim must have for the finding to stand, by the claim's id.
    """

    model_config = ConfigDict(extra="forbid")
    short: str = Field(min_length=1)
    text: str
    rests_on: dict[str, Judgement] = Field(min_length=1)


class Sources(BaseModel):
    """What data/sources.yaml holds.

    Attributes:
        findings: What the runs show.
        documents: The documents whose claims are examined, by their short name.
        literature: Works behind the documents.
        disagreements: Claims that contradict each other.
        topics: What the documents discuss and nobody has examined here.
    """

    model_config = ConfigDict(extra="forbid")
    findings: list[Finding]
    documents: dict[str, Document]
    literature: list[Work]
    disagreements: list[Disagreement]
    topics: list[str]


def load(path: Path | None = None) -> Sources:
    """Return what a file of sources holds.

    Args:
        path: The file (default: data/sources.yaml of the repository).

    Raises:
        ClaimsError: The file is missing or damaged.
    """
    file = repository() / "data" / "sources.yaml" if path is None else path
    try:
        return Sources.model_validate(yaml_files.read(file))
    except yaml_files.YamlError as error:
        raise ClaimsError(f"{file} cannot be read as sources: {error}. Restore it, for instance from git.") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(str(key)[:80] for key in e['loc'])}: {e['msg']}" for e in error.errors()[:5])
        raise ClaimsError(f"{file}: {problems}. Restore it, for instance from git.") from None


def findings(cited: Sources, verdicts: dict[str, Verdict]) -> list[tuple[str, str, list[str]]]:
    """Return the findings whose claims have the verdicts that they rest on.

    Args:
        cited: The sources with their findings.
        verdicts: The verdict on every claim, by the claim's id.

    Returns:
        For each finding a few words, its text with the numbers filled in, and the ids of the claims it rests on.

    Raises:
        ClaimsError: A finding names a claim, or a value of a claim, that does not exist.
    """
    shown = []
    for finding in cited.findings:
        if unknown := set(finding.rests_on) - set(verdicts):
            raise ClaimsError(
                f"data/sources.yaml: {finding.short!r} names {min(unknown)!r}; {suggestion(min(unknown), verdicts)}"
            )
        if all(verdicts[id].verdict == needed for id, needed in finding.rests_on.items()):
            values = {id: values_shown(verdicts[id].values, ranges=True) for id in finding.rests_on}
            shown.append((finding.short, _filled(finding, values), list(finding.rests_on)))
    return shown


def _filled(finding: Finding, values: dict[str, dict[str, Shown]]) -> str:
    """Return the text of a finding with its numbers; `values` are those of each claim, by id and name."""

    def number(match: re.Match[str]) -> str:
        id, name, kind = match.groups()
        if name not in values.get(id, {}) or kind not in KINDS:
            raise ClaimsError(
                f"data/sources.yaml: {finding.short!r} needs {match[0]}; it rests on {listed(values)}, each with "
                f"the values of its claim, shown as {listed(KINDS)}"
            )
        return format(values[id][name], kind)

    return re.sub(r"\{([^.{}]*)\.([^:{}]*):([^{}]*)\}", number, unbroken(finding.text))
