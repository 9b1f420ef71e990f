"""The rules that the notebooks keep: parameters, planned runs, no functions, short cells, outputs without figures."""

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from grokcore import claims
from grokcore.report import parameters, plan
from grokcore.report.execute import execute

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
EXPERIMENTS = [path for path in NOTEBOOKS if path.stem != "speed"]  # which trains nothing
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_experiment = pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)


def code(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def tags(cell: Any) -> list[str]:
    return cell.metadata.get("tags", [])


def test_there_is_one_for_every_experiment_and_the_benchmark() -> None:
    names = ["01_reproduction", "02_alpha_sweep", "03_sine_operation", "04_adam_vs_adamw", "05_layernorm_periodicity"]
    names += ["06_architectures", "07_optimizers_and_regularisation", "08_k_operand_sums", "09_decoder"]
    names += ["10_training_fraction", "11_regularisers", "12_without_regulariser", "13_fourier", "14_puzzle"]
    names += ["15_operations", "16_controls", "17_sensitivity"]
    assert [path.stem for path in NOTEBOOKS] == [*names, "speed"]


@each
def test_cells_are_short_and_define_nothing(path: Path) -> None:
    for cell in code(path):
        assert cell.source.count("\n") < 25, cell.source.splitlines()[0]
        nodes = list(ast.walk(ast.parse(cell.source)))
        assert not any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in nodes), cell.source


@each_experiment
def test_parameters_of_the_plan_cpu_exist_and_name_other_runs_than_the_smoke_scale(path: Path) -> None:
    paper, smoke = parameters.parameter_values(path, "cpu"), parameters.parameter_values(path, "smoke")
    assert paper == yaml.safe_load((path.parent / "cpu" / f"{path.stem}.yaml").read_text())
    large, small = plan.planned_runs(path, paper)[0], plan.planned_runs(path, smoke)[0]
    primes = {"08_k_operand_sums": {19, 23, 47, 97}, "14_puzzle": {23}, "16_controls": {96, 97}}
    primes |= dict.fromkeys(("10_training_fraction", "15_operations"), {97, 120})  # with the permutations of S5
    assert {spec.task.p for spec in large} == primes.get(path.stem, {97}) and all(spec.task.p < 97 for spec in small)
    assert len({spec.id for spec in large}) == len(large) and len({spec.id for spec in small}) == len(small)
    full = plan.planned_runs(path, parameters.parameter_values(path, "full"))[0]
    assert len({spec.id for spec in full}) >= len(large)


def test_the_benchmark_shows_what_is_recorded_at_either_scale() -> None:
    path = NOTEBOOKS[-1]
    for scale in ("cpu", "smoke"):
        assert plan.planned_runs(path, parameters.parameter_values(path, scale))[0] == []
    shown = parameters.parameters(path)["results"].default
    assert parameters.parameter_values(path, "cpu") == {"results": shown} and (path.parent / shown).is_file()


@each
def test_outputs_are_committed_without_figures_and_at_least_three_are_compared(path: Path) -> None:
    compared = [cell for cell in code(path) if cell.outputs and "nbval-ignore-output" not in tags(cell)]
    lines = [line for cell in compared for out in cell.outputs for line in out.get("text", "").splitlines()]
    assert len(lines) >= 3
    for cell in code(path):
        for out in cell.outputs:
            assert out.output_type != "error" and out.get("name") != "stderr"
            assert not any(kind.startswith("image/") for kind in out.get("data", {}))


def test_every_claim_is_judged_in_its_notebook_and_in_no_other() -> None:
    texts = {path.stem: "".join(cell.source for cell in nbformat.read(path, as_version=4).cells) for path in NOTEBOOKS}
    for claim in claims.load().values():
        assert claim.notebook in texts and claim.id in texts[claim.notebook], claim.id


@pytest.mark.parametrize("name", ["01_reproduction"])
def test_a_notebook_stops_with_the_cause_when_a_parameter_is_impossible(name: str, tmp_path: Path) -> None:
    (path,) = [path for path in NOTEBOOKS if path.stem == name]
    (done,) = execute({path: {"alphas": [1.5]}}, tmp_path)
    assert done.failure is not None and "alpha" in done.failure.cause and done.failure.cell is not None
