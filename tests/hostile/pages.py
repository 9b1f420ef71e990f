"""Families of hostile words that reach a page: of notebooks, their names, claims, sources, benchmarks."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
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
from grokcore.report import front_page, pages, plan, sources
from grokcore.report.execute import Executed, Failure

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
    known = rules.load()
    empty = front_page.Evidence(front_page.evidence(Store(box.allowed / "c", box.allowed / "r"), []).curves, 0, 0, 0.0)
    words = ("statement", "figure", "setting", "choices", "citation", "why_capped")
    for harm in HARM:
        one = next(iter(known.values())).model_copy(update={**dict.fromkeys(words, harm), "parts": {harm: harm}})
        other = one.model_copy(update={"id": harm, "source": harm, "notebook": harm})
        said = sources.Document(authors=harm, original_authors=harm, title=harm, original=harm, lang="ru", kind=harm)
        apart = sources.Disagreement(question=harm, claims=[one.id, harm], both=harm)
        work = sources.Work(text=harm)
        found_out = sources.Finding(short=harm, text=harm, rests_on={harm: "not settled"})
        cited = sources.Sources(
            findings=[found_out], documents={harm: said}, literature=[work], disagreements=[apart], topics=[harm]
        )
        verdict = claims.Verdict(
            **{
                **vars(claims.evaluate(one.id, empty.curves)),
                **dict.fromkeys(("statement", "headline", "reason"), harm),
            }
        )
        found = front_page.Evidence(empty.curves, 0, 0, 0.0)
        found.__dict__["verdicts"] = {one.id: verdict, harm: verdict}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rules, "load", {one.id: one, other.id: other}.copy)
            patch.setattr(sources, "load", cited.model_copy)
            waiting = [front_page.Waiting(harm, 2, 1, harm)]
            page = front_page.front_page(found, [pages.Page(harm.replace("/", ""), harm, harm)], waiting, None, harm)
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
            tables = [{"text/html": one.to_html()} for one in shown if hasattr(one, "to_html")]
        except Exception as error:  # in a kernel: what the page of a failed notebook says
            return Failure(3, 9, cells[0], f"{type(error).__name__}: {error}", f"{error!r}")
    return [*tables, *({"text/markdown": one.data} for one in shown if not hasattr(one, "to_html"))]


def benchmark_results(box: Box) -> Iterator[str]:
    """The results of the benchmark, edited and damaged, through the cells of the page that shows them."""
    rng, path, notebook = box.random, box.allowed / "cpu.json", box.allowed / "speed.ipynb"
    cells = plan.read(repository() / "notebooks" / "speed.ipynb").cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    rows = json.loads((repository() / "benchmarks" / "cpu.json").read_text(encoding="utf-8"))
    texts, grown = ("case", "machine", "torch", "operations"), [row for row in rows if row["case"] == "growth"]
    cases = [row for row in rows if row["case"] != "growth"]
    evil = [[{**row, **dict.fromkeys(texts, f"{harm}{i}")} for i, row in enumerate(cases)] + grown for harm in HARM]
    damaged = [json.dumps(one).encode() for one in [*evil, *(edited(rows, rng) for _ in range(20))]]
    for data in [*damaged, *(flipped(json.dumps(rows).encode(), rng) for _ in range(10)), b"", b"[]", b"{}", b"3"]:
        path.write_bytes(data)
        found = _shown_of(path, code[2:4])
        outputs = [new_output("display_data", data=one) for one in found] if isinstance(found, list) else []
        notebook.write_text(writes(new_notebook(cells=[new_code_cell("x", outputs=outputs)])), encoding="utf-8")
        failure = found if isinstance(found, Failure) else None
        page = pages.notebook_page(Executed(notebook, notebook, {}, failure, 1.0), [], "cpu", "0")
        end = tried(lambda page=page: page.body, nothing_active, "", data)
        yield f"{end}, its page shows the numbers" if failure is None else "handled: the page says how it failed"


FAMILIES = {
    "words on pages": words_on_pages,
    "names of pages": names_of_pages,
    "words of claims": words_of_claims,
    "benchmark results": benchmark_results,
}
