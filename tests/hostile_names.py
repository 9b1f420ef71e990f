"""Families of hostile names and words: on the command line, as names of files, on pages, in figures, in CSV."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from hostile import EVIL, Box, payload, tried
from matplotlib.figure import Figure
from nbformat import writes
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from recorded import RUNS, record

from grokcore import claims, cli, front, pages, plan, plots, style
from grokcore.execute import Executed, Failure
from grokcore.spec import msu, replace
from grokcore.store import Store

HARM = [
    "<script>boom()</script>",
    "<img src=x onerror=boom()>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    "<svg onload=boom()><script>boom()</script></svg>",
    "<iframe src='javascript:boom()'></iframe>",
    "<a href='javascript:boom()'>x</a>",
    "<a href=' jAvaScript:boom()'>x</a>",
    "<a href='data:text/html,<script>boom()</script>'>x</a>",
    "<form action='//evil.example'><button formaction='javascript:boom()'>x</button></form>",
    "<object data='//evil.example/x'></object><embed src=x>",
    "<base href='//evil.example/'><meta http-equiv=refresh content='0;url=//evil.example'>",
    "<link rel=stylesheet href='//evil.example/x.css'>",
    "<details open ontoggle=boom()>x</details>",
    "<div style='background:url(//evil.example/x)' onclick=boom()>x</div>",
    "<math><mtext><table><mglyph><style><img src=x onerror=boom()></style></mglyph></table></mtext></math>",
    "<noscript><p title='</noscript><img src=x onerror=boom()>'>",
    "<![CDATA[<script>boom()</script>]]>",
    "<!--><img src=x onerror=boom()>-->",
    "</article></main></body></html><script>boom()</script>",
    "</pre></code></title></textarea><script>boom()</script>",
    "<input autofocus onfocus=boom()>",
    "<video src=//evil.example/x onerror=boom()><source onerror=boom()></video>",
    "[x](javascript:boom())",
    "![x](//evil.example/x.png)",
    "\x1b[31m<script>boom()</script>\x1b[0m",
    "\x1b]8;;javascript:boom()\x07x\x1b]8;;\x07",
    '" onmouseover="boom()" x="',
    "' onmouseover='boom()' x='",
    "{{ 7 * 7 }}{% import os %}",
    "$\\href{javascript:boom()}{x}$",
]
OWN = {"assets/report.css", "assets/report.js", "assets/mathjax/tex-svg-full.js"}
RUNS_CODE = ("script", "iframe", "object", "embed", "form", "base", "meta", "link", "input", "button", "video", "audio")


class Active(HTMLParser):
    """Collects what of a page would run, load or lead to a script, but for what every page has."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Any] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: (value or "").strip().lower() for name, value in attrs}
        own = named.get("src", named.get("href", "")) in OWN or named.get("id") == "show-code"
        if tag in RUNS_CODE and not own and not {"charset", "content"} & set(named):
            self.found.append((tag, attrs))
        if tag == "meta" and named.get("http-equiv", "content-security-policy") != "content-security-policy":
            self.found.append((tag, attrs))
        for name, value in named.items():
            where = re.sub(r"\s", "", value)
            loads = name == "src" and not own and not where.startswith("data:image/")
            leads = name in ("href", "xlink:href") and where.startswith(("javascript:", "data:", "vbscript:"))
            if (
                name.startswith("on")
                or loads
                or leads
                or (name == "style" and "url(" in where and "url(#" not in where)
            ):
                self.found.append((tag, name, value))


def active(text: str) -> list[Any]:
    """Return what of a page would run, load or lead to a script."""
    found = Active()
    found.feed(text)
    return found.found


def nothing_active(text: str) -> bool:
    """Tell whether nothing of a page would run or load; fails with what does."""
    assert not active(text), active(text)[:3]
    return True


def _notebook(path: Path, harm: str) -> None:
    """Write an executed notebook that says `harm` wherever one can say anything."""
    table = pd.DataFrame({harm: [harm]}, index=[harm])
    styled = table.style.set_table_attributes('class="dataframe"')
    cells = [
        new_markdown_cell(text)
        for text in (f"# {harm}", f"## {harm}\n\n{harm}\n\n`{harm}`\n\n> {harm}", f"| a |\n|---|\n| {harm} |")
    ]
    shown = {"text/html": styled.to_html(), "text/plain": harm}, {"text/html": harm}, {"text/markdown": harm}
    shown += ({"text/latex": harm}, {"text/plain": harm}, {"text/html": table.to_html(escape=False)})
    shown += (
        {"image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg'><text>{harm}</text></svg>"},
        {"image/png": harm},
    )
    shown += ({"image/svg+xml": harm}, {"application/javascript": "boom()"}, {"text/unknown": harm})
    outputs = [new_output("display_data", data=data) for data in shown]
    outputs += [new_output("stream", name=name, text=harm) for name in ("stdout", "stderr")]
    outputs.append(new_output("error", ename=harm, evalue=harm, traceback=[harm, harm]))
    cells.append(new_code_cell(f"# {harm}", outputs=outputs, metadata={"tags": [harm.replace(",", "")]}))
    path.write_text(writes(new_notebook(cells=cells)), encoding="utf-8")


def words_on_pages(box: Box) -> Iterator[str]:
    """Prose, tables, figures, printed text and errors of a notebook, its name, its failure, its parameters."""
    notebook = box.allowed / "n.ipynb"
    for i, harm in enumerate(HARM):
        _notebook(notebook, harm)
        failure = Failure(1, 2, harm, f"Error: {harm}", harm)
        for failed in (None, failure):
            executed = Executed(notebook, notebook, {harm: harm}, failed, 1.0)
            page = pages.notebook_page(executed, RUNS[:1], harm, harm)
            page = pages.Page(f"n{i}", page.title, page.body, page.colophon)
            pages.write(pages.linked([pages.Page("index", harm, ""), page]), box.allowed, pdf=True)
            pages.write_book([page], box.allowed)
            for name in (f"n{i}.html", "index.html", pages.BOOK):
                text = (box.allowed / name).read_text(encoding="utf-8")
                yield tried(lambda text=text: text, nothing_active, "", harm)


def names_of_pages(box: Box) -> Iterator[str]:
    """Notebooks named by evil: every link to their pages leads to a file beside the page, in the book too."""
    for name in EVIL:
        if "/" in name or not 0 < len(name.encode(errors="replace")) < 200 or "\x00" in name or name == "\ud800":
            continue  # no file has such a name
        body = f'<h2 id="a">x</h2><a href="{html.escape(name)}.ipynb#a">x</a>'
        page = pages.Page(name, name, pages.harmless(body))
        folder = box.allowed / "site"
        folder.mkdir(exist_ok=True)
        made = pages.linked([pages.Page("index", "t", ""), page, pages.Page("last", "l", "")])
        pages.write(made, folder, pdf=False)
        pages.write_book(made, folder)
        for file in ("index.html", f"{name}.html", pages.BOOK):
            text = (folder / file).read_text(encoding="utf-8")
            for link in re.findall(r'<a (?:class="\w+" rel="\w+" )?href="([^"#]+)"', text):
                assert ":" not in link and (folder / unquote(link)).is_file(), (name, link)
            yield tried(lambda text=text: text, nothing_active, "", name)
        (folder / f"{name}.html").unlink()


def words_of_claims(box: Box) -> Iterator[str]:
    """The front page, from claims, sources, waiting notebooks and pages whose every word is hostile."""
    known, sources = claims.load(), front.load_sources()
    empty = front.Evidence(front.evidence(Store(box.allowed / "c", box.allowed / "r"), []).curves, 0, 0, 0.0)
    words = ("statement", "figure", "setting", "choices", "citation", "why_capped")
    for harm in HARM:
        one = next(iter(known.values())).model_copy(update=dict.fromkeys(words, harm))
        other = one.model_copy(update={"id": harm, "source": harm, "notebook": harm})
        said = front.Document(authors=harm, original_authors=harm, title=harm, original=harm, lang="ru", kind=harm)
        cited = front.Sources(documents={harm: said}, literature=[front.Work(text=harm)], topics=[harm])
        verdict = claims.Verdict(**{**vars(claims.evaluate(one.id, empty.curves)), "statement": harm, "reason": harm})
        found = front.Evidence(empty.curves, 0, 0, 0.0)
        found.__dict__["verdicts"] = {one.id: verdict, harm: verdict}
        loads, front_sources = claims.load, front.load_sources
        try:
            claims.load, front.load_sources = (lambda a=one, b=other: {a.id: a, b.id: b}), (lambda s=cited: s)
            waiting = [front.Waiting(harm, 1, harm)]
            page = front.front_page(found, [pages.Page(harm.replace("/", ""), harm, harm)], waiting, None, harm)
        finally:
            claims.load, front.load_sources = loads, front_sources
        text = page.body + page.colophon
        yield tried(lambda text=text: text, nothing_active, "", harm)
        table = new_notebook(
            cells=[
                new_code_cell(
                    "", outputs=[new_output("display_data", data={"text/markdown": claims.markdown([verdict])})]
                )
            ]
        )
        (box.allowed / "n.ipynb").write_text(writes(table), encoding="utf-8")
        body = pages._exporter().from_notebook_node(plan.read(box.allowed / "n.ipynb"))[0]
        yield tried(lambda body=body: body, nothing_active, "", harm)
    assert sources.topics


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
            return style.svg(plots.legend(figure), alt)

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
        made = record(RUNS[i % 2])
        curve = made.curve.assign(**{evil: rng.uniform(-9, 9), "val_loss": -1.5e-7})
        store.save(type(made)(made.spec, curve, evil, {"seconds": 1.0, evil: evil}))
        file = box.allowed / "x.csv"
        code, said = _cli(["runs", "export", str(file), made.spec.id[:6]])
        assert code == 0 and str(file) in said, said
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
    """Return exit code and all that is said; argparse ends by SystemExit."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = cli.main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, said.getvalue()


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
            code, said = _cli(arguments)
            assert code in (1, 2) and "Traceback" not in said, (arguments, code, said[-500:])
            assert "grokcore" in said and len(said) < 40_000, (arguments, len(said))
            yield f"refused: exit code {code}"
        where = _cli(["runs", "list"])
        assert where[0] == 0, where


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
    "words on pages": words_on_pages,
    "names of pages": names_of_pages,
    "words of claims": words_of_claims,
    "labels of figures": labels_of_figures,
    "exported CSV": exported_curves,
    "command line": command_line,
    "names of files": names_of_files,
}
