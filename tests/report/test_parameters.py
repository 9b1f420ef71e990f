"""Parameters are read from a notebook without executing it, and checked strictly."""

from pathlib import Path

import papermill
import pytest
from helpers.notebooks import write_notebook

from grokcore.report.notebook_files import NotebookError
from grokcore.report.parameters import parameter_values, parameters


def test_parameters_are_those_papermill_sees(tmp_path: Path) -> None:
    path = write_notebook(tmp_path, "n")
    seen = papermill.inspect_notebook(str(path))
    by_name = parameters(path)
    assert {name: inferred["inferred_type_name"] for name, inferred in seen.items()} == {
        name: parameter.type for name, parameter in by_name.items()
    }
    assert {name: parameter.default for name, parameter in by_name.items()} == {
        "steps": 30,
        "alphas": [0.5],
        "name": "a",
        "lr": 0.001,
        "share": True,
    }


def test_unknown_parameter_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = write_notebook(tmp_path, "n")
    with pytest.raises(
        NotebookError, match=r"n\.ipynb has no parameter 'stps'; did you mean 'steps'\? known: steps, al"
    ):
        parameter_values(path, "smoke", {"stps": 5})


@pytest.mark.parametrize(
    ("name", "value", "type_name"),
    [
        ("steps", 2.5, "int"),
        ("steps", "5", "int"),
        ("steps", True, "int"),
        ("steps", None, "int"),
        ("lr", "1e-3", "float"),
        ("lr", False, "float"),
        ("alphas", 0.5, "list[float]"),
        ("alphas", ["a"], "list[float]"),
        ("name", 3, "str"),
        ("share", 1, "bool"),
    ],
)
def test_value_of_the_wrong_type_is_refused(tmp_path: Path, name: str, value: object, type_name: str) -> None:
    path = write_notebook(tmp_path, "n")
    with pytest.raises(NotebookError) as error:
        parameter_values(path, "smoke", {name: value})
    assert f"{name} = {value!r} ({type(value).__name__}) was given; it must be of type {type_name}" in str(error.value)


def test_right_types_are_taken_whole_numbers_for_floats_too(tmp_path: Path) -> None:
    values = {"steps": 7, "alphas": [0.3, 1], "name": "b", "lr": 1, "share": False}
    assert parameter_values(write_notebook(tmp_path, "n"), "smoke", values) == values


def test_plan_cpu_comes_from_the_file_and_changes_go_over_it(tmp_path: Path) -> None:
    path = write_notebook(tmp_path, "n")
    with pytest.raises(NotebookError, match="no parameters in plan cpu; write them to .*n.yaml"):
        parameter_values(path)
    (tmp_path / "cpu").mkdir()
    file = tmp_path / "cpu" / "n.yaml"
    file.write_text("steps: 100\nlr: 0.5\n")
    assert parameter_values(path, "cpu", {"lr": 0.25}) == {"steps": 100, "lr": 0.25}
    assert parameter_values(path, "smoke", {"lr": 0.25}) == {"lr": 0.25}
    file.write_text("steps: many\n")
    with pytest.raises(NotebookError, match="steps = 'many' "):
        parameter_values(path)
    file.write_text("- steps\n")
    with pytest.raises(NotebookError, match="holds a list; it must be a mapping"):
        parameter_values(path)
    file.write_text("steps: [1\n")
    with pytest.raises(NotebookError, match="is not YAML"):
        parameter_values(path)


def test_unknown_scale_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotebookError, match="unknown scale 'cpuu'; did you mean 'cpu'"):
        parameter_values(write_notebook(tmp_path, "n"), "cpuu")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("steps = 3", "'steps = 3' is no parameter"),
        ("steps: int = len('abc')", "must be a literal"),
        ("steps: int = = 3", "not plain Python"),
        (None, "no code cell tagged 'parameters'"),
    ],
)
def test_parameters_cell_of_another_form_is_refused(tmp_path: Path, cell: str | None, message: str) -> None:
    with pytest.raises(NotebookError, match=message):
        parameters(write_notebook(tmp_path, "n", parameters=cell))


def test_type_that_cannot_be_checked_is_refused_and_not_evaluated(tmp_path: Path) -> None:
    path = write_notebook(tmp_path, "n", parameters="steps: open('x', 'w') = 3\nother: Path = 'a'")
    for name in ("steps", "other"):
        with pytest.raises(NotebookError, match="cannot be checked"):
            parameter_values(path, "smoke", {name: 3})
