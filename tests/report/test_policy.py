"""What the pages' policy holds back, shown in a real browser, and that what it lets through works."""

import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from grokcore.report import pdf
from grokcore.report.pages import Page
from grokcore.report.site import POLICY, write_site

needs_browser = pytest.mark.skipif(pdf.browser() is None, reason="no Chromium or Chrome on the PATH")
BODY = """<h1>Title</h1><p id="witness">untouched</p><p id="formula">\\(x^2\\)</p>
<details class="code"><summary>Code</summary><pre>1</pre></details>
<base href="{evil}">
<script>document.getElementById("witness").textContent = "inline script ran"</script>
<script src="{evil}/script.js"></script>
<img src="{evil}/image.png" onerror="document.getElementById('witness').textContent = 'handler ran'">
<img src="data:image/png;base64,broken" onerror="document.getElementById('witness').textContent = 'handler ran'">
<svg onload="document.getElementById('witness').textContent = 'svg ran'"><script>window.ran = 1</script></svg>
<iframe src="{evil}/frame.html"></iframe>
<iframe srcdoc="<script>parent.document.getElementById('witness').textContent = 'frame ran'</script>"></iframe>
<object data="{evil}/object.swf"></object><embed src="{evil}/embed.swf">
<video src="{evil}/video.mp4" autoplay></video><audio src="{evil}/audio.mp3" autoplay></audio>
<link rel="stylesheet" href="{evil}/style.css"><link rel="prefetch" href="{evil}/prefetch">
<style>@import url("{evil}/import.css"); p {{ background: url("{evil}/background.png") }}
@font-face {{ font-family: f; src: url("{evil}/font.woff") }} p {{ font-family: f }}</style>
<form action="{evil}/form" id="form"><button autofocus>send</button></form>
<a href="javascript:document.getElementById('witness').textContent = 'link ran'" id="link">x</a>"""
# A page without a policy, whose own script does what a reader might: it presses everything.
PRESS = """<script>addEventListener("load", () => {
  document.getElementById("link").click(); document.getElementById("form").requestSubmit(); })</script>"""


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine that answers everything, and the paths that were requested from it."""
    paths: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            paths.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=http_server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http_server.server_port}", paths
    finally:
        http_server.shutdown()
        thread.join()
        http_server.server_close()


def opened(page: Path, folder: Path) -> str:
    """Return the document that a browser has made of a page once its scripts have run."""
    program = pdf.browser()
    assert program is not None
    flags = [flag for flag in pdf.FLAGS if "pdf" not in flag and "time" not in flag]
    profile = [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", "--disable-extensions"]
    command = [program, *flags, *profile, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def site(folder: Path, evil: str) -> Path:
    """Write a site of one page by the real templates, its body hostile and not sanitised, and return its page."""
    write_site([Page("index", "Title", BODY.format(evil=evil))], folder, pdf=False)
    return folder / "index.html"


@needs_browser
def test_nothing_of_a_hostile_page_runs_or_loads_and_its_own_script_does(
    tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    evil, requested = server
    text = opened(site(tmp_path, evil), tmp_path)
    assert '<p id="witness">untouched</p>' in text and not requested
    assert re.search(r'<button[^>]*id="show-code"[^>]*aria-pressed="false"[^>]*>Show all code</button>', text)
    assert "<mjx-container" in text.split('id="formula"')[1][:200], "MathJax has not typeset the formula"


@needs_browser
def test_the_same_page_without_a_policy_would_do_harm(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    """The body above is hostile indeed: where the policy is taken out, its scripts run and its requests are made."""
    evil, requested = server
    page = site(tmp_path, evil)
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8")
    assert re.search(r'<p id="witness">\w+ (script )?ran', opened(page, tmp_path))
    assert {"/script.js", "/image.png", "/frame.html", "/import.css"} <= set(requested)


@needs_browser
def test_no_form_is_sent_and_no_base_moves_the_links(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    """A script of the page's own, as a hole in the policy would let in, can press a button but send nothing."""
    evil, requested = server
    page = site(tmp_path, evil)
    own = tmp_path / "assets" / "report.js"
    protocol = "new URL('x', document.baseURI).protocol"
    press = PRESS.removeprefix("<script>").removesuffix("</script>")
    own.write_text(f"{press}\naddEventListener('load', () => document.body.append({protocol}, ' base'));")
    text = opened(page, tmp_path)
    assert "file: base" in text and '<p id="witness">untouched</p>' in text and not requested


def test_the_policy_begins_with_nothing_and_names_what_that_does_not_cover() -> None:
    rules = {rule.split()[0]: rule.split(None, 1)[1] for rule in POLICY.split("; ")}
    assert rules["default-src"] == "'none'" and rules["base-uri"] == "'none'" and rules["form-action"] == "'none'"
    assert "unsafe" not in rules["script-src"] and "data:" not in rules["script-src"]
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "font-src", "base-uri", "form-action"}
