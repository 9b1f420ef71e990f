"""Parameters are checked strictly, and the runs of a notebook are known before it is executed."""

from pathlib import Path

import papermill
import pytest
from helpers.notebooks import PARAMETERS, write_notebook

from grokcore.report import plan
from grokcore.report.plan import NotebookError
from grokcore.spec.presets import msu
from grokcore.spec.run import grid


def test_parameters_are_those_papermill_sees(tmp_path: Path) -> None:
    path = write_notebook(tmp_path, "n")
    seen = papermill.inspect_notebook(str(path))
    found = plan.parameters(path)
    assert {name: told["inferred_type_name"] for name, told in seen.items()} == {k: v.type for k, v in found.items()}
    assert {name: value.default for name, value in found.items()} == {
        **{"steps": 30, "alphas": [0.5], "name": "a", "lr": 0.001, "share": True}
    }


def test_unknown_parameter_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = write_notebook(tmp_path, "n")
    with pytest.raises(
        NotebookError, match=r"n\.ipynb has no parameter 'stps'; did you mean 'steps'\? known: steps, al"
    ):
        plan.settings(path, "smoke", {"stps": 5})


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
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
def test_value_of_the_wrong_type_is_refused(tmp_path: Path, name: str, value: object, wanted: str) -> None:
    path = write_notebook(tmp_path, "n")
    with pytest.raises(NotebookError) as error:
        plan.settings(path, "smoke", {name: value})
    assert f"{name} = {value!r} ({type(value).__name__}) was given; it must be of type {wanted}" in str(error.value)


def test_right_types_are_taken_whole_numbers_for_floats_too(tmp_path: Path) -> None:
    given = {"steps": 7, "alphas": [0.3, 1], "name": "b", "lr": 1, "share": False}
    assert plan.settings(write_notebook(tmp_path, "n"), "smoke", given) == given


def test_plan_cpu_comes_from_the_file_and_changes_go_over_it(tmp_path: Path) -> None:
    path = write_notebook(tmp_path, "n")
    with pytest.raises(NotebookError, match="no parameters in plan cpu; write them to .*n.yaml"):
        plan.settings(path)
    (tmp_path / "cpu").mkdir()
    file = tmp_path / "cpu" / "n.yaml"
    file.write_text("steps: 100\nlr: 0.5\n")
    assert plan.settings(path, "cpu", {"lr": 0.25}) == {"steps": 100, "lr": 0.25}
    assert plan.settings(path, "smoke", {"lr": 0.25}) == {"lr": 0.25}
    file.write_text("steps: many\n")
    with pytest.raises(NotebookError, match="steps = 'many' "):
        plan.settings(path)
    file.write_text("- steps\n")
    with pytest.raises(NotebookError, match="holds a list; it must be a mapping"):
        plan.settings(path)
    file.write_text("steps: [1\n")
    with pytest.raises(NotebookError, match="is not YAML"):
        plan.settings(path)


def test_unknown_scale_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotebookError, match="unknown scale 'cpuu'; did you mean 'cpu'"):
        plan.settings(write_notebook(tmp_path, "n"), "cpuu")


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
        plan.parameters(write_notebook(tmp_path, "n", parameters=cell))


def test_type_that_cannot_be_checked_is_refused_and_not_evaluated(tmp_path: Path) -> None:
    path = write_notebook(tmp_path, "n", parameters="steps: open('x', 'w') = 3\nother: Path = 'a'")
    for name in ("steps", "other"):
        with pytest.raises(NotebookError, match="cannot be checked"):
            plan.settings(path, "smoke", {name: 3})


def test_specs_are_those_of_the_parameters_given_and_nothing_behind_them_is_executed(tmp_path: Path) -> None:
    specs = "import grokcore as gc\nprint('quiet')\nspecs = gc.grid(gc.msu(p=7, steps=steps), alpha=alphas)"
    path = write_notebook(tmp_path, "n", ["raise RuntimeError('trained')"], specs=specs)
    assert plan.planned_runs(path, {})[0] == grid(msu(p=7, steps=30), alpha=[0.5])
    assert plan.planned_runs(path, {"alphas": [0.3, 0.6]})[0] == grid(msu(p=7, steps=30), alpha=[0.3, 0.6])


def test_the_steps_at_which_weights_are_wanted_are_planned_too(tmp_path: Path) -> None:
    specs = "import grokcore as gc\nspecs = [gc.msu(p=7, steps=steps)]\nkept = [0, steps]"
    assert plan.planned_runs(write_notebook(tmp_path, "n", specs=specs), {"steps": 9})[1] == [0, 9]
    assert plan.planned_runs(write_notebook(tmp_path, "m", specs=specs.replace("kept", "other")), {})[1] == []


def test_a_notebook_is_planned_in_the_folder_it_is_executed_in(tmp_path: Path) -> None:
    (tmp_path / "seeds.txt").write_text("4")
    specs = "import pathlib\nimport grokcore as gc\nseed = int(pathlib.Path('seeds.txt').read_text())\n"
    specs += "specs = [gc.msu(p=7, steps=9, seed=seed)]"
    before = Path.cwd()
    assert plan.planned_runs(write_notebook(tmp_path, "n", specs=specs), {})[0] == [msu(p=7, steps=9, seed=4)]
    assert Path.cwd() == before


def test_planning_prints_nothing_and_leaves_main_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import __main__

    plan.planned_runs(write_notebook(tmp_path, "n", specs="print('loud')\nspecs = []"), {})
    import __main__ as after

    assert after is __main__ and capsys.readouterr().out == ""


def test_network_defined_in_a_cell_is_known_by_the_source_of_that_cell(tmp_path: Path) -> None:
    net = "import torch\n\nclass Net(torch.nn.Module):\n    def __init__(self, n_tokens, n_operands):\n        pass"
    specs = "import grokcore as gc\nspecs = [gc.msu(p=7, steps=9, model=gc.user_model(Net))]"
    path = write_notebook(tmp_path, "n", specs=f"{net}\n\n{specs}")
    (spec,) = plan.planned_runs(path, {})[0]
    assert spec.columns()["model"] == "Net"
    assert spec.to_dict()["model"]["source"].rstrip() == net.split("\n\n")[1]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("specs = 1 / 0", "n.ipynb, cell 3 failed: ZeroDivisionError: division by zero"),
        ("import grokcore as gc\nspecs = [gc.msu('x%y')]", "n.ipynb, cell 3: .*unknown operation 'x%y'"),
        ("specs = 3", "`specs` must be a list of RunSpec, it is int"),
        ("spec = []", "`specs` must be a list of RunSpec, it is NoneType"),
        ("%matplotlib inline", "cell 3: not plain Python"),
        (None, "no code cell tagged 'specs'"),
    ],
)
def test_plan_that_cannot_be_made_names_the_cell_and_the_cause(tmp_path: Path, cell: str | None, message: str) -> None:
    with pytest.raises(NotebookError, match=message):
        plan.planned_runs(write_notebook(tmp_path, "n", specs=cell), {})


def test_notebooks_are_found_by_name_or_path_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    b, a = (write_notebook(tmp_path, name) for name in ("02_b", "01_a"))
    elsewhere = write_notebook(tmp_path / "other", "03_c")
    assert plan.find(folder=tmp_path) == [a, b]
    assert plan.find(["02_b", str(elsewhere)], tmp_path) == [b, elsewhere]
    assert plan.find(["01_a.ipynb"], tmp_path) == [a]
    with pytest.raises(NotebookError, match=r"no notebook '01_aa' in .*; did you mean '01_a'\?"):
        plan.find(["01_aa"], tmp_path)
    with pytest.raises(NotebookError, match="no notebook 'missing/01_a.ipynb'"):
        plan.find(["missing/01_a.ipynb"], tmp_path)
    with pytest.raises(NotebookError, match="two notebooks named '01_a'"):
        plan.find(["01_a", str(write_notebook(tmp_path / "other", "01_a"))], tmp_path)
    with pytest.raises(NotebookError, match="place of the front page"):
        plan.find([str(write_notebook(tmp_path, "index"))], tmp_path)
    with pytest.raises(NotebookError, match="no notebook in"):
        plan.find(folder=tmp_path / "cpu")


@pytest.mark.parametrize("text", ["", "[]", '{"cells": 3}', "\x00\x01", PARAMETERS])
def test_file_that_is_no_notebook_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "n.ipynb"
    path.write_text(text)
    with pytest.raises(NotebookError, match="n.ipynb cannot be read as a notebook"):
        plan.parameters(path)
