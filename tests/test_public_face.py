"""The public names of the package are those listed; a misspelt name or a module that has moved is answered."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from helpers.without_torch import run

from grokcore.spec.moved import MOVED

ROOT = Path(__file__).resolve().parents[1]
# Each package with a list of names: a misspelt name of it and the one that is meant.
MISSPELT = {
    "grokcore": ("sweeep", "sweep"),
    "grokcore.plots": ("acuracy", "accuracy"),
    "grokcore.analysis": ("sumary", "summary"),
    "grokcore.claims": ("evalute", "evaluate"),
}
each_package = pytest.mark.parametrize("package", MISSPELT)


def listed(package: str) -> list[str]:
    """Return the names that the `__init__.pyi` of a package imports."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return [alias.asname or alias.name for node in imports for alias in node.names]


def test_every_package_with_a_list_is_tested() -> None:
    stubs = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "grokcore").rglob("__init__.pyi")}
    assert stubs == {package.replace(".", "/") for package in MISSPELT}


@each_package
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert len(listed(package)) > 10
    assert [name for name in listed(package) if getattr(module, name, None) is None] == []


@each_package
def test_a_public_name_is_what_its_module_holds(package: str) -> None:
    """A name of a function is never taken by the module of the same name (`gc.sweep`, `gc.plots.invariance`)."""
    module = importlib.import_module(package)
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.pyi").read_text())
    for node in [node for node in tree.body if isinstance(node, ast.ImportFrom)]:
        source = importlib.import_module(f"{'.' * node.level}{node.module or ''}", package)
        for alias in node.names:
            assert getattr(module, alias.name) is getattr(source, alias.name), alias.name


@each_package
def test_dir_is_the_list(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(dir(module)) == sorted(module.__all__) == sorted(listed(package))


@each_package
def test_an_unknown_name_is_answered_with_the_nearest(package: str) -> None:
    misspelt, meant = MISSPELT[package]
    with pytest.raises(AttributeError, match=f"{package} has no '{misspelt}'; did you mean '{meant}'[?]"):
        getattr(importlib.import_module(package), misspelt)
    assert not hasattr(importlib.import_module(package), "__wrapped__")


@pytest.mark.parametrize("name", MOVED)
def test_a_module_that_has_moved_is_answered_with_its_new_name(name: str) -> None:
    message = re.escape(f"grokcore.{name} is now {MOVED[name]}")
    with pytest.raises(ModuleNotFoundError, match=message):
        importlib.import_module(f"grokcore.{name}")
    if name != "sweep":  # which is a function now, too
        with pytest.raises(AttributeError, match=message):
            getattr(importlib.import_module("grokcore"), name)


@pytest.mark.parametrize("name", MOVED)
def test_a_new_name_is_there(name: str) -> None:
    paths = re.findall(r"grokcore(?:\.\w+)+", MOVED[name])
    assert paths
    for path in paths:
        pkgutil.resolve_name(path)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, grokcore\nprint(*sys.modules)"
    loaded = {name.partition(".")[0] for name in run(code).split()}
    assert not loaded & {"torch", "pandas", "pydantic", "matplotlib", "numpy", "scipy", "yaml"}
    assert "lazy_loader" in loaded
