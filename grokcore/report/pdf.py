"""The report as one PDF, printed by an installed Chromium or Chrome."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from grokcore.spec.base import GrokcoreError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HOW_TO_GET = (
    "no PDF: neither Chromium nor Chrome is on the PATH (Debian: apt install chromium fonts-noto-cjk); "
    "the HTML pages are complete without it"
)
FLAGS = (
    "--headless",
    "--no-sandbox",  # one page of our own; and as root in a container the sandbox cannot start
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=30000",
    "--no-pdf-header-footer",
    "--generate-pdf-document-outline",
)


class PdfError(GrokcoreError, RuntimeError):
    """The PDF could not be made; the message says why and what to do."""


def browser() -> str | None:
    """Return the path of the first Chromium or Chrome on the PATH, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def print_pdf(page: Path, output: Path, *, timeout: float = 120.0) -> None:
    """Print an HTML file as PDF.

    Args:
        page: The HTML file.
        output: The PDF.
        timeout: Seconds after which the browser is ended.

    Raises:
        PdfError: There is no browser on the PATH, it fails, or it takes too long; no file is left.
    """
    program = browser()
    if program is None:
        raise PdfError(HOW_TO_GET)
    with tempfile.TemporaryDirectory(prefix="grokcore-print-", ignore_cleanup_errors=True) as folder:
        profile, log = f"--user-data-dir={folder}/profile", Path(folder) / "log"
        command = [program, *FLAGS, profile, f"--print-to-pdf={output}", page.resolve().as_uri()]
        with log.open("wb") as log_file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
            )
        cause = _wait(process, timeout)
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
    if cause is None and not (output.is_file() and output.read_bytes()[:5] == b"%PDF-"):
        cause = "wrote none"
    if cause is not None:
        output.unlink(missing_ok=True)
        why = f" ({last[0]})" if last else ""
        raise PdfError(f"no PDF: {Path(program).name} {cause}{why}; the HTML pages are complete without it")


def _wait(process: subprocess.Popen[bytes], timeout: float) -> str | None:
    """Wait for a browser to end; return what went wrong, and leave no process of it behind."""
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        return f"did not end within {timeout:g} s"
    finally:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"ended with code {code}" if code else None
