"""The options of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows, and how it is made.

    Attributes:
        notebooks: Names or paths of notebooks (default: all of the repository). If none is named, those whose runs are
            missing are left out, and the front page says so.
        scale: The plan whose runs it shows, "cpu" or "full", or "smoke", the small scale of the notebooks' own
            defaults.
        settings: Parameters that replace those of the scale, in every notebook.
        device: Where missing runs are trained: "auto" (a GPU if there is one), "cpu" or "cuda".
        jobs: How many notebooks, or runs on a CPU, go at once (default: one a core).
        train: Whether missing runs may be trained.
        fresh: Whether all runs are trained anew, in a store beside the records.
        out: The folder that the report goes to (default: `reports/` for the published report, `drafts/` for others).
        kernel: The Jupyter kernel that executes the notebooks.
    """

    notebooks: Sequence[str | Path] | None = None
    scale: str = "cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    jobs: int | None = None
    train: bool = False
    fresh: bool = False
    out: Path | None = None
    kernel: str = "python3"
