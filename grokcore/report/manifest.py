"""What a published report was made from, as SHA-256 sums, and whether that still holds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict

from grokcore.records.store import repository
from grokcore.report.plan import read
from grokcore.spec.base import short_repr

NAME = "manifest.json"
PDF = "grokking.pdf"


class ManifestError(RuntimeError):
    """A report that is missing or was not made by grokcore; the message says what to do."""


class Manifest(BaseModel):
    """What `manifest.json` holds, beside what else it tells of how the report was made."""

    model_config = ConfigDict(extra="allow", strict=True)
    files: dict[str, str]
    inputs: dict[str, str] = {}
    failed: list[str] = []
    book: str | None = None


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def inputs(root: Path | None = None) -> dict[str, str]:
    """Return the SHA-256 of all that the published report is made from, by path in the repository.

    These are the records, the benchmark's results, claims and sources, the notebooks' cells (without outputs), and
    their parameters in plan cpu.
    """
    root = repository() if root is None else root
    patterns = ("data/records/*", "data/*.yaml", "benchmarks/*.json", "notebooks/cpu/*.yaml")
    files = sorted(
        path for pattern in patterns for path in root.glob(pattern) if path.is_file() and path.name[0] != "."
    )
    sums = {path.relative_to(root).as_posix(): _sum(path.read_bytes()) for path in files}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        cells = [[cell.cell_type, cell.source, cell.metadata.get("tags", [])] for cell in read(path).cells]
        sums[path.relative_to(root).as_posix()] = _sum(json.dumps(cells).encode())
    return sums


def read_manifest(out: Path) -> dict[str, Any]:
    """Return the manifest of a report; raises ManifestError if there is none, or if it names a file elsewhere."""
    try:
        told = Manifest.model_validate_json((out / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise ManifestError(
            f"there is no report in {out} ({NAME} is missing or damaged); make it with `make report`"
        ) from None
    for name in told.files:
        if not _within(out, name):
            raise ManifestError(
                f"there is no report in {out}: {NAME} names {short_repr(name)}, which is no file of it; "
                "make it with `make report`"
            )
    return told.model_dump()


def _within(out: Path, name: str) -> bool:
    """Tell whether a name, links followed, is that of a file under a report's folder (there or not)."""
    plain = name.isprintable() and len(name.encode(errors="replace")) < 1000 and not name.endswith("/")
    return plain and name == PurePosixPath(name).as_posix() and out.resolve() in (out / name).resolve().parents


def stale(out: Path, root: Path | None = None) -> list[str]:
    """Return what differs between a report and what it would be made from now, one line each.

    Raises ManifestError if there is no report.
    """
    told, now = read_manifest(out), inputs(root)
    then = told["inputs"]
    lines = [f"{path} is new" for path in sorted(now.keys() - then.keys())]
    lines += [f"{path} is gone" for path in sorted(then.keys() - now.keys())]
    lines += [f"{path} has changed" for path in sorted(now.keys() & then.keys()) if now[path] != then[path]]
    lines += [f"{name} failed when the report was made" for name in told["failed"]]
    for name, digest in told["files"].items():
        path = out / name
        if not os.path.isfile(path):
            lines.append(f"{name} is missing from the report")
        elif _sum(path.read_bytes()) != digest:
            lines.append(f"{name} is not what was written")
    return lines


def printed(out: Path, about: dict[str, Any]) -> str | None:
    """Return the SHA-256 of the pages that the PDF in `out` was printed from, if it may stay.

    None if there is no PDF as written, or if the report there was not made as `about` says.
    """
    try:
        told = read_manifest(out)
    except ManifestError:
        return None
    same = {key: told.get(key) for key in about} == json.loads(json.dumps(about))
    intact = (out / PDF).is_file() and _sum((out / PDF).read_bytes()) == told["files"].get(PDF)
    return told.get("book") if same and intact else None


def publish(made: Path, out: Path, about: dict[str, Any], *, keep_pdf: bool = False) -> None:
    """Move the files of a finished report from `made` to `out`, each at once, and write the manifest last.

    `about["book"]` is the SHA-256 of the pages that its PDF was printed from. Files of the report that was there
    before and are not in this one are removed (but for the PDF with `keep_pdf`); nothing else in `out` is touched.
    Raises ManifestError if it cannot be written.
    """
    try:
        _publish(made, out, about, keep_pdf)
    except OSError as error:
        raise ManifestError(f"{out} cannot be written: {error}; name another folder with --out") from None


def _publish(made: Path, out: Path, about: dict[str, Any], keep_pdf: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    try:
        before = read_manifest(out)["files"]
    except ManifestError:
        before = {}
    files = {path.relative_to(made).as_posix(): _sum(path.read_bytes()) for path in made.rglob("*") if path.is_file()}
    for name in sorted([*files, NAME]):
        if not _within(out, name):
            raise ManifestError(f"{out / name} is a link to elsewhere: remove it, or name another folder with --out")
    for name in sorted(files):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(made / name, out / name)
    if keep_pdf:
        files[PDF] = before[PDF]
    for name in before.keys() - files.keys():
        (out / name).unlink(missing_ok=True)
    manifest = made / NAME
    text = json.dumps({**about, "files": dict(sorted(files.items()))}, indent=1, ensure_ascii=False) + "\n"
    manifest.write_text(text, encoding="utf-8")
    os.replace(manifest, out / NAME)


def pack(out: Path, file: Path) -> int:
    """Write a report as one zip file, whole or not at all, and return the number of its files."""
    if not file.name:
        raise ManifestError(f"{str(file)!r} was given as the zip file, which is a folder: name a file, as report.zip")
    names = [*read_manifest(out)["files"], NAME]
    part = file.with_name(f".{file.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.write(out / name, f"grokking-report/{name}")
        os.replace(part, file)
    except (OSError, ValueError) as error:  # a name with NUL is a ValueError
        raise ManifestError(f"{file} cannot be written: {error}") from None
    finally:
        with contextlib.suppress(OSError, ValueError):
            part.unlink(missing_ok=True)
    return len(names)
