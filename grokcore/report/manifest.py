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
from grokcore.report.notebook_files import read
from grokcore.spec.base import GrokcoreError, short_repr

NAME = "manifest.json"
PDF = "grokking.pdf"


class ManifestError(GrokcoreError, RuntimeError):
    """A report is missing, was not made by grokcore, or cannot be written; the message says what to do."""


class Manifest(BaseModel):
    """What `manifest.json` holds; other keys say how the report was made.

    Attributes:
        files: SHA-256 of every file of the report, by its path in the report's folder.
        inputs: SHA-256 of what the report was made from, by path in the repository.
        failed: Names of the notebooks that failed.
        book: SHA-256 of the pages that the PDF was printed from; None without a PDF.
    """

    model_config = ConfigDict(extra="allow", strict=True)
    files: dict[str, str]
    inputs: dict[str, str] = {}
    failed: list[str] = []
    book: str | None = None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def inputs(root: Path | None = None) -> dict[str, str]:
    """Return the SHA-256 of all that the published report is made from, by path in the repository.

    These are the records, the benchmark's results, claims and sources, the notebooks' cells (without outputs), and
    their parameters in plan cpu.

    Args:
        root: The repository (default: this one).
    """
    root = repository() if root is None else root
    patterns = ("data/records/*", "data/*.yaml", "benchmarks/*.json", "notebooks/cpu/*.yaml")
    files = sorted(
        path for pattern in patterns for path in root.glob(pattern) if path.is_file() and path.name[0] != "."
    )
    sums = {path.relative_to(root).as_posix(): _sha256(path.read_bytes()) for path in files}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        cells = [[cell.cell_type, cell.source, cell.metadata.get("tags", [])] for cell in read(path).cells]
        sums[path.relative_to(root).as_posix()] = _sha256(json.dumps(cells).encode())
    return sums


def read_manifest(out: Path) -> dict[str, Any]:
    """Return the manifest of a report.

    Args:
        out: The report's folder.

    Raises:
        ManifestError: There is no manifest, it is damaged, or it names a file that is not in the folder.
    """
    try:
        content = Manifest.model_validate_json((out / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise ManifestError(
            f"there is no report in {out} ({NAME} is missing or damaged); make it with `make report`"
        ) from None
    for name in content.files:
        if not _within(out, name):
            raise ManifestError(
                f"there is no report in {out}: {NAME} names {short_repr(name)}, which is no file of it; "
                "make it with `make report`"
            )
    return content.model_dump()


def _within(out: Path, name: str) -> bool:
    """Tell whether a name, links followed, is that of a file under a report's folder (there or not)."""
    plain = name.isprintable() and len(name.encode(errors="replace")) < 1000 and not name.endswith("/")
    return plain and name == PurePosixPath(name).as_posix() and out.resolve() in (out / name).resolve().parents


def differences(out: Path, root: Path | None = None) -> list[str]:
    """Return what differs between a report and what it would be made from now, one line each.

    Args:
        out: The report's folder.
        root: The repository (default: this one).

    Raises:
        ManifestError: There is no report.
    """
    content, now = read_manifest(out), inputs(root)
    before = content["inputs"]
    lines = [f"{path} is new" for path in sorted(now.keys() - before.keys())]
    lines += [f"{path} is gone" for path in sorted(before.keys() - now.keys())]
    lines += [f"{path} has changed" for path in sorted(now.keys() & before.keys()) if now[path] != before[path]]
    lines += [f"{name} failed when the report was made" for name in content["failed"]]
    for name, digest in content["files"].items():
        path = out / name
        if not os.path.isfile(path):
            lines.append(f"{name} is missing from the report")
        elif _sha256(path.read_bytes()) != digest:
            lines.append(f"{name} is not what was written")
    return lines


def printed_book(out: Path, about: dict[str, Any]) -> str | None:
    """Return the SHA-256 of the pages that the PDF of a report was printed from, if the PDF may stay.

    Args:
        out: The report's folder.
        about: How the new report is made, as `publish` takes it.

    Returns:
        None if there is no PDF as written, or if the report there was not made as `about` says.
    """
    try:
        content = read_manifest(out)
    except ManifestError:
        return None
    same = {key: content.get(key) for key in about} == json.loads(json.dumps(about))
    intact = (out / PDF).is_file() and _sha256((out / PDF).read_bytes()) == content["files"].get(PDF)
    return content.get("book") if same and intact else None


def publish(finished: Path, out: Path, about: dict[str, Any], *, keep_pdf: bool = False) -> None:
    """Move the files of a finished report into place, each at once, and write the manifest last.

    Files of the report that was there before and are not in this one are removed; nothing else in `out` is touched.

    Args:
        finished: The folder with the finished files.
        out: The folder that they go to, on the same disk.
        about: How the report was made, for the manifest; `about["book"]` is the SHA-256 of the pages that its PDF was
            printed from.
        keep_pdf: Whether the PDF of the report that was there before stays.

    Raises:
        ManifestError: The files cannot be written, or would be written to another folder through a link.
    """
    try:
        _publish(finished, out, about, keep_pdf)
    except OSError as error:
        raise ManifestError(f"{out} cannot be written: {error}; name another folder with --out") from None


def _publish(finished: Path, out: Path, about: dict[str, Any], keep_pdf: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    try:
        before = read_manifest(out)["files"]
    except ManifestError:
        before = {}
    files = {
        path.relative_to(finished).as_posix(): _sha256(path.read_bytes())
        for path in finished.rglob("*")
        if path.is_file()
    }
    for name in sorted([*files, NAME]):
        if not _within(out, name):
            raise ManifestError(f"{out / name} is a link to elsewhere: remove it, or name another folder with --out")
    for name in sorted(files):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(finished / name, out / name)
    if keep_pdf:
        files[PDF] = before[PDF]
    for name in before.keys() - files.keys():
        (out / name).unlink(missing_ok=True)
    manifest = finished / NAME
    text = json.dumps({**about, "files": dict(sorted(files.items()))}, indent=1, ensure_ascii=False) + "\n"
    manifest.write_text(text, encoding="utf-8")
    os.replace(manifest, out / NAME)


def pack(out: Path, file: Path) -> int:
    """Write a report as one zip file, whole or not at all.

    Args:
        out: The report's folder.
        file: The zip file.

    Returns:
        The number of files in it.

    Raises:
        ManifestError: There is no report, or the zip file cannot be written.
    """
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
