"""A notebook is executed again if, and only if, something that it depends on has changed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.notebooks import write_notebook

from grokcore.records.record import make_record
from grokcore.records.store import Store
from grokcore.report import build as report_build
from grokcore.report import execution_cache
from grokcore.report.execute import Executed, Failure
from grokcore.report.options import ReportOptions
from grokcore.spec.presets import msu
from grokcore.spec.run import replace

RUN = "import grokcore as gc\nspecs = [gc.msu(p=5, d_model=8, d_mlp=8, n_heads=2, steps=steps, batch_size=8)]"
SPEC = msu(p=5, d_model=8, d_mlp=8, n_heads=2, steps=30, batch_size=8)
Build = Callable[..., tuple[int, str]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache", tmp_path / "records")
    save(store, 0.5)
    return store


def save(store: Store, accuracy: float, seed: int = 0) -> None:
    """Put a made-up record of the notebook's run, or of one with another seed, into the store."""
    curve = {"step": np.array([0, 30]), "epoch": np.array([0.0, 1.0])}
    measured = {
        f"{part}_{name}": np.array([0.0, accuracy]) for part in ("train", "val") for name in ("loss", "accuracy")
    }
    store.save(make_record(replace(SPEC, seed=seed), curve | measured, "finished", {"seconds": 1.0}))


@pytest.fixture
def build(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Build the report of a notebook; return how often it was executed so far, and its page."""
    executions: list[Path] = []
    common = ["the package"]

    def execute(notebooks: dict[Path, dict[str, Any]], folder: Path, **_: Any) -> list[Executed]:
        done = []
        for path, parameters in notebooks.items():
            executions.append(path)
            output = shutil.copy(path, folder / path.name)
            failure = Failure(1, 1, "", "of itself", "") if "1 / 0" in path.read_text() else None
            done.append(Executed(path, Path(output), parameters, failure, seconds=len(executions)))
        return done

    monkeypatch.setenv("PATH", str(tmp_path))  # no browser
    monkeypatch.setattr(execution_cache, "common_digest", lambda: common[0])
    monkeypatch.setattr(report_build, "execute", execute)

    def once(cell: str = "1", package: str = "the package", **settings: float) -> tuple[int, str]:
        common[0] = package
        path = write_notebook(tmp_path, "n", [cell], specs=RUN)
        options = ReportOptions([path], scale="smoke", settings=settings, device="cpu", out=tmp_path / "out")
        report_build.build_report(options, store=store, say=lambda line: None)
        return len(executions), (tmp_path / "out" / "n.html").read_text()

    return once


def test_nothing_is_executed_again_and_the_page_is_the_same(build: Build) -> None:
    (first, page), (second, again) = build(), build()
    assert (first, second) == (1, 1) and page == again


@pytest.mark.parametrize(
    "change", [{"cell": "1 + 1"}, {"package": "another"}, {"lr": 0.5}], ids=["cell", "package", "parameter"]
)
def test_a_change_is_executed_once(build: Build, change: dict[str, Any]) -> None:
    build()
    assert [build(**change)[0], build(**change)[0], build()[0]] == [2, 2, 2]


def test_a_changed_record_of_its_runs_is_executed_once(build: Build, store: Store) -> None:
    build()
    save(store, 0.75)
    assert [build()[0], build()[0]] == [2, 2]


def test_a_changed_measurement_of_the_store_is_executed_once(build: Build, store: Store) -> None:
    build()
    store.records.mkdir()
    (store.records / "measured.csv").write_text("run,step\n")
    assert [build()[0], build()[0]] == [2, 2]


def test_a_record_of_other_runs_changes_nothing(build: Build, store: Store) -> None:
    build()
    save(store, 0.75, seed=1)
    assert build()[0] == 1


def test_a_notebook_that_failed_is_tried_again(build: Build) -> None:
    assert (build("1 / 0")[0], build("1 / 0")[0]) == (1, 2)


def test_the_latest_executions_are_kept(build: Build, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution_cache, "KEPT", 2)
    for i in range(execution_cache.KEPT + 2):
        build(f"{i}")
    assert len(list((store.cache / "executed").iterdir())) == execution_cache.KEPT
    assert build(f"{execution_cache.KEPT + 1}")[0] == execution_cache.KEPT + 2


def test_common_digest_sees_package_requirements_claims_and_benchmarks(tmp_path: Path) -> None:
    for name in (
        "grokcore/a.py",
        "grokcore/templates/x.j2",
        "requirements.txt",
        "data/claims.yaml",
        "benchmarks/b.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
        before = execution_cache.common_digest(tmp_path)
        (tmp_path / name).write_text("2")
        assert execution_cache.common_digest(tmp_path) != before, name
    before = execution_cache.common_digest(tmp_path)
    (tmp_path / "grokcore" / "__pycache__").mkdir()
    (tmp_path / "grokcore" / "__pycache__" / "a.pyc").write_text("3")
    assert execution_cache.common_digest(tmp_path) == before
