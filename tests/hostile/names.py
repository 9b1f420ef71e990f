"""Families of hostile names: in figures, in CSV, on the command line, of runs and experiments."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from helpers.recorded import RUNS, record
from hostile.pages import HARM, nothing_active
from hostile.run import EVIL, Box, payload, tried
from matplotlib.figure import Figure

from grokcore import plots
from grokcore.cli.main import main
from grokcore.plots import style
from grokcore.records.store import Store
from grokcore.report import pages
from grokcore.spec.presets import msu
from grokcore.spec.run import replace


def _svg_is_text(svg: str) -> bool:
    kinds = {str(element.tag).rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
    return "script" not in kinds and nothing_active(svg) and pages.drawing(svg) == svg


def labels_of_figures(box: Box) -> Iterator[str]:
    """Names in figures: an operation, an optimizer, a run's label, the text alternative; and networks of such names."""
    for name in [*EVIL, *HARM]:
        figure = Figure(figsize=(2, 2))
        for key in (name, (name, 1.0)):
            label = style.name_and_colour("operation" if key == name else "optimizer", key)[0]
            (figure.axes or [figure.add_subplot()])[0].plot([0, 1], [0, 1], label=style.plain(label[:99]))
        figure.axes[0].set_title(style.plain(name[:99]))
        alt = name if name.strip() else "a figure"

        def draw(figure: Figure = figure, alt: str = alt) -> str:
            return plots.svg(plots.legend(figure), alt)

        yield tried(draw, _svg_is_text, "alt", name)
        source = {"name": "user", "source": name, "class_name": name, "arguments": {name: name}}
        yield tried(
            lambda s=source: replace(msu(), model=s), lambda spec: spec.columns()["model"].isidentifier(), "class", name
        )


def exported_curves(box: Box) -> Iterator[str]:
    """CSV of curves with names that begin like formulas: no cell does, and numbers are what they were."""
    store, rng = Store(), box.random
    begins = [*(name for name in EVIL if name and name[0] in "=+-@\t\r"), "-2+3", "=1", "＝1", "\n=1", "+", "-", "@x"]
    for i in range(160):
        evil = rng.choice(begins) + rng.choice(["", "x", '"', ",", "'"])
        original = record(RUNS[i % 2])
        curve = original.curve.assign(**{evil: rng.uniform(-9, 9), "val_loss": -1.5e-7})
        store.save(type(original)(original.spec, curve, evil, {"seconds": 1.0, evil: evil}))
        file = box.allowed / "x.csv"
        code, output = _cli(["runs", "export", str(file), original.spec.id[:6]])
        assert code == 0 and str(file) in output, output
        rows = list(csv.reader(io.StringIO(file.read_bytes().decode(), newline="")))
        for text in {cell for row in rows for cell in row}:
            assert not text.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", " ")) or _is_number(text), text
        safe, back = "'" + re.sub(r"[\r\n]", " ", evil), pd.read_csv(file)
        assert len(back) == len(rows) - 1 == 5 and safe in rows[0] and rows[1][rows[0].index("status")] == safe
        assert set(back["val_loss"]) == {-1.5e-7} and len({len(row) for row in rows}) == 1
        yield "handled: every formula is text, every number the same"


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|inf)", text))


def _cli(arguments: list[str]) -> tuple[int, str]:
    """Return exit code and all that is printed; argparse ends by SystemExit."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, output.getvalue()


def _commands(evil: str, box: Box) -> list[list[str]]:
    out = str(box.allowed / "out")
    return [
        ["train", "--operation", evil],
        ["train", "--model", evil],
        ["train", "--optimizer", evil],
        ["train", "--setting", evil],
        ["train", "--device", evil],
        ["train", "--p", evil],
        ["train", "--steps", "1", f"--set={evil}=3"],
        *(
            ["train", "--steps=0", f"--set={name}={evil}"]
            for name in ("spec", "task", "model", "table", "seed", "betas")
        ),
        ["runs", "show", evil],
        ["runs", "export", out, evil],
        ["runs", "record", evil],
        ["report", evil, "--out", out],
        ["report", f"{evil}.ipynb", "--out", out],
        ["report", "01_reproduction", f"--set=seeds={evil}", "--out", out],
        ["report", "01_reproduction", "--scale", evil],
        ["plan", evil],
        ["bench", evil],
    ]


def command_line(box: Box) -> Iterator[str]:
    """Hostile arguments of every command: a message with exit code 1 or 2, never a traceback, and no file."""
    deep = [
        "[" * 90 + "]" * 90,
        "(" * 5000,
        "{[]: 1}",
        "9" * 5000,
        "-" * 5000 + "1",
        payload(box.canary),
        "1e999",
        "nan",
    ]
    for evil in [*EVIL, *deep]:
        if "\ud800" in evil:
            continue  # no operating system hands such an argument over
        for arguments in _commands(evil, box):
            if evil == "" and arguments[:2] in (["runs", "show"], ["runs", "export"]):
                continue  # every run begins with nothing; there is none here
            code, output = _cli(arguments)
            assert code in (1, 2) and "Traceback" not in output, (arguments, code, output[-500:])
            assert "grokcore" in output and len(output) < 40_000, (arguments, len(output))
            yield f"refused: exit code {code}"
        listed = _cli(["runs", "list"])
        assert listed[0] == 0, listed


def names_of_files(box: Box) -> Iterator[str]:
    """Runs and experiments by evil names: no file elsewhere is read, written or removed."""
    store = Store(box.allowed / "cache", box.allowed / "records")
    store.save(record(RUNS[0]), {1: {"W": np.ones(2)}})
    elsewhere = ["../../outside/decoy", str(box.root / "outside" / "decoy"), "../../decoy", "../records/x", "./x"]
    for name in [*EVIL, *elsewhere]:
        uses: list[Any] = [store.load, store.load_cached, store.weights, store.headers, store.runs_with_rows]
        for use in uses:
            yield tried(lambda use=use, name=name: use(name), lambda _: False, "", name)
        end = tried(lambda name=name: store.pack(name, [RUNS[0].id]), lambda ids: ids == [RUNS[0].id], "", name)
        fresh = Store(store.cache, store.records)
        assert end.startswith("refused") or fresh.load(RUNS[0].id).checksum == record(RUNS[0]).checksum
        for path in store.records.glob("*"):
            path.unlink()
        yield end


FAMILIES = {
    "labels of figures": labels_of_figures,
    "exported CSV": exported_curves,
    "command line": command_line,
    "names of files": names_of_files,
}
