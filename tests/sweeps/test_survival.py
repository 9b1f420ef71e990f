"""Sweeps whose processes are killed lose nothing, and their records are those of a sweep that was not."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.sweep_processes import LONG, SHORT, checkpoints, environment, start, tidy, wait_for
from torch import nn

from grokcore.nn.build import user_model
from grokcore.records.store import Store
from grokcore.spec.run import RunSpec, grid, replace
from grokcore.sweeps import checkpoint
from grokcore.sweeps.pool import TrainingError
from grokcore.sweeps.sweep import sweep

KEPT = [0, 100, 800]

# One process that has loaded torch and forks one for every attempt, since loading it takes longer than an attempt.
NURSERY = """
    import json, os, random, signal, sys, threading, time
    from pathlib import Path
    import torch
    import grokcore as gc
    from grokcore.records.store import Store
    from grokcore.sweeps import grouping, progress

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def prepare(evaluations=None, delay=0, file=None, writing=1, share=0):
        # Die some time after so many evaluations, or when so much of a file is written: all of it and moved, if 2.
        note, replace, seen = progress.add_evaluation, os.replace, [0]

        def noted(*arguments):
            note(*arguments)
            seen[0] += 1
            if seen[0] == evaluations:
                threading.Timer(delay, die).start()

        def replaced(source, target):
            seen[0] += file is not None and file in str(target)
            if seen[0] == writing:
                os.truncate(source, int(min(share, 1) * os.path.getsize(source)))
                if share == 2:
                    replace(source, target)
                die()
            replace(source, target)

        if evaluations:
            progress.add_evaluation = noted
        else:
            os.replace = replaced

    settings = json.load(sys.stdin)
    torch.set_num_threads(1)
    grouping.runs_per_program = lambda spec: settings["together"]
    specs = [gc.RunSpec.model_validate(spec) for spec in settings["specs"]]
    ended = []
    for kill in [*settings["kills"], None]:
        child = os.fork()
        if not child:
            if kill:
                prepare(**kill)
            store = Store(Path(settings["folder"]) / "cache", Path(settings["folder"]) / "records")
            gc.sweep(specs, store=store, device="cpu", jobs=1, keep_weights=settings["kept"], checkpoint_every=0)
            os._exit(0)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(ended))
"""


def attempts(folder: Path, specs: list[RunSpec], together: int, kills: list[dict[str, Any]]) -> list[int]:
    """Sweep with these kills and once more; return how each attempt ended."""
    settings = {"folder": str(folder), "together": together, "kept": KEPT, "kills": kills}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(NURSERY)]
    settings_json = json.dumps({**settings, "specs": [spec.to_dict() for spec in specs]})
    done = subprocess.run(command, input=settings_json, capture_output=True, text=True, env=environment(folder))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def contents(store: Store, specs: list[RunSpec]) -> dict[str, tuple[Any, ...]]:
    """Return all that is recorded of the runs but times and dates."""
    out = {}
    for spec in specs:
        record = store.load(spec.id)
        kept = (store.cache / f"{spec.id}.safetensors").read_bytes() if store.has_weights(spec.id) else b""
        provenance = {name: value for name, value in record.provenance.items() if name not in ("seconds", "date")}
        values = {name: record.curve[name].to_numpy().tobytes() for name in record.curve}
        out[spec.id] = (record.status, list(values.items()), provenance, kept)
    return out


@pytest.mark.parametrize(("together", "steps", "n_random"), [(1, 1600, 4), (4, 800, 3)])
def test_killed_at_random_or_while_writing_a_sweep_ends_with_the_same_bytes(
    tmp_path: Path, together: int, steps: int, n_random: int
) -> None:
    """Kills at random moments and eight inside the writing of a file; every evaluation has a checkpoint."""
    rng = np.random.default_rng(together)
    specs = grid(replace(LONG, steps=steps), seed=range(together))
    kills: list[dict[str, Any]] = [
        {"evaluations": int(rng.integers(1, 3)), "delay": float(rng.uniform(0, 0.02))} for _ in range(n_random)
    ]
    for writing, share in ((1, 0), (2, 0.5), (3, 0.999), (2, 2)):
        kills.insert(int(rng.integers(n_random)), {"file": "checkpoints", "writing": writing, "share": share})
    for file, share in ((f"{specs[0].id}.safe", 0.5), (f"{specs[-1].id}.safe", 2), (".parquet", 0.9), (".parquet", 2)):
        kills.append({"file": file, "share": share})
    whole, killed = (Store(tmp_path / name / "cache", tmp_path / name / "records") for name in ("whole", "killed"))
    assert attempts(tmp_path / "whole", specs, together, []) == [0]
    assert attempts(tmp_path / "killed", specs, together, kills) == [-signal.SIGKILL] * (n_random + 8) + [0]
    assert contents(killed, specs) == contents(whole, specs)
    assert {record[2]["runs_in_program"] for record in contents(killed, specs).values()} == {together}
    assert tidy(whole)
    cut_off = list(killed.cache.rglob(".*"))
    assert len(cut_off) >= 5
    for path in cut_off:
        os.utime(path, (0, 0))
    sweep([SHORT], store=killed, device="cpu", jobs=1)
    assert tidy(killed)


class Dies(nn.Module):
    """A network whose process is killed, the first so many times."""

    def __init__(self, folder: str, times: int) -> None:
        super().__init__()
        self.deaths, self.times = Path(folder) / f"deaths-{times}", times
        self.embed, self.out = nn.Embedding(7, 4), nn.Linear(8, 7)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        died = len(self.deaths.read_text()) if self.deaths.exists() else 0
        if died < self.times:
            self.deaths.write_text("x" * (died + 1))
            os.kill(os.getpid(), signal.SIGKILL)
        return self.out(self.embed(tokens).flatten(1))


def test_a_run_is_given_up_when_its_process_has_died_three_times_alone(store: Store, tmp_path: Path) -> None:
    """Dead once or twice, a run is trained; dead three times alone it is reported by id, and the others end.

    Whether it or another one dies first in the two pools that it shares is chance; `test_deaths` forces the order.
    """
    dying = [replace(SHORT, model=user_model(Dies, folder=str(tmp_path), times=times)) for times in (1, 2, 9)]
    others = grid(SHORT, seed=range(4))
    with pytest.raises(TrainingError, match=f"1 runs failed, .* saved:\n{dying[2].id}: .*killed 3 times"):
        sweep([*dying, *others], store=store, device="cpu", jobs=2)
    assert set(store.ids()) == {spec.id for spec in [*dying[:2], *others]}
    deaths = [len((tmp_path / f"deaths-{times}").read_text()) for times in (1, 2, 9)]
    assert deaths[:2] == [1, 2] and deaths[2] in (3, 4, 5)  # two of them beside others
    alone = Store(tmp_path / "alone", tmp_path / "none")
    pd.testing.assert_frame_equal(
        sweep(others, store=store, train=False), sweep(others, store=alone, device="cpu", jobs=1), check_exact=True
    )
    assert tidy(store)


def test_killed_with_all_its_processes_a_parallel_sweep_ends_with_the_same_bytes(tmp_path: Path) -> None:
    specs = [SHORT, *grid(replace(LONG, steps=700), seed=range(3))]
    whole, killed = (Store(tmp_path / name / "cache", tmp_path / name / "records") for name in ("whole", "killed"))
    killed.cache.parent.mkdir()
    for step in (60, 300):
        process = start(killed.cache.parent, specs)
        wait_for(process, lambda step=step: any(checkpoint.header(path)["step"] > step for path in checkpoints(killed)))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    saved = {run: killed.saved_at(run) for run in killed.ids()}
    assert len(saved) < len(specs)
    sweep(specs, store=killed, device="cpu", jobs=1, keep_weights=[100])
    assert {run: killed.saved_at(run) for run in saved} == saved, "a run that had ended was trained again"
    sweep(specs, store=whole, device="cpu", jobs=1, keep_weights=[100])
    assert contents(killed, specs) == contents(whole, specs)


def test_two_sweeps_on_one_store_share_the_work(tmp_path: Path) -> None:
    """Both give all curves, and no run is trained by both."""
    specs = grid(replace(LONG, steps=300), seed=range(6))
    processes = [start(tmp_path, order, jobs, sweeps=2) for order, jobs in ((specs, 2), (specs[::-1], 1))]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    trained = [set(json.loads(output.splitlines()[-1])) for output, _ in outputs]
    assert trained[0] | trained[1] == {spec.id for spec in specs} and not trained[0] & trained[1]
    assert all(trained), "one of them did it all"
    store = Store(tmp_path / "cache", tmp_path / "records")
    assert len(sweep(specs, store=store, train=False).groupby("run")) == 6 and tidy(store)
