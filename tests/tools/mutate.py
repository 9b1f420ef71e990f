"""Break one thing that matters at a time, and see that the test named for it goes red (`make mutants`).

Every mutant of `mutants.yaml` is applied to a copy of the working tree, and its test runs on that copy. A mutant is
killed if a test fails while it runs; a package that is not imported or a test that is not collected kills nothing.
Run some of them by name: `python tests/tools/mutate.py mean-for-sum`. Exit code 1 unless all are killed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 3600
PASSED, FAILED, NOT_RUN = 0, 10, 11
# Runs in the copy: pytest on the copy's own package; the exit code tells a failed test from one that did not run.
LAUNCHER = f"""
import pathlib, sys

class Outcomes:
    failed = broken = 0

    def pytest_collectreport(self, report):
        self.broken += report.failed

    def pytest_runtest_logreport(self, report):
        self.failed += report.failed and report.when == "call"
        self.broken += report.failed and report.when != "call"

try:
    import grokcore
except Exception as error:
    print("the package cannot be imported:", error)
    sys.exit({NOT_RUN})
if pathlib.Path(grokcore.__file__).resolve().parents[1] != pathlib.Path.cwd().resolve():
    print("not the package of the copy:", grokcore.__file__)
    sys.exit({NOT_RUN})
import pytest
seen = Outcomes()
code = pytest.main(sys.argv[1:], plugins=[seen])
sys.exit({PASSED} if code == 0 else {FAILED} if seen.failed and not seen.broken else {NOT_RUN})
"""


@dataclass(frozen=True)
class Mutant:
    """A patch of one file that must turn a test red: `find` occurs there once, `test` are arguments of pytest."""

    name: str
    file: str
    find: str
    replace: str
    test: list[str]
    why: str

    def applied(self, text: str) -> str | None:
        """Return the text with the patch, or None if it does not apply."""
        return text.replace(self.find, self.replace) if text.count(self.find) == 1 else None


def load(path: Path) -> list[Mutant]:
    """Return the mutants of a file; raises ValueError for two of one name and for a patch that changes nothing."""
    mutants = [Mutant(**{**entry, "test": entry["test"].split()}) for entry in yaml.safe_load(path.read_text())]
    names = [mutant.name for mutant in mutants]
    if len(set(names)) < len(names):
        raise ValueError(f"{path.name}: two mutants have one name: {sorted(n for n in names if names.count(n) > 1)}")
    for mutant in mutants:
        if mutant.find == mutant.replace:
            raise ValueError(f"{path.name}: mutant {mutant.name} changes nothing")
    return mutants


def copy_tree(root: Path, target: Path) -> None:
    """Copy what version control has or would take, as it lies in the working tree."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, check=True
    ).stdout.decode()
    for name in listed.split("\0"):
        if name and (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def run_tests(root: Path, arguments: Sequence[str], mutant: Mutant | None = None) -> tuple[int, str]:
    """Run pytest on a copy of the tree, patched if a mutant is given; return the launcher's code and the output."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "tree"
        copy_tree(root, copy)
        if mutant is not None:
            text = mutant.applied((copy / mutant.file).read_text())
            assert text is not None, "checked before"
            (copy / mutant.file).write_text(text)
        environment = {**os.environ, "PYTHONPATH": str(copy), "GROKCORE_CACHE": f"{folder}/cache"}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        if "--nbval" not in arguments:  # the plug-ins take longer to load than most of these tests to run
            environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        command = [sys.executable, "-c", LAUNCHER, "-x", "-q", "-p", "no:cacheprovider", *arguments]
        try:
            done = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            return NOT_RUN, f"not done after {TIMEOUT} s"
        return done.returncode, done.stdout + done.stderr


def try_mutant(root: Path, mutant: Mutant) -> str:
    """Return "killed", "SURVIVED", "NO LONGER APPLIES" or "TEST DID NOT RUN" with its output, and print it."""
    began, output = time.monotonic(), ""
    path = root / mutant.file
    if not path.is_file() or mutant.applied(path.read_text()) is None:
        verdict = "NO LONGER APPLIES"
    else:
        code, output = run_tests(root, mutant.test, mutant)
        verdict = {FAILED: "killed", PASSED: "SURVIVED"}.get(code, "TEST DID NOT RUN")
    print(f"{verdict:17} {mutant.name:32} {time.monotonic() - began:5.0f} s  {mutant.why}", flush=True)
    if verdict == "TEST DID NOT RUN":
        print(output[-3000:], flush=True)
    return verdict


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the mutants asked for (all, if none is named) and return the exit code."""
    parser = argparse.ArgumentParser(description="Break one thing at a time and see a test go red.")
    parser.add_argument("names", nargs="*", help="mutants to run (default: all of tests/tools/mutants.yaml)")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once (default: 2)")
    options = parser.parse_args(arguments)
    mutants = load(root / "tests" / "tools" / "mutants.yaml")
    unknown = set(options.names) - {mutant.name for mutant in mutants}
    if unknown:
        parser.error(f"unknown mutants {sorted(unknown)}; known: {', '.join(mutant.name for mutant in mutants)}")
    chosen = [mutant for mutant in mutants if not options.names or mutant.name in options.names]
    commands = sorted({tuple(mutant.test) for mutant in chosen if "--nbval" in mutant.test})
    nodes = sorted({node for mutant in chosen if "--nbval" not in mutant.test for node in mutant.test})
    commands += [tuple(nodes)] if nodes else []
    with ThreadPoolExecutor(options.jobs) as pool:
        for command, (code, output) in zip(commands, pool.map(lambda c: run_tests(root, c), commands), strict=True):
            if code != PASSED:
                print(f"{output[-3000:]}\nWithout any mutant these do not pass: {' '.join(command)}")
                return 1
        print(f"without a mutant all {len(nodes) + len(commands) - bool(nodes)} tests pass", flush=True)
        verdicts = list(pool.map(lambda mutant: try_mutant(root, mutant), chosen))
    print(f"{verdicts.count('killed')} of {len(verdicts)} mutants killed")
    return int(set(verdicts) != {"killed"})


if __name__ == "__main__":
    sys.exit(main())
