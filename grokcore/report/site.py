"""The files of the site: every page with its navigation, and all pages as one book to be printed."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote

from grokcore.report.pages import TEMPLATES, Page, templates

BOOK = "book.html"  # all pages as one, to be printed
# Nothing is loaded but what lies beside the page; `file:` lets the same pages be opened from a folder.
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file: 'unsafe-inline'; "
    "img-src 'self' file: data:; font-src data:; base-uri 'none'; form-action 'none'"
)


def write_site(pages: Sequence[Page], folder: Path, *, pdf: bool) -> None:
    """Write every page with its navigation, and the assets that they share.

    Args:
        pages: The pages in the order of the navigation.
        folder: Where the files go; it exists.
        pdf: Whether the pages link to the PDF of the report.
    """
    template = templates().get_template("page.html.j2")
    for i, page in enumerate(pages):
        text = template.render(
            page=page,
            pages=pages,
            before=pages[i - 1] if i else None,
            after=pages[i + 1] if i + 1 < len(pages) else None,
            pdf=pdf,
            policy=POLICY,
        )
        (folder / f"{page.name}.html").write_text(text, encoding="utf-8")
    _copy_assets(folder)


def write_book(pages: Sequence[Page], folder: Path) -> str:
    """Write all pages as one file, `BOOK`, to be printed; links between them stay within it.

    Args:
        pages: The pages in the order of the book.
        folder: Where the file and its assets go; it exists.

    Returns:
        The SHA-256 of the book.
    """
    names = {page.name for page in pages}
    bound = [replace(page, body=_bound(page, names)) for page in pages]
    text = templates().get_template("print.html.j2").render(pages=bound, policy=POLICY)
    (folder / BOOK).write_text(text, encoding="utf-8")
    _copy_assets(folder)
    return hashlib.sha256(text.encode()).hexdigest()


def _copy_assets(folder: Path) -> None:
    shutil.copytree(TEMPLATES / "assets", folder / "assets", dirs_exist_ok=True)


def _bound(page: Page, names: set[str]) -> str:
    """Return the body of a page with anchors that are unique in the book, and links that lead to them."""

    def link(match: re.Match[str]) -> str:
        name, fragment = match.groups()
        target = f"{name}--{fragment[1:]}" if fragment else f"page-{name}"
        return f'href="#{target}"' if unquote(name) in names else match.group(0)

    body = re.sub(r'(\bid="|\bhref="#|url\(#)', lambda match: f"{match[1]}{quote(page.name)}--", page.body)
    return re.sub(r'\bhref="([^":#/]+)\.html(#[^"]*)?"', link, body)
