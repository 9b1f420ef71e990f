"""Pages of the site: executed notebooks as HTML bodies, what stands around them, and all of them as one
printed book."""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote
from xml.etree import ElementTree

import bleach
import jinja2
from bleach.css_sanitizer import CSSSanitizer
from nbconvert import HTMLExporter

from grokcore.report.execute import Executed
from grokcore.report.plan import read
from grokcore.spec.run import RunSpec

TEMPLATES = Path(__file__).parent / "templates"
BOOK = "book.html"  # all pages as one, to be printed
# Nothing is loaded but what lies beside the page; `file:` lets the same pages be opened from a folder.
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file: 'unsafe-inline'; "
    "img-src 'self' file: data:; font-src data:; base-uri 'none'; form-action 'none'"
)
# What the prose and the tables of a notebook may be made of; anything else of theirs is shown as the text it is.
TAGS = """
    a abbr b blockquote br caption cite code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4
    h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strong style sub summary sup table tbody td tfoot th
    thead tr u ul var
"""
ATTRIBUTES = """
    alt border class colspan dir height id lang open rowspan scope scoped start style title type valign width
"""
DRAWING = """
    circle clipPath defs desc ellipse g image line linearGradient marker path pattern polygon polyline
    radialGradient rect stop svg symbol text title tspan use
"""


@dataclass(frozen=True)
class Heading:
    """One line of a page's contents."""

    level: int
    anchor: str
    text: str


@dataclass(frozen=True)
class Page:
    """One page of the site: `name`.html, its title in the navigation, its body and the colophon under it,
    both HTML."""

    name: str
    title: str
    body: str
    colophon: str = ""

    @property
    def contents(self) -> list[Heading]:
        """Its headings of the second and third level."""
        found = re.findall(r'<h([23])[^>]*?\bid="([^"]+)"[^>]*>(.*?)</h\1>', self.body, flags=re.S)
        return [Heading(int(level), anchor, _plain(text)) for level, anchor, text in found]

    @property
    def has_code(self) -> bool:
        """Whether it has code to show."""
        return '<details class="code">' in self.body


def _plain(text: str) -> str:
    text = re.sub(r'<a class="anchor-link".*?</a>', "", text, flags=re.S)
    return html.unescape(re.sub(r"<[^>]+>", "", text)).strip()


@cache
def templates() -> jinja2.Environment:
    """Return the environment of the site's own templates, everything escaped unless marked safe."""
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


def harmless(text: str) -> str:
    """Return HTML of a notebook with all that is neither prose nor table, or could run or load, shown as text."""
    css = CSSSanitizer()
    kinds = {"http", "https", "mailto", "data"}
    return bleach.clean(text, tags=TAGS.split(), attributes=_allowed, protocols=kinds, css_sanitizer=css)


def _allowed(tag: str, name: str, value: str) -> bool:
    if name in ("href", "src"):
        return (tag, name) in (("a", "href"), ("img", "src")) and (value.strip()[:5].lower() == "data:") == (
            tag == "img"
        )
    return name in ATTRIBUTES.split() or name.startswith("aria-")


def drawing(svg: str) -> str:
    """Return an SVG element as it is if it only draws, else nothing but a sentence that says it is left out."""
    text = svg[max(svg.find("<svg"), 0) :]
    try:
        elements = list(ElementTree.fromstring(text).iter())
    except (ElementTree.ParseError, ValueError):
        elements = []
    names = [(name.rpartition("}")[2].lower(), value) for element in elements for name, value in element.items()]
    draws = {str(element.tag).rpartition("}")[2] for element in elements} <= set(DRAWING.split())
    inert = not any(
        name[:2] == "on" or (name == "href" and not value.startswith(("#", "data:image/"))) for name, value in names
    )
    return text if elements and draws and inert else "<p>A figure is left out here: its SVG does more than draw.</p>"


def title(notebook: Path) -> str:
    """Return a notebook's first heading of the first level, else its file name."""
    for cell in read(notebook).cells:
        match = re.search(r"^#\s+(.+?)\s*$", cell.source, flags=re.M) if cell.cell_type == "markdown" else None
        if match:
            return re.sub(r"`([^`]*)`|\*+([^*`]+)\*+", lambda m: m[1] or m[2], match.group(1))
    return notebook.stem


def notebook_page(executed: Executed, specs: Sequence[RunSpec], scale: str, version: str) -> Page:
    """Return the page of an executed notebook, or the one that says how it failed."""
    name, heading = executed.source.stem, title(executed.source)
    colophon = templates().get_template("colophon.html.j2")
    told = colophon.render(
        notebook=executed.source.name,
        scale=scale,
        seconds=executed.seconds,
        parameters=[f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in executed.parameters.items()],
        runs=[spec.id for spec in specs],
        version=version,
    )
    if executed.failure is not None:
        body = templates().get_template("failed.html.j2").render(title=heading, failure=executed.failure)
    else:
        body = _anchored(_exporter().from_notebook_node(read(executed.output))[0])
    return Page(name, heading, body, told)


def _anchored(body: str) -> str:
    """Give the first table cell that holds nothing but a claim's id that id, so that the front page can lead there."""
    seen: set[str] = set()

    def anchor(match: re.Match[str]) -> str:
        name = match.group(1)
        where = "" if name in seen or f'id="{name}"' in body else f' id="{name}"'
        seen.add(name)
        return f'<td class="claim-id"{where}>{name}</td>'

    return re.sub(r"<td>([a-z]+-\d+)</td>", anchor, body)


def linked(pages: Sequence[Page]) -> list[Page]:
    """Return the pages with links to notebooks turned into links to their pages (to none where there is no
    such page)."""
    names = {page.name for page in pages}

    def link(match: re.Match[str]) -> str:
        name, fragment = Path(unquote(html.unescape(match.group(1)))).stem, match.group(2) or ""
        return f'href="{quote(name)}.html{fragment}"' if name in names else 'class="absent"'

    pattern = re.compile(r'\bhref="(?!\w+:)([^"#]+\.ipynb)(#[^"]*)?"')
    return [replace(page, body=pattern.sub(link, page.body)) for page in pages]


def write(pages: Sequence[Page], folder: Path, *, pdf: bool) -> None:
    """Write the site to `folder`: every page with its navigation, and the assets that they share."""
    template = templates().get_template("page.html.j2")
    for i, page in enumerate(pages):
        before, after = pages[i - 1] if i else None, pages[i + 1] if i + 1 < len(pages) else None
        text = template.render(page=page, pages=pages, before=before, after=after, pdf=pdf, policy=POLICY)
        (folder / f"{page.name}.html").write_text(text, encoding="utf-8")
    shutil.copytree(TEMPLATES / "assets", folder / "assets", dirs_exist_ok=True)


def write_book(pages: Sequence[Page], folder: Path) -> str:
    """Write all pages as one, `BOOK`, to be printed, and return its SHA-256; links between them stay within it."""
    names = {page.name for page in pages}
    bound = [replace(page, body=_bind(page, page.body, names)) for page in pages]
    text = templates().get_template("print.html.j2").render(pages=bound, policy=POLICY)
    (folder / BOOK).write_text(text, encoding="utf-8")
    shutil.copytree(TEMPLATES / "assets", folder / "assets", dirs_exist_ok=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _bind(page: Page, body: str, names: set[str]) -> str:
    def link(match: re.Match[str]) -> str:
        name, fragment = match.groups()
        target = f"{name}--{fragment[1:]}" if fragment else f"page-{name}"
        return f'href="#{target}"' if unquote(name) in names else match.group(0)

    body = re.sub(r'(\bid="|\bhref="#|url\(#)', lambda match: f"{match[1]}{quote(page.name)}--", body)
    return re.sub(r'\bhref="([^":#/]+)\.html(#[^"]*)?"', link, body)
