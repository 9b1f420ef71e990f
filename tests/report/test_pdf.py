"""The PDF, with browsers made for the test, and with a real one where there is one."""

import shutil
import time
from pathlib import Path

import pytest

from grokcore.report import pdf

PAGE = "<!DOCTYPE html><meta charset='utf-8'><title>t</title><h1>Исследование 模加法</h1>"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page to print."""
    path = tmp_path / "page.html"
    path.write_text(PAGE, encoding="utf-8")
    return path


def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, name: str = "google-chrome") -> None:
    """Put a browser on the PATH, alone, that does what the script says; $out is where the PDF should go."""
    folder = tmp_path / "bin"
    folder.mkdir()
    find = 'for a in "$@"; do case "$a" in --print-to-pdf=*) out="${a#--print-to-pdf=}";; esac; done'
    (folder / name).write_text(f"#!/bin/sh\n{find}\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_a_missing_browser_is_named_with_how_to_get_one(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(page.parent))
    with pytest.raises(
        pdf.PdfError, match=r"neither Chromium nor Chrome is on the PATH \(Debian: apt install chromium"
    ):
        pdf.print_pdf(page, page.parent / "out.pdf")


@pytest.mark.parametrize("name", pdf.BROWSERS)
def test_each_browser_is_found_and_gets_page_and_output(
    tmp_path: Path, page: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    browser(tmp_path, monkeypatch, f'echo "%PDF-1.4 $*" > "$out"\necho "{name}" >> "$out"', name)
    pdf.print_pdf(page, tmp_path / "out.pdf")
    text = (tmp_path / "out.pdf").read_text()
    assert text.endswith(f"{page.as_uri()}\n{name}\n") and "--headless" in text


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("echo the disk is full >&2; exit 3", r"google-chrome ended with code 3 \(the disk is full\)"),
        ("exit 0", "google-chrome wrote none"),
        ('echo "<html>" > "$out"', "google-chrome wrote none"),
        ('echo "%PDF-1.4 half" > "$out"; exit 1', "ended with code 1"),
    ],
)
def test_browser_that_fails_leaves_no_file_and_says_why(
    tmp_path: Path, page: Path, monkeypatch: pytest.MonkeyPatch, script: str, cause: str
) -> None:
    browser(tmp_path, monkeypatch, script)
    with pytest.raises(pdf.PdfError, match=f"no PDF: .*{cause}.*HTML pages are complete"):
        pdf.print_pdf(page, tmp_path / "out.pdf")
    assert not (tmp_path / "out.pdf").exists()


def test_browser_that_hangs_is_ended_with_its_children(
    tmp_path: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = shutil.which("sleep")
    browser(tmp_path, monkeypatch, f"{sleep} 300 & {sleep} 300")
    start = time.monotonic()
    with pytest.raises(pdf.PdfError, match="did not end within 0.5 s"):
        pdf.print_pdf(page, tmp_path / "out.pdf", timeout=0.5)
    assert time.monotonic() - start < 60  # on a busy machine too


@pytest.mark.skipif(pdf.browser() is None, reason="no Chromium or Chrome on the PATH")
def test_real_browser_prints(tmp_path: Path, page: Path) -> None:
    pdf.print_pdf(page, tmp_path / "out.pdf")
    data = (tmp_path / "out.pdf").read_bytes()
    assert data[:5] == b"%PDF-" and data.rstrip().endswith(b"%%EOF") and b"/FontFile" in data
