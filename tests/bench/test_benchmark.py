"""The benchmark's ratios are those of the times it took, and its rows hold what a script needs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from grokcore.bench import benchmark
from grokcore.bench.timing import Side
from grokcore.cli import terminal
from grokcore.cli.main import main
from grokcore.spec.presets import msu, pku_sum

STEP, BOUND, EVALUATION, REFERENCE = 0.020, 0.010, 0.1, 0.050  # seconds of one process alone
SLOWER = 1.25  # of each of two processes at once
KEYS = {
    "case",
    "device",
    "reference_ms_per_run_step",
    "ms_per_run_step",
    "job_speedup",
    "job_speedup_vs_two_references",
    "matmul_bound_ratio",
    "evaluation_share",
    "processes",
    "threads",
    "R",
    "spread",
}


class Clock:
    """Processes whose times are known: the reference on all threads takes half the time of one on one thread."""

    def time(self, side: Side, n_steps: int, indices: Sequence[int] = (0,)) -> float:
        if side.kind == "reference":
            assert n_steps % side.spec.steps_per_epoch == 0, "a window of the reference holds whole epochs"
        alone = {"engine": STEP, "matmul bound": BOUND, "evaluation": EVALUATION, "reference": REFERENCE}[side.kind]
        if tuple(indices) == (2,):
            return n_steps * alone / 2
        return n_steps * alone * side.R * (SLOWER if len(indices) == 2 else 1.0)

    def value(self, side: Side, index: int = 0) -> float:
        return {"operations": 1e9 * side.R, "product rate": 1.1e11, "bandwidth": 1e12, "bytes": 1e7 * side.R}[side.kind]


def test_a_row_of_the_cpu_holds_the_ratios_of_its_times() -> None:
    spec = msu()
    (row,) = benchmark._cpu_case(Clock(), spec, 2, 3)  # pyright: ignore[reportArgumentType]
    share = benchmark.evaluations_per_step(spec)
    ours = (STEP + share * EVALUATION) * SLOWER / 2
    assert row["ms_per_run_step"] == pytest.approx(1e3 * ours)
    assert row["reference_ms_per_run_step"] == pytest.approx(1e3 * REFERENCE / 2)
    assert row["two_references_ms_per_run_step"] == pytest.approx(1e3 * REFERENCE * SLOWER / 2)
    assert row["job_speedup"] == pytest.approx(REFERENCE / 2 / ours)
    assert row["job_speedup_vs_two_references"] == pytest.approx(REFERENCE * SLOWER / 2 / ours)
    assert row["matmul_bound_ratio"] == pytest.approx(STEP / BOUND) and row["gain_of_processes"] == pytest.approx(
        2 / SLOWER
    )
    assert row["evaluation_share"] == pytest.approx(share * EVALUATION / (STEP + share * EVALUATION))
    assert row["matmul_bound_gflops"] == pytest.approx(100) and row["matmul_bound_rate_share"] == pytest.approx(1 / 1.1)
    assert row["rounds"] == 3 and row["spread"]["matmul_bound_ratio"] == pytest.approx([2.0, 2.0])
    assert row["R"] == 1 and row["gain_of_runs"] == 1


def test_small_steps_are_timed_as_many_at_once_as_the_engine_takes() -> None:
    class Together(Clock):
        """R runs take as long as two."""

        def time(self, side: Side, n_steps: int, indices: Sequence[int] = (0,)) -> float:
            return super().time(side, n_steps, indices) * (2 / side.R if side.R > 1 else 1)

    (row,) = benchmark._cpu_case(Together(), pku_sum(2), 2, 1)  # pyright: ignore[reportArgumentType]
    assert row["R"] == 16 and row["gain_of_runs"] == pytest.approx(8)
    assert row["step_ms_one_process"] == pytest.approx(1e3 * STEP / 8)  # of a run-step
    assert row["matmul_bound_gflops"] == pytest.approx(1e9 / (BOUND / 8) / 1e9)


def test_the_reference_is_timed_in_whole_epochs() -> None:
    for spec in (msu(), pku_sum(2), pku_sum(3), pku_sum(4)):
        steps = benchmark.whole_epochs(spec)
        assert steps % spec.steps_per_epoch == 0 and benchmark.WINDOW <= steps < benchmark.WINDOW + spec.steps_per_epoch


def test_a_row_of_a_gpu_counts_run_steps() -> None:
    rows = list(benchmark._gpu_case(Clock(), msu(), "cuda", 1))  # pyright: ignore[reportArgumentType]
    assert [row["R"] for row in rows] == list(benchmark.R_GPU)
    for row in rows:  # the clock of R runs is R times that of one: a run-step takes the same
        assert row["ms_per_run_step"] == pytest.approx(
            1e3 * (STEP + benchmark.evaluations_per_step(msu()) * EVALUATION)
        )
        assert row["run_steps_per_second"] == pytest.approx(1e3 / row["ms_per_run_step"])
        assert row["matmul_bound_ratio"] == pytest.approx(2.0) and row["bytes_ratio"] == pytest.approx(
            STEP * 1e12 / 1e7
        )


def test_evaluations_are_those_of_the_schedule() -> None:
    assert benchmark.evaluations_per_step(msu(steps=10)) == 8 / 10  # 0; 1, 2, 3, 4, 6 and 8, the powers of √2; 10
    assert 0.005 < benchmark.evaluations_per_step(msu()) < 0.02


def test_command_times_real_processes_and_writes_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny: dict[str, Any] = {"p": 7, "d_model": 8, "d_mlp": 12, "n_heads": 2, "batch_size": 16}
    monkeypatch.setattr(benchmark, "CASES", {"msu": msu(**tiny)})
    monkeypatch.setattr(benchmark, "GROWTH", {"p": ("p", (5, 7))})
    monkeypatch.setattr(benchmark, "R_CPU", (1, 2))
    monkeypatch.setattr(benchmark, "WINDOW", 5)
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # compiling eight networks would take minutes
    assert main(["bench", "--full", "--rounds", "1", "--json", str(tmp_path / "rows.json")]) == 0
    case, *growth = json.loads((tmp_path / "rows.json").read_text())
    assert case.keys() >= KEYS and case["case"] == "msu" and case["operations"] > 0
    assert all(case[name] > 0 for name in KEYS if name not in ("case", "device", "spread"))
    assert {row["grows_with"] for row in growth} == {"p", "R", "processes"}
    output = capsys.readouterr().out
    assert "msu" in output and "step over matmul bound" in output and "wrote" in output


def test_single_cases_are_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Processes(Clock):
        def __init__(self, threads: Sequence[int]) -> None:
            assert threads == [1, 1, 2]

        def __enter__(self) -> "Processes":
            return self

        def __exit__(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(benchmark, "Processes", Processes)
    monkeypatch.setattr(benchmark, "cores", lambda: 2)
    assert [row["case"] for row in benchmark.run(cases=["lstm", "sum-2"])] == ["lstm", "sum-2"]
    assert [row["case"] for row in benchmark.run()] == list(benchmark.CASES)
    with pytest.raises(SystemExit):
        main(["bench", "lstn"])
    assert "no case is called 'lstn'; did you mean 'lstm'" in capsys.readouterr().err


def test_a_matmul_bound_that_is_not_sharp_is_marked() -> None:
    (row,) = benchmark._cpu_case(Clock(), msu(), 2, 1)  # pyright: ignore[reportArgumentType]
    row |= {"case": "msu", "machine": "a machine", "torch": "2"}
    assert "not sharp" not in terminal.bench_table([row])
    assert "50% (not sharp)" in terminal.bench_table([row | {"matmul_bound_rate_share": 0.5}])


def test_a_side_that_fails_names_itself() -> None:
    from grokcore.bench.timing import Processes

    with Processes([1]) as processes, pytest.raises(RuntimeError, match="failed in reference: ValueError: the refer"):
        processes.time(Side("reference", msu(p=7, optimizer="rmsprop", lr=0.1)), 1)
