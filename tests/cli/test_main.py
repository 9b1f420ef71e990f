"""The command line: its answers, its exit codes, and one clear message for each way of using it wrongly."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers.notebooks import write_notebook

from grokcore.cli import terminal
from grokcore.cli.arguments import parser
from grokcore.cli.commands import COMMANDS, spec_of
from grokcore.cli.main import main
from grokcore.records.record import RecordError
from grokcore.records.store import Store
from grokcore.report import build, manifest, plan
from grokcore.report.execute import Executed, Failure
from grokcore.report.manifest import ManifestError
from grokcore.report.notebook_files import NotebookError
from grokcore.spec.base import GrokcoreError, SpecError
from grokcore.spec.presets import msu, periodic, pku, power
from grokcore.spec.run import replace
from grokcore.sweeps import audit
from grokcore.sweeps.audit import Audit, AuditError
from grokcore.sweeps.comparison import Comparison
from grokcore.sweeps.pool import DeviceError, TrainingError
from grokcore.sweeps.progress import Progress
from grokcore.sweeps.sweep import sweep

TINY = ["--p", "5", "--batch-size", "8", "--steps", "40"]
SMALL = ["--set", "d_model=8", "--set", "d_mlp=8", "--set", "n_heads=2"]
SPEC = msu(p=5, batch_size=8, steps=40, d_model=8, d_mlp=8, n_heads=2)


@pytest.fixture
def here(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store that the command works on: empty and thrown away."""
    monkeypatch.setenv("GROKCORE_CACHE", str(store.cache))
    monkeypatch.setenv("GROKCORE_RECORDS", str(store.records))
    return store


@pytest.fixture
def trained(here: Store) -> Store:
    """The same with two runs in it."""
    sweep([SPEC, periodic(1, p=5, batch_size=8, steps=20, d_model=8, d_mlp=8, n_heads=2)], store=here, jobs=1)
    return here


@pytest.mark.parametrize("command", [[], ["train"], ["report"], ["plan"], ["runs"], ["audit"], ["bench"]])
def test_help_has_examples_that_parse(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    output = capsys.readouterr().out
    examples = [line.split()[1:] for line in output.splitlines() if line.startswith("  grokcore ")]
    assert ended.value.code == 0 and bool(examples) == bool(command)
    for example in examples:
        assert parser().parse_args(example).command == command[0]


@pytest.mark.parametrize("command", [["train", "--steps", "1"], ["bench"]])
def test_a_gpu_that_is_not_there_is_named(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("GROKCORE_CACHE", str(tmp_path))
    assert main([*command, "--device", "cuda"]) == 2
    assert "device 'cuda' was asked for, but torch sees no GPU here: use 'cpu' or 'auto'" in capsys.readouterr().err


def test_plain_training_is_recorded_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GROKCORE_CACHE", str(tmp_path))
    tiny = ["train", "--p", "7", "--steps", "3", "--batch-size", "16", "--set", "d_model=8", "--device", "cpu"]
    curves = []
    for plain in ([], ["--plain"]):
        assert main([*tiny, *plain, "--fresh"]) == 0
        (record,) = [Store().load(run) for run in Store().ids() if run not in Store().recorded()]
        assert record.provenance["engine"] == ("plain" if plain else "eager")
        curves.append(record.curve["val_loss"].to_numpy())
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("grokcore 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--setting", "pk"], "invalid choice: 'pk'"),
        (["train", "--steps", "many"], "invalid int value: 'many'"),
        (["train", "--alpha", "half"], "invalid float value: 'half'"),
        (["train", "--set", "momentum"], "'momentum' was given; write NAME=VALUE, for instance seed=3"),
        (["report", "--scale", "large"], "invalid choice: 'large'"),
        (["report", "--jobs", "0"], "'0' was given; it must be a whole number from 1 on"),
        (["report", "--jobs", "two"], "'two' was given"),
        (["report", "--set", "=3"], "'=3' was given; write NAME=VALUE"),
        (["runs"], "required"),
        (["runs", "shwo"], "invalid choice: 'shwo'"),
    ],
)
def test_wrong_use_ends_with_code_2_and_says_what_is_right(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--operation", "x^2+y2"], "unknown operation 'x^2+y2'; did you mean 'x^2+y^2'?"),
        (["--model", "transformer"], "unknown model 'transformer'"),
        (["--optimizer", "adamm"], "unknown optimizer 'adamm'; did you mean 'adam"),
        (["--alpha", "1.5"], "alpha"),
        (["--steps", "-3"], "steps"),
        (["--operation", "x/y", "--p", "6"], "needs a prime modulus"),
        (["--set", "momentun=0.9", "--optimizer", "sgd"], "no field 'momentun'; did you mean 'momentum'?"),
    ],
)
def test_run_that_cannot_be_trained_is_refused_in_one_message(
    here: Store, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("grokcore train: ") and message in errors and "Traceback" not in errors and not here.ids()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpecError, 2),
        (NotebookError, 2),
        (DeviceError, 2),
        (AuditError, 2),
        (RecordError, 1),
        (ManifestError, 1),
        (TrainingError, 1),
    ],
)
def test_errors_of_the_package_are_one_message_with_their_exit_code(
    error: type[GrokcoreError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(options: object) -> int:
        raise error("what is wrong")

    monkeypatch.setitem(COMMANDS, "verify", fails)
    assert main(["runs", "verify"]) == code and capsys.readouterr().err == "grokcore runs: what is wrong\n"


@pytest.mark.parametrize(
    ("arguments", "spec"),
    [
        ([], msu()),
        (["--operation", "x/y", "--p", "23", "--seed", "3"], msu("x/y", p=23, seed=3)),
        (["--setting", "periodic", "--n-layers", "1", "--weight-decay", "0"], periodic(1, weight_decay=0.0)),
        (["--optimizer", "sgd", "--set", "momentum=0.9", "--lr", "0.5"], ("sgd", 0.9, 0.5)),
        (["--set", "betas=(0.9,0.999)", "--set", "early_stop=500"], msu(betas=(0.9, 0.999), early_stop=500)),
        (["--model", "periodic", "--set", "layernorm=false"], ("periodic", False)),
        (["--setting", "power", "--p", "23"], power(p=23)),
        (["--setting", "power", "--operation", "x+y"], power("x+y")),
        (["--setting", "pku", "--alpha", "0.8", "--set", "network=mlp"], pku("mlp", 0.8)),
        (["--setting", "pku", "--set", "epochs=30"], pku(epochs=30)),
        (
            ["--setting", "periodic", "--model", "grokformer", "--n-layers", "3"],
            replace(periodic(model="grokformer"), n_layers=3),
        ),
    ],
)
def test_options_make_the_run_they_name(arguments: list[str], spec: object) -> None:
    described = spec_of(parser().parse_args(["train", *arguments]))
    if isinstance(spec, tuple):
        columns = described.columns()
        names = ("optimizer", "momentum", "lr") if spec[0] == "sgd" else ("model", "layernorm")
        assert tuple(columns[name] for name in names) == spec
    else:
        assert described == spec


def test_train_trains_once_and_sums_up(here: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *TINY, *SMALL, "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert here.ids() == [SPEC.id] and f"run {SPEC.id}: x*y mod 5, α = 0.4, 40 steps, seed 0" in printed.out
    assert "trained and saved" in printed.out and "outcome    " in printed.out and "1 of 1 runs" in printed.err
    lines = [line for line in printed.out.splitlines() if line.startswith(("training", "validation"))]
    assert len(lines) == 6 and all("step" in line or "final accuracy" in line for line in lines)
    assert main(["train", *TINY, *SMALL, "--device", "cpu"]) == 0
    assert "available already; --fresh trains it again" in capsys.readouterr().out


def test_runs_are_listed_and_shown_by_how_their_id_begins(trained: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and {line.split()[0] for line in lines[1:]} == set(trained.ids())
    assert main(["runs", "show", SPEC.id[:6]]) == 0
    output = capsys.readouterr().out
    assert f'"run": "{SPEC.id}"' in output and '"device"' in output and "outcome    " in output


def test_empty_store_is_named(here: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list"]) == 0 and "no runs yet" in capsys.readouterr().out
    assert main(["runs", "export", str(tmp_path / "x.csv")]) == 1
    assert "no runs to export yet" in capsys.readouterr().err and not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize(
    ("beginning", "message"), [("zz", "no run's id begins with 'zz'"), ("", "2 runs begin with ''")]
)
def test_run_that_is_not_one_is_refused(
    trained: Store, beginning: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "show", beginning]) == 1
    assert message in capsys.readouterr().err


def test_export_writes_all_evaluations(trained: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "curves.csv"
    assert main(["runs", "export", str(file)]) == 0
    table = pd.read_csv(file)
    assert set(table["run"]) == set(trained.ids())
    assert len(table) == sum(len(trained.load(run).curve) for run in trained.ids())
    assert main(["runs", "export", str(file), SPEC.id]) == 0 and set(pd.read_csv(file)["run"]) == {SPEC.id}
    assert main(["runs", "export", str(tmp_path / "none" / "x.csv")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_damaged_record_is_one_message(trained: Store, capsys: pytest.CaptureFixture[str]) -> None:
    path = trained.cache / f"{SPEC.id}.parquet"
    path.write_bytes(path.read_bytes()[:100])
    assert main(["runs", "show", SPEC.id]) == 1
    errors = capsys.readouterr().err
    assert f"{SPEC.id}.parquet" in errors and "Traceback" not in errors


def test_record_packs_the_runs_that_a_notebook_names(
    trained: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = (
        "import grokcore as gc\nspecs = [gc.msu(p=5, batch_size=8, steps=s, d_model=8, d_mlp=8, n_heads=2) for s in n]"
    )
    path = write_notebook(tmp_path, "09_tiny", parameters="n: list[int] = [9]", specs=runs)
    (tmp_path / "cpu").mkdir()
    parameters = tmp_path / "cpu" / "09_tiny.yaml"
    parameters.write_text("n: [50, 60]")
    assert main(["runs", "record", str(path)]) == 1
    assert "none of the 2 runs of 09_tiny is trained yet" in capsys.readouterr().err and not trained.experiments()
    for planned, some_are_missing in (("n: [40]", False), ("n: [40, 50]", True)):
        parameters.write_text(planned)
        assert main(["runs", "record", str(path)]) == 0
        assert trained.recorded() == {SPEC.id: "09_tiny"}
        printed = capsys.readouterr().out
        assert "recorded 1 runs" in printed and ("1 of 2 are not trained yet" in printed) == some_are_missing


def test_plan_says_how_many_runs_are_missing_and_what_they_take(
    trained: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SPEC.model_copy(update={"seed": 7})
    plans = [
        plan.PlannedNotebook(tmp_path / f"{name}.ipynb", {}, specs, [])
        for name, specs in (("a", [SPEC, other]), ("b", [SPEC]))
    ]
    monkeypatch.setattr(plan, "planned_notebooks", lambda _, scale: plans[: 2 if scale == "cpu" else 1])
    (cost,) = plan.cost("cpu", trained, jobs=1)  # b asks for what a has already
    assert (cost.notebook, cost.n_runs, cost.n_missing, cost.run_steps) == ("a", 2, 1, 2 * SPEC.steps)
    assert 0 < cost.hours_missing == pytest.approx(cost.hours / 2)
    assert main(["plan", "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "plan cpu" in printed and "plan full" in printed and printed.count(" all ") == 2
    assert main(["plan", "full"]) == 0 and "plan cpu" not in capsys.readouterr().out


def test_record_measures_the_invariance_of_periodic_networks(trained: Store, tmp_path: Path) -> None:
    runs = "import grokcore as gc\nspecs = [gc.periodic(1, p=5, batch_size=8, steps=20, d_model=8, d_mlp=8, n_heads=n)]"
    path = write_notebook(tmp_path, "09_tiny", parameters="n: int = 2", specs=runs)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "09_tiny.yaml").write_text("")
    assert main(["runs", "record", str(path)]) == 0
    first = (trained.records / "invariance.csv").read_text()
    measured = pd.read_csv(io.StringIO(first), comment="#")
    assert set(measured["run"]) == set(trained.recorded()) and min(measured["change"]) >= 0 and len(measured) > 5
    assert main(["runs", "record", str(path)]) == 0 and (trained.records / "invariance.csv").read_text() == first


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["01_reproductoin"], 2, "no notebook '01_reproductoin' in "),
        (["01_reproductoin"], 2, "did you mean '01_reproduction'?"),
        (["01_reproduction", "--set", "stps=3"], 2, "no parameter 'stps'; did you mean 'steps'?"),
        (["01_reproduction", "--set", "steps=3.5"], 2, "steps = 3.5 (float) was given; it must be of type int"),
        (["01_reproduction", "--set", "seeds=[999]"], 1, "runs are not recorded"),
    ],
)
def test_report_that_cannot_be_made_is_one_message(
    here: Store, arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *arguments]) == code
    errors = capsys.readouterr().err
    assert errors.startswith("grokcore report: ") and message in errors and "Traceback" not in errors


def test_report_is_packed_and_a_failed_notebook_makes_the_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, site = tmp_path / "out", tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("page")
    manifest.publish(site, out, {})
    failure = Failure(3, 7, "x = 1 / 0\n", "ZeroDivisionError: division by zero", "")
    good, bad = (Executed(tmp_path / f"{n}.ipynb", out, {}, f, 1.0) for n, f in (("a", None), ("b", failure)))
    monkeypatch.setattr(build, "build_report", lambda *_, **__: build.Report(out, [good], pdf=False))
    assert main(["report", "--zip", str(tmp_path / "r.zip")]) == 0 and (tmp_path / "r.zip").is_file()
    written, packed = f"wrote {out / 'index.html'}", f"packed 2 files into {tmp_path / 'r.zip'}"
    assert re.search(rf"{re.escape(written)} in \d+ s\n{re.escape(packed)}", capsys.readouterr().out)
    monkeypatch.setattr(build, "build_report", lambda *_, **__: build.Report(out, [good, bad], pdf=True))
    assert main(["report"]) == 1
    printed = capsys.readouterr()
    failed = "b.ipynb failed in cell 3 of 7 (`x = 1 / 0`): ZeroDivisionError: division by zero"
    assert printed.err == f"grokcore report: {failed}\n" and "grokking.pdf" in printed.out
    differs = Comparison("0" * 16, "x", 64, 5, 2.5, "val_loss", 8)
    audited = Audit(1, 9, 0, (differs,), {}, "2026-01-01")
    monkeypatch.setattr(build, "build_report", lambda *_, **__: build.Report(out, [good], pdf=True, audit=audited))
    assert main(["report"]) == 1
    assert capsys.readouterr().err == f"grokcore report: {audited.result}\n"


def test_interrupt_ends_with_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "build_report", interrupted)
    assert main(["report"]) == 130
    assert capsys.readouterr().err == "\ninterrupted; the same command goes on from there\n"
    assert main(["report", "--fresh", "--train"]) == 130
    assert capsys.readouterr().err == "\ninterrupted; --fresh begins anew\n"


def test_audit_says_how_many_runs_it_draws_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "--help"])
    assert f"how many runs (default: {audit.RUNS})" in " ".join(capsys.readouterr().out.split())


def test_text_table_aligns_columns_and_shows_no_control_characters() -> None:
    rows = [{"run": "a", "lr": 1e-3, "seed": 12}, {"run": "b\n\x1b[31m", "lr": float("nan"), "seed": None}]
    assert terminal.text_table(rows).splitlines() == [
        "        run    lr seed",
        "          a 0.001   12",
        "b\\n\\x1b[31m     -    -",
    ]


def test_bar_shows_runs_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.training_bar() as watch:
        watch(Progress(3, 12, 600, 2400, 410.4, 754.0, pd.DataFrame()))
        watch(Progress(12, 12, 2399, 2400, 400.0, 0.0, pd.DataFrame()))
    bar = capsys.readouterr().err
    assert " 25 %|" in bar and "3 of 12 runs, 410 steps/s, 13 min left" in bar and "100 %|" in bar
    assert terminal.describe(Progress(0, 2, 0, 10, 0.0, None, pd.DataFrame())) == "0 of 2 runs, 0 steps/s"


def test_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    places = {"GROKCORE_CACHE": str(tmp_path), "GROKCORE_RECORDS": str(tmp_path)}
    command = [sys.executable, "-m", "grokcore.cli.main", "runs", "list"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env={**os.environ, **places}, text=True, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 1 and errors == ""
