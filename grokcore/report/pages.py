"""Pages of the site: executed notebooks as HTML bodies, with their titles, contents and links."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote

import jinja2
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from grokcore.report.execute import Executed
from grokcore.report.notebook_files import read
from grokcore.report.sanitize import drawing, harmless
from grokcore.spec.run import RunSpec

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Heading:
    """One line of a page's contents."""

    level: int
    anchor: str
    text: str


@dataclass(frozen=True)
class Page:
    """One page of the site.

    Attributes:
        name: Its file is `name`.html.
        title: Its title in the navigation.
        body: What it shows, as HTML.
        colophon: How it was made, as HTML, shown under the body.
    """

    name: str
    title: str
    body: str
    colophon: str = ""

    @property
    def contents(self) -> list[Heading]:
        """Its headings of the second and third level."""
        headings = re.findall(r'<h([23])[^>]*?\bid="([^"]+)"[^>]*>(.*?)</h\1>', self.body, flags=re.S)
        return [Heading(int(level), anchor, _plain(text)) for level, anchor, text in headings]

    @property
    def has_code(self) -> bool:
        """Whether it has code to show."""
        return '<details class="code">' in self.body


def _plain(text: str) -> str:
    text = re.sub(r'<a class="anchor-link".*?</a>', "", text, flags=re.S)
    return html.unescape(re.sub(r"<[^>]+>", "", text)).strip()


@cache
def templates() -> jinja2.Environment:
    """Return the environment of the site's own templates; everything is escaped unless it is marked safe."""
    loader = jinja2.FileSystemLoader(TEMPLATES / "site")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False)


@cache
def _exporter() -> HTMLExporter:
    exporter = HTMLExporter(
        template_name="report",
        extra_template_basedirs=[str(TEMPLATES)],
        embed_images=True,
        anchor_link_text="#",
    )
    exporter.register_filter("harmless", harmless)
    exporter.register_filter("drawing", drawing)
    return exporter


def title(notebook: Path) -> str:
    """Return a notebook's first heading of the first level, else its file name."""
    for cell in read(notebook).cells:
        match = re.search(r"^#\s+(.+?)\s*$", cell.source, flags=re.M) if cell.cell_type == "markdown" else None
        if match:
            return re.sub(r"`([^`]*)`|\*+([^*`]+)\*+", lambda m: m[1] or m[2], match.group(1))
    return notebook.stem


def notebook_body(notebook: NotebookNode) -> str:
    """Return what an executed notebook shows, as HTML in which nothing runs or loads."""
    return _exporter().from_notebook_node(notebook)[0]


def notebook_page(executed: Executed, specs: Sequence[RunSpec], scale: str, version: str) -> Page:
    """Return the page of an executed notebook, or the one that says how it failed.

    Args:
        executed: The notebook after its execution.
        specs: The runs that it needs.
        scale: "cpu", "full" or "smoke".
        version: The version of grokcore.
    """
    heading = title(executed.source)
    colophon = (
        templates()
        .get_template("colophon.html.j2")
        .render(
            notebook=executed.source.name,
            scale=scale,
            seconds=executed.seconds,
            parameters=[
                f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in executed.parameters.items()
            ],
            runs=[spec.id for spec in specs],
            version=version,
        )
    )
    if executed.failure is not None:
        body = templates().get_template("failed.html.j2").render(title=heading, failure=executed.failure)
    else:
        body = _with_anchors(notebook_body(read(executed.output)))
    return Page(executed.source.stem, heading, body, colophon)


def _with_anchors(body: str) -> str:
    """Give the first table cell that holds nothing but a claim's id that id, so that the front page can lead there."""
    seen: set[str] = set()

    def anchor(match: re.Match[str]) -> str:
        claim = match.group(1)
        attribute = "" if claim in seen or f'id="{claim}"' in body else f' id="{claim}"'
        seen.add(claim)
        return f'<td class="claim-id"{attribute}>{claim}</td>'

    return re.sub(r"<td>([a-z]+-\d+)</td>", anchor, body)


def linked(pages: Sequence[Page]) -> list[Page]:
    """Return pages whose links to notebooks lead to the pages of these, or nowhere where there is no such page.

    Args:
        pages: All pages of the site.
    """
    names = {page.name for page in pages}

    def link(match: re.Match[str]) -> str:
        name, fragment = Path(unquote(html.unescape(match.group(1)))).stem, match.group(2) or ""
        return f'href="{quote(name)}.html{fragment}"' if name in names else 'class="absent"'

    pattern = re.compile(r'\bhref="(?!\w+:)([^"#]+\.ipynb)(#[^"]*)?"')
    return [replace(page, body=pattern.sub(link, page.body)) for page in pages]
