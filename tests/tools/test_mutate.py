"""The mutants still apply and name tests that exist; what runs them tells a kill from a test that did not run."""

import subprocess
from pathlib import Path

import pytest
from tools import mutate

MUTANTS = mutate.load(mutate.ROOT / "tests" / "tools" / "mutants.yaml")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_applies_and_its_test_exists(mutant: mutate.Mutant) -> None:
    assert mutant.applied((mutate.ROOT / mutant.file).read_text()) is not None, "`find` has to occur exactly once"
    assert mutant.why and mutant.test
    for argument in mutant.test:
        if not argument.startswith("-"):
            file, _, name = argument.partition("::")
            assert (mutate.ROOT / file).is_file()
            assert not name or f"def {name.partition('[')[0]}(" in (mutate.ROOT / file).read_text()


ENTRIES = """
- {name: caught, file: grokcore/__init__.py, find: 1 + 1, replace: 1 + 2, test: tests/test_two.py, why: a}
- {name: unseen, file: grokcore/__init__.py, find: unused, replace: idle, test: tests/test_two.py, why: b}
- {name: gone, file: grokcore/__init__.py, find: 3 + 3, replace: 3 + 4, test: tests/test_two.py, why: c}
- {name: no file, file: grokcore/other.py, find: a, replace: b, test: tests/test_two.py, why: d}
- {name: no import, file: grokcore/__init__.py, find: two = , replace: two == , test: tests/test_two.py, why: e}
- {name: no collection, file: grokcore/__init__.py, find: two = 1, replace: too = 1, test: tests/test_two.py, why: f}
- {name: no test, file: grokcore/__init__.py, find: 1 + 1, replace: 1 + 2, test: "tests/test_two.py::gone", why: g}
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny repository with a package of the same name, one test and the mutants above."""
    files = {
        "grokcore/__init__.py": "two = 1 + 1\nunused = 0\n",
        "tests/test_two.py": "from grokcore import two\n\ndef test_two():\n    assert two == 2\n",
        "tests/tools/mutants.yaml": ENTRIES,
        ".gitignore": "ignored.py\n",
        "ignored.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def test_kills_are_told_from_tests_that_did_not_run(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["caught", "unseen", "gone", "no file", "no import", "no collection"]
    assert mutate.main(names, tree) == 1
    lines = capsys.readouterr().out.splitlines()
    verdicts = {name: line.split(f" {name} ")[0].strip() for name in names for line in lines if f" {name} " in line}
    assert verdicts == {
        **{"caught": "killed", "unseen": "SURVIVED", "gone": "NO LONGER APPLIES", "no file": "NO LONGER APPLIES"},
        **{"no import": "TEST DID NOT RUN", "no collection": "TEST DID NOT RUN"},
    }
    assert lines[-1] == "1 of 6 mutants killed"


def test_exit_code_is_zero_if_all_are_killed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutate.main(["caught", "--jobs", "1"], tree) == 0
    assert "1 of 1 mutants killed" in capsys.readouterr().out


def test_tests_have_to_pass_before_any_mutant(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutate.main(["no test"], tree) == 1
    assert "Without any mutant these do not pass" in capsys.readouterr().out
    (tree / "grokcore" / "__init__.py").write_text("two = 1 + 1 + 1\n")
    assert mutate.main(["caught"], tree) == 1
    assert "Without any mutant these do not pass" in capsys.readouterr().out


def test_a_list_of_mutants_with_an_error_is_refused(tmp_path: Path) -> None:
    entry = "- {{name: {}, file: a, find: x, replace: {}, test: t, why: w}}\n"
    (tmp_path / "m.yaml").write_text(entry.format("one", "y") * 2)
    with pytest.raises(ValueError, match="one name.*'one'"):
        mutate.load(tmp_path / "m.yaml")
    (tmp_path / "m.yaml").write_text(entry.format("one", "x"))
    with pytest.raises(ValueError, match="one changes nothing"):
        mutate.load(tmp_path / "m.yaml")
    with pytest.raises(SystemExit):
        mutate.main(["not-a-mutant"])
