"""Damaged and hostile inputs by the thousand: each is refused in clear words, or handled as if it were undamaged.

As a script (`make fuzz`, or in tests/ `python -m hostile.run --seed 3`) it tries every family and prints how they
ended.
A family is a generator that tries one input at a time, drawn from the seed, and yields how it ended; it raises
AssertionError where one is read as what it is not, fails with another error than the package's own, or is not named.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grokcore.claims.wording import ClaimsError
from grokcore.records.atomic import StoreError
from grokcore.records.record import RecordError
from grokcore.records.store import repository
from grokcore.report.manifest import ManifestError
from grokcore.report.notebook_files import NotebookError
from grokcore.spec.base import SpecError
from grokcore.sweeps.pool import DeviceError
from grokcore.sweeps.sweep import MissingRuns

OURS = (ClaimsError, ManifestError, SpecError, NotebookError, DeviceError, StoreError, RecordError, MissingRuns)
LONGEST = 6000  # letters of a message: a damaged file must not be printed whole
FLAG = "HOSTILE_PAYLOAD_RAN"
# Names and texts that do harm where they are executed, shown or taken for a path as they are.
EVIL = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "</title><script>alert(1)</script>",
    "javascript:alert(1)",
    "{{ 7*7 }}{% raw %}",
    "$\\frac{",
    "../../outside/decoy",
    "/outside/decoy",
    "..",
    ".",
    "",
    "a/b",
    "a\\..\\b",
    "nul\x00byte",
    "line\nbreak",
    "\u202eright to left",
    "\x1b[31mred",
    "\ud800",
    "x" * 5000,
    "%2e%2e%2fdecoy",
    "a?b#c",
    "=cmd|' /C calc'!A0",
    "@SUM(1)",
    "+1",
    "-1",
    "\t=1",
    "\r=1",
    "CON",
    "~root",
    "$(touch decoy)",
    "`touch decoy`",
    "; touch decoy",
    "__import__('os').environ",
]


def payload(where: Path) -> str:
    """Return Python that leaves a file and a variable behind if anything executes it."""
    return f"[__import__('pathlib').Path({str(where)!r}).touch(), __import__('os').environ.update({FLAG}='1')]"


class Box:
    """A tree for one family: `allowed` may be written to, the rest (a decoy, the working folder) may not."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.allowed, self.canary = root, root / "allowed", root / "outside" / "canary"
        self.random = random.Random(seed)
        for name in ("allowed", "outside", "here"):
            (root / name).mkdir()
        (root / "outside" / "decoy").write_text("secret")
        (root / "outside" / "decoy.parquet").write_text("secret")
        (root / "decoy.json").write_text('{"runs": {}}')

    def listing(self) -> dict[str, str]:
        """Return what lies outside `allowed`, with the repository's own data and pages."""
        files = {str(path): _digest(path) for path in self.root.rglob("*") if self.allowed not in path.parents}
        for folder in ("data/records", "reports", "notebooks", "drafts", "."):
            for path in (repository() / folder).glob("*"):
                if path.is_file():
                    files[str(path)] = str(path.stat().st_mtime_ns)
        return files


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"


def tried(action: Callable[[], Any], same: Callable[[Any], bool], named: str, what: Any) -> str:
    """Return how an input ended: refused by an error that says `named` and what to do, or handled as undamaged.

    Args:
        action: What reads the input.
        same: Tells of what was read whether it is that of the undamaged input, or as harmless.
        named: What the message of an error must contain.
        what: The input.
    """
    try:
        result = action()
    except OURS as error:
        message = str(error)
        assert named in message, f"{what!r:.300}: the message does not name {named!r}: {message!r:.400}"
        assert len(message) < LONGEST, f"{what!r:.300}: a message of {len(message)} letters: {message!r:.400}"
        assert any(word in message for word in ADVICE), f"{what!r:.300}: what is to be done? {message!r:.600}"
        return f"refused: {type(error).__name__}"
    except Exception as error:
        raise AssertionError(f"{what!r:.300}: ends in {type(error).__name__}: {error!s:.300}") from error
    assert same(result), f"{what!r:.300}: read as {result!r:.400}"
    return "handled as undamaged or harmless"


# fmt: off
ADVICE = (  # one of these is in every message
    "restore", "Restore", "delete it", "train it", "make it with", "rename", "write", "must be", "should", "give",
    "known: ", "needs", "use ", "put one", "tag ", "remove", "name ", "cannot be read as a notebook", "cell ",
    "expected", "Field required", "at least one", "Extra inputs", "allowed", "is not what was written", "checkpoint",
    "goes with", "mapping", "has to be", "finite", "the same", "has a name", "leave",
)
# fmt: on


@contextmanager
def guarded(box: Box) -> Iterator[None]:
    """Fail if something is executed, or written outside the box's allowed folder."""
    before, here, environment = box.listing(), Path.cwd(), dict(os.environ)
    os.chdir(box.root / "here")
    os.environ["GROKCORE_CACHE"], os.environ["GROKCORE_RECORDS"] = str(box.allowed / "c"), str(box.allowed / "r")
    try:
        yield
        assert FLAG not in os.environ and not box.canary.exists(), "a payload was executed"
        after = box.listing()
        changed = {name for name in before | after if before.get(name) != after.get(name)}
        assert not changed, f"written or removed outside the folder allowed: {sorted(changed)[:5]}"
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(environment)


def run(family: Callable[[Box], Iterator[str]], seed: int = 0) -> Counter[str]:
    """Try all inputs of a family in a box of its own and return how many ended how."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        box = Box(Path(folder).resolve(), seed)
        with guarded(box), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nbformat and pandas warn of what is refused or handled after all
            return Counter(family(box))


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Return a file damaged as disks, transfers and editors do: cut, bits or bytes changed, added, left out."""
    place = rng.randrange(max(len(data), 1))
    kind = rng.randrange(8)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + bytes(rng.randrange(1, 60)) + data[place + rng.randrange(1, 60) :]
    if kind == 2:
        return data[:place] + rng.randbytes(rng.randrange(1, 20)) + data[place:]
    if kind == 3:
        return data + rng.randbytes(rng.randrange(1, 20))
    if kind == 4:
        return data[:place] + data[place + rng.randrange(1, 20) :]
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def strange(rng: random.Random, depth: int = 0) -> Any:
    """Return a value of any kind, with a liking for those that programs forget."""
    kind = rng.randrange(12 if depth < 3 else 9)
    if kind == 9:
        return [strange(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 10:
        return {rng.choice([*EVIL[:6], "name", "p", "runs"]): strange(rng, depth + 1) for _ in range(rng.randrange(4))}
    if kind == 11:
        return nested(rng.choice([20, 200, 900]))
    if kind < 3:
        return rng.choice(EVIL)
    numbers = [0, -1, 1, 2**31, 2**63, 2**200, 10**4000, 0.5, -0.0, 1e308, 5e-324, 1e400, -1e400, float("nan")]
    return rng.choice([*numbers, None, True, False, "", "nan", "1e5", "0x10", [], {}, [[]], b"bytes"])


def nested(depth: int) -> list[Any]:
    """Return a list within a list, and so on."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def families() -> dict[str, Callable[[Box], Iterator[str]]]:
    """Return all families by name."""
    from hostile import files, names, pages, texts

    modules = (files, texts, pages, names)
    return {name: family for module in modules for name, family in module.FAMILIES.items()}


def main(arguments: list[str] | None = None) -> int:
    """Try all families and print how their inputs ended; exit code 1 if one fails."""
    parser = argparse.ArgumentParser(description="Try damaged and hostile inputs, and say how they ended.")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument("names", nargs="*", help="families to try (default: all)")
    options = parser.parse_args(arguments)
    total, failed, began = 0, 0, time.monotonic()
    for name, family in families().items():
        if options.names and name not in options.names:
            continue
        start = time.monotonic()
        try:
            ends = run(family, options.seed)
        except Exception as error:
            failed += 1
            print(f"{name:24} FAILED: {type(error).__name__}: {error}", flush=True)
            continue
        total += ends.total()
        took = time.monotonic() - start
        for i, (end, n) in enumerate(ends.most_common()):
            print(f"{name if i == 0 else '':24} {n:6,}  {end}{f'  ({took:.1f} s)' if i == 0 else ''}", flush=True)
    print(f"{'all':24} {total:6,}  in {time.monotonic() - began:.0f} s, {failed} families failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
