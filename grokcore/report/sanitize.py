"""What a notebook may bring onto a page: prose, tables and drawings; nothing of it runs or loads."""

from __future__ import annotations

from xml.etree import ElementTree

import bleach
from bleach.css_sanitizer import CSSSanitizer

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


def harmless(text: str) -> str:
    """Return HTML of a notebook with all that is neither prose nor table, or could run or load, shown as text.

    Example:
        >>> harmless("<p>x<script>boom()</script></p>")
        '<p>x&lt;script&gt;boom()&lt;/script&gt;</p>'
    """
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
    """Return an SVG element as it is if it only draws, else a sentence that says that it is left out."""
    text = svg[max(svg.find("<svg"), 0) :]
    try:
        elements = list(ElementTree.fromstring(text).iter())
    except (ElementTree.ParseError, ValueError):
        elements = []
    attributes = [(name.rpartition("}")[2].lower(), value) for element in elements for name, value in element.items()]
    draws = {str(element.tag).rpartition("}")[2] for element in elements} <= set(DRAWING.split())
    inert = not any(
        name[:2] == "on" or (name == "href" and not value.startswith(("#", "data:image/")))
        for name, value in attributes
    )
    return text if elements and draws and inert else "<p>A figure is left out here: its SVG does more than draw.</p>"
