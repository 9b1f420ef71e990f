"""Compare this working tree with an older commit: ids, records, verdicts, figures, trainings (`make same BASE=COMMIT`).

What must not change by accident is worked out in both trees, each with its own package, and compared:

* the ids of the runs of every notebook in both plans and at the smoke scale, and the steps at which their weights are
  kept;
* the checksum of every record, and the bytes of the files in data/records/ and of data/claims.yaml;
* the verdicts, judged again from the records as claims.json holds them;
* the figures in the published pages (build the report first where notebooks have changed), but for the live plot, which
  shows how fast the machine was;
* three small trainings, bit for bit: one run that is compiled, one with dropout and noise, three at once;
* the end of a training that goes on from a checkpoint which the older commit wrote.

Prints a line for each, and exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).with_name("same_probe.py")
MOST_SHOWN = 5
Facts = dict[str, dict[str, Any]]  # by subject; each subject a value by name


def differences(base: Facts, now: Facts) -> dict[str, list[str]]:
    """Return for each subject of either tree what differs, a line each; an empty list where nothing does."""
    found: dict[str, list[str]] = {}
    for subject in sorted({*base, *now}):
        old, new = base.get(subject, {}), now.get(subject, {})
        lines = [f"{name} is only in the base" for name in sorted(old.keys() - new.keys())]
        lines += [f"{name} is only in this tree" for name in sorted(new.keys() - old.keys())]
        lines += [f"{name} differs" for name in sorted(old.keys() & new.keys()) if old[name] != new[name]]
        found[subject] = lines
    return found


def checked_out(commit: str, folder: Path) -> Path:
    """Write the files of a commit into a folder, and return it. Raises CalledProcessError for an unknown commit."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True)
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def figures(tree: Path) -> dict[str, str]:
    """Return the SHA-256 of every SVG figure of the published pages, by page and place."""
    found: dict[str, str] = {}
    for page in sorted((tree / "reports").glob("*.html")):
        drawings = re.findall(r"<svg\b.*?</svg>", page.read_text(encoding="utf-8"), flags=re.S)
        for place, drawing in enumerate(drawings, start=1):
            if " steps/s -->" in drawing:  # matplotlib writes each text as a comment
                continue
            found[f"{page.name}, figure {place}"] = hashlib.sha256(drawing.encode()).hexdigest()
    return found


def files(tree: Path) -> dict[str, str]:
    """Return the SHA-256 of the files that hold the records and the rules, by path."""
    paths = [*sorted((tree / "data" / "records").iterdir()), tree / "data" / "claims.yaml"]
    return {path.relative_to(tree).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def probed(tree: Path, checkpoint: Path, *, writes: bool) -> Facts:
    """Return what the package of a tree gives, worked out in a process of its own; it writes or reads a checkpoint."""
    command = [sys.executable, str(PROBE), str(checkpoint), "write" if writes else "read"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"the probe failed in {tree}, with code {ended.returncode}: see above")
    return json.loads(ended.stdout)


def facts(tree: Path, checkpoint: Path, *, writes: bool) -> Facts:
    """Return all that is compared of one tree."""
    return {**probed(tree, checkpoint, writes=writes), "figures": figures(tree), "files": files(tree)}


def report(base: Facts, now: Facts, say: Callable[[str], None] = print) -> bool:
    """Say of each subject how much is compared and what differs; return whether all is the same."""
    found = differences(base, now)
    for subject, lines in found.items():
        say(f"{subject:12} {len(now.get(subject, {})):6,} compared, {len(lines) or 'none'} differ")
        for line in lines[:MOST_SHOWN]:
            say(f"    {line}")
        if len(lines) > MOST_SHOWN:
            say(f"    and {len(lines) - MOST_SHOWN} more")
    return not any(found.values())


def main() -> int:
    """Compare the working tree with the commit named; return 1 if anything differs, 2 for an unknown commit."""
    parser = argparse.ArgumentParser(description="Compare ids, records, verdicts, figures and trainings of two trees.")
    parser.add_argument("base", metavar="COMMIT", help="the older commit, for instance main or HEAD~3")
    commit = parser.parse_args().base
    with tempfile.TemporaryDirectory(prefix="same-") as folder:
        try:
            tree = checked_out(commit, Path(folder) / "base")
        except subprocess.CalledProcessError as error:
            print(f"{commit!r} cannot be read: {error.stderr.decode().strip()}", file=sys.stderr)
            return 2
        checkpoint = Path(folder) / "half.safetensors"
        base = facts(tree, checkpoint, writes=True)
        now = facts(ROOT, checkpoint, writes=False)
    same = report(base, now)
    print("all is the same" if same else "NOT the same")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
