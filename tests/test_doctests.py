"""The examples in the package's docstrings print what they say.

Only modules that hold an example are imported, so that this takes no longer than the examples.
"""

import doctest
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "grokcore"
EXAMPLE = re.compile(r"^\s*>>> ", flags=re.M)
TEXTS = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
WITH_EXAMPLES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): len(EXAMPLE.findall(text))
    for path, text in TEXTS.items()
    if EXAMPLE.search(text)
}


def results(module: ModuleType) -> doctest.TestResults:
    """Run the examples of a module; what differs is printed."""
    return doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


@pytest.mark.parametrize(("name", "n_examples"), WITH_EXAMPLES.items(), ids=WITH_EXAMPLES)
def test_examples_print_what_they_say(
    name: str, n_examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = results(importlib.import_module(name.removesuffix(".__init__")))
    assert found.failed == 0
    assert found.attempted == n_examples, "an example stands where doctest does not look, such as in a nested function"


def test_a_wrong_example_fails(capsys: pytest.CaptureFixture[str]) -> None:
    module = ModuleType("wrong", "Add.\n\n>>> 1 + 1\n2\n>>> 1 + 1\n3\n")
    found = results(module)
    assert (found.attempted, found.failed) == (2, 1)
    assert "Expected:\n    3\nGot:\n    2" in capsys.readouterr().out


def test_there_are_examples_to_run() -> None:
    assert sum(WITH_EXAMPLES.values()) > 10
