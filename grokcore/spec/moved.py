"""Where the modules of earlier versions are now: importing an old one fails with the name of the new one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "agreement": "grokcore.sweeps.comparison",
    "answers": "grokcore.analysis.predictions",
    "architectures": "grokcore.spec.networks",
    "arguments": "grokcore.cli.arguments",
    "audit": "grokcore.sweeps.audit",
    "backlog": "grokcore.sweeps.backlog",
    "checkpoint": "grokcore.sweeps.checkpoint and grokcore.engine.snapshot",
    "claim_cycles": "grokcore.claims.statistics.cycles",
    "claim_epochs": "grokcore.claims.statistics.epochs",
    "claim_file": "grokcore.claims.rules",
    "claim_fractions": "grokcore.claims.statistics.fractions",
    "claim_grid": "grokcore.claims.statistics.grid",
    "claim_times": "grokcore.claims.statistics.times",
    "claim_weights": "grokcore.claims.statistics.weights",
    "claim_words": "grokcore.claims.wording",
    "cluster": "grokcore.sweeps.dask",
    "decoders": "grokcore.nn.decoders and grokcore.nn.blocks",
    "execute": "grokcore.report.execute",
    "executors": "grokcore.sweeps.executors",
    "floor": "grokcore.bench.matmul_bound",
    "fourier": "grokcore.analysis.fourier",
    "front": "grokcore.report.front_page, grokcore.report.evidence and grokcore.report.front_figure",
    "grouping": "grokcore.sweeps.grouping",
    "invariance": "grokcore.analysis.invariance",
    "manifest": "grokcore.report.manifest",
    "measurements": "grokcore.records.weight_tables",
    "measures": "grokcore.engine.measures (scale_invariance: grokcore.analysis.scale_invariance)",
    "models": "grokcore.nn.build",
    "noise": "grokcore.nn.counter_rng",
    "optim": "grokcore.engine.optimizers",
    "pages": "grokcore.report.pages, grokcore.report.sanitize and grokcore.report.site",
    "parts": "grokcore.spec.base, grokcore.spec.task and grokcore.spec.optimizers",
    "pdf": "grokcore.report.pdf",
    "pku_networks": "grokcore.nn.pku",
    "plan": "grokcore.report.plan, grokcore.report.parameters and grokcore.report.notebook_files",
    "pool": "grokcore.sweeps.pool",
    "program": "grokcore.engine.program",
    "progress": "grokcore.sweeps.progress",
    "reference": "grokcore.bench.plain_loop",
    "replacing": "grokcore.records.atomic",
    "reservations": "grokcore.sweeps.locks",
    "reuse": "grokcore.report.execution_cache",
    "sources": "grokcore.report.sources",
    "stepping": "grokcore.engine.stepping",
    "store": "grokcore.records.store and grokcore.records.record",
    "style": "grokcore.plots.style, grokcore.plots.page and grokcore.spec.names",
    "sweep": "grokcore.sweeps.sweep",
    "tasks": "grokcore.spec.tables, grokcore.spec.schedule and grokcore.engine.batches",
    "terminal": "grokcore.cli.terminal",
    "timing": "grokcore.bench.timing",
    "train": "grokcore.engine.train",
    "verification": "grokcore.records.verify",
    "worker": "grokcore.sweeps.worker",
    "yaml_files": "grokcore.records.yaml_files",
}


class MovedModules:
    """A finder for the end of `sys.meta_path`, which Python asks for a module that no other finder has found."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Raise ModuleNotFoundError with the new name for a module that has moved; return None for any other."""
        package, _, module = name.partition(".")
        if package == "grokcore" and module in MOVED:
            raise ModuleNotFoundError(f"grokcore.{module} is now {MOVED[module]}")
        return None
