"""The runs of a notebook are known before it is executed."""

from pathlib import Path

import pytest
from helpers.notebooks import write_notebook

from grokcore.report.notebook_files import NotebookError
from grokcore.report.plan import planned_runs
from grokcore.spec.presets import msu
from grokcore.spec.run import grid


def test_specs_are_those_of_the_parameters_given_and_nothing_behind_them_is_executed(tmp_path: Path) -> None:
    specs = "import grokcore as gc\nprint('quiet')\nspecs = gc.grid(gc.msu(p=7, steps=steps), alpha=alphas)"
    path = write_notebook(tmp_path, "n", ["raise RuntimeError('trained')"], specs=specs)
    assert planned_runs(path, {})[0] == grid(msu(p=7, steps=30), alpha=[0.5])
    assert planned_runs(path, {"alphas": [0.3, 0.6]})[0] == grid(msu(p=7, steps=30), alpha=[0.3, 0.6])


def test_the_steps_at_which_weights_are_kept_are_planned_too(tmp_path: Path) -> None:
    specs = "import grokcore as gc\nspecs = [gc.msu(p=7, steps=steps)]\nkept = [0, steps]"
    assert planned_runs(write_notebook(tmp_path, "n", specs=specs), {"steps": 9})[1] == [0, 9]
    assert planned_runs(write_notebook(tmp_path, "m", specs=specs.replace("kept", "other")), {})[1] == []


def test_a_notebook_is_planned_in_the_folder_it_is_executed_in(tmp_path: Path) -> None:
    (tmp_path / "seeds.txt").write_text("4")
    specs = "import pathlib\nimport grokcore as gc\nseed = int(pathlib.Path('seeds.txt').read_text())\n"
    specs += "specs = [gc.msu(p=7, steps=9, seed=seed)]"
    before = Path.cwd()
    assert planned_runs(write_notebook(tmp_path, "n", specs=specs), {})[0] == [msu(p=7, steps=9, seed=4)]
    assert Path.cwd() == before


def test_planning_prints_nothing_and_leaves_main_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import __main__

    planned_runs(write_notebook(tmp_path, "n", specs="print('loud')\nspecs = []"), {})
    import __main__ as after

    assert after is __main__ and capsys.readouterr().out == ""


def test_network_defined_in_a_cell_is_known_by_the_source_of_that_cell(tmp_path: Path) -> None:
    net = "import torch\n\nclass Net(torch.nn.Module):\n    def __init__(self, n_tokens, n_operands):\n        pass"
    specs = "import grokcore as gc\nspecs = [gc.msu(p=7, steps=9, model=gc.user_model(Net))]"
    path = write_notebook(tmp_path, "n", specs=f"{net}\n\n{specs}")
    (spec,) = planned_runs(path, {})[0]
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
        planned_runs(write_notebook(tmp_path, "n", specs=cell), {})
