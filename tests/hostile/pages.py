"""Families of hostile words that reach a page: of notebooks, their names, claims, sources, benchmarks."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import matplotlib as mpl
import pandas as pd
import pytest
from helpers.recorded import RUNS
from hostile.files import edited
from hostile.run import EVIL, Box, flipped, tried
from nbformat import writes
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from grokcore import claims
from grokcore.claims import rules
from grokcore.records.store import Store, repository
from grokcore.report import pages, sanitize, site, sources
from grokcore.report.evidence import Evidence, evidence
from grokcore.report.execute import Executed, Failure
from grokcore.report.front_page import FrontPage, front_page
from grokcore.report.missing_runs import Waiting
from grokcore.report.notebook_files import read

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
        self.active: list[Any] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: (value or "").strip().lower() for name, value in attrs}
        own = values.get("src", values.get("href", "")) in OWN or values.get("id") == "show-code"
        if tag in RUNS_CODE and not own and not {"charset", "content"} & set(values):
            self.active.append((tag, attrs))
        if tag == "meta" and values.get("http-equiv", "content-security-policy") != "content-security-policy":
            self.active.append((tag, attrs))
        for name, value in values.items():
            link = re.sub(r"\s", "", value)
            loads = name == "src" and not own and not link.startswith("data:image/")
            leads = name in ("href", "xlink:href") and link.startswith(("javascript:", "data:", "vbscript:"))
            if name.startswith("on") or loads or leads or (name == "style" and "url(" in link and "url(#" not in link):
                self.active.append((tag, name, value))


def active(text: str) -> list[Any]:
    """Return what of a page would run, load or lead to a script."""
    parser = Active()
    parser.feed(text)
    return parser.active


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
    shown = [
        {"text/html": styled.to_html(), "text/plain": harm},
        {"text/html": harm},
        {"text/markdown": harm},
        {"text/latex": harm},
        {"text/plain": harm},
        {"text/html": table.to_html(escape=False)},
        {"image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg'><text>{harm}</text></svg>"},
        {"image/png": harm},
        {"image/svg+xml": harm},
        {"application/javascript": "boom()"},
        {"text/unknown": harm},
    ]
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
            site.write_site(pages.linked([pages.Page("index", harm, ""), page]), box.allowed, pdf=True)
            site.write_book([page], box.allowed)
            for name in (f"n{i}.html", "index.html", site.BOOK):
                text = (box.allowed / name).read_text(encoding="utf-8")
                yield tried(lambda text=text: text, nothing_active, "", harm)


def names_of_pages(box: Box) -> Iterator[str]:
    """Notebooks named by evil: every link to their pages leads to a file beside the page, in the book too."""
    for name in EVIL:
        if "/" in name or not 0 < len(name.encode(errors="replace")) < 200 or "\x00" in name or name == "\ud800":
            continue  # no file has such a name
        body = f'<h2 id="a">x</h2><a href="{html.escape(name)}.ipynb#a">x</a>'
        page = pages.Page(name, name, sanitize.harmless(body))
        folder = box.allowed / "site"
        folder.mkdir(exist_ok=True)
        linked = pages.linked([pages.Page("index", "t", ""), page, pages.Page("last", "l", "")])
        site.write_site(linked, folder, pdf=False)
        site.write_book(linked, folder)
        for file in ("index.html", f"{name}.html", site.BOOK):
            text = (folder / file).read_text(encoding="utf-8")
            for link in re.findall(r'<a (?:class="\w+" rel="\w+" )?href="([^"#]+)"', text):
                assert ":" not in link and (folder / unquote(link)).is_file(), (name, link)
            yield tried(lambda text=text: text, nothing_active, "", name)
        (folder / f"{name}.html").unlink()


def _sources_of(claim: str, harm: str) -> sources.Sources:
    """Return sources whose every word is hostile; they name a claim, and one whose id is hostile."""
    document = sources.Document(authors=harm, original_authors=harm, title=harm, original=harm, lang="ru", kind=harm)
    return sources.Sources(
        findings=[sources.Finding(short=harm, text=harm, rests_on={harm: "not settled"})],
        documents={harm: document},
        literature=[sources.Work(text=harm)],
        disagreements=[sources.Disagreement(question=harm, claims=[claim, harm], both=harm)],
        topics=[harm],
    )


def words_of_claims(box: Box) -> Iterator[str]:
    """The front page, from claims, sources, waiting notebooks and pages whose every word is hostile."""
    first = next(iter(rules.load().values()))
    empty = evidence(Store(box.allowed / "c", box.allowed / "r"), [])
    words = ("statement", "figure", "setting", "choices", "citation", "why_capped")
    for harm in HARM:
        claim = first.model_copy(update={**dict.fromkeys(words, harm), "parts": {harm: harm}})
        other = claim.model_copy(update={"id": harm, "source": harm, "notebook": harm})
        verdict = replace(claims.evaluate(claim.id, empty.curves), statement=harm, headline=harm, reason=harm)
        judged = Evidence(empty.curves, 0, 0, 0.0)
        judged.__dict__["verdicts"] = {claim.id: verdict, harm: verdict}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rules, "load", {claim.id: claim, other.id: other}.copy)
            patch.setattr(sources, "load", _sources_of(claim.id, harm).model_copy)
            page = front_page(
                FrontPage(
                    evidence=judged,
                    pages=[pages.Page(harm.replace("/", ""), harm, harm)],
                    waiting=[Waiting(harm, 2, 1, harm)],
                    figure=None,
                    audit=None,
                    version=harm,
                )
            )
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
        body = pages.notebook_body(read(box.allowed / "n.ipynb"))
        yield tried(lambda body=body: body, nothing_active, "", harm)
    assert sources.load().topics


def _shown_of(results: Path, cells: list[str]) -> list[dict[str, str]] | Failure:
    """Return what the first cells of the page on speed display of a benchmark's results, or how they fail."""
    shown: list[Any] = []
    names = {"results": str(results)}
    with mpl.rc_context(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("IPython.display.display", shown.append)
        try:
            for source in cells:
                exec(source, names)
            tables = [{"text/html": table.to_html()} for table in shown if hasattr(table, "to_html")]
        except Exception as error:  # in a kernel: what the page of a failed notebook says
            return Failure(3, 9, cells[0], f"{type(error).__name__}: {error}", f"{error!r}")
    return [*tables, *({"text/markdown": text.data} for text in shown if not hasattr(text, "to_html"))]


def benchmark_results(box: Box) -> Iterator[str]:
    """The results of the benchmark, edited and damaged, through the cells of the page that shows them."""
    rng, path, notebook = box.random, box.allowed / "cpu.json", box.allowed / "speed.ipynb"
    cells = read(repository() / "notebooks" / "speed.ipynb").cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    rows = json.loads((repository() / "benchmarks" / "cpu.json").read_text(encoding="utf-8"))
    texts, grown = ("case", "machine", "torch", "operations"), [row for row in rows if row["case"] == "growth"]
    cases = [row for row in rows if row["case"] != "growth"]
    evil = [[{**row, **dict.fromkeys(texts, f"{harm}{i}")} for i, row in enumerate(cases)] + grown for harm in HARM]
    damaged = [json.dumps(values).encode() for values in [*evil, *(edited(rows, rng) for _ in range(20))]]
    for data in [*damaged, *(flipped(json.dumps(rows).encode(), rng) for _ in range(10)), b"", b"[]", b"{}", b"3"]:
        path.write_bytes(data)
        shown = _shown_of(path, code[2:4])
        outputs = [new_output("display_data", data=data) for data in shown] if isinstance(shown, list) else []
        notebook.write_text(writes(new_notebook(cells=[new_code_cell("x", outputs=outputs)])), encoding="utf-8")
        failure = shown if isinstance(shown, Failure) else None
        page = pages.notebook_page(Executed(notebook, notebook, {}, failure, 1.0), [], "cpu", "0")
        end = tried(lambda page=page: page.body, nothing_active, "", data)
        yield f"{end}, its page shows the numbers" if failure is None else "handled: the page says how it failed"


FAMILIES = {
    "words on pages": words_on_pages,
    "names of pages": names_of_pages,
    "words of claims": words_of_claims,
    "benchmark results": benchmark_results,
}
