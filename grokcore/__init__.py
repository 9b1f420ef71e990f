"""grokcore: train many tiny networks at once, record what was measured, and answer claims about grokking.

Everything a notebook needs is one attribute away (`import grokcore as gc; gc.sweep([gc.msu()])`); modules load when
first used, so that a report made from records never loads torch.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("grokcore")
except PackageNotFoundError:  # imported from a source tree that is not installed
    __version__ = "0.1.0"

_HOME = {
    **dict.fromkeys(
        ("GrokformerConfig", "PeriodicConfig", "DecoderConfig", "EncoderConfig", "MLPConfig", "LSTMConfig"),
        "architectures",
    ),
    **dict.fromkeys(("Task", "SGD", "RMSprop", "Adam", "AdamW", "SpecError"), "parts"),
    **dict.fromkeys(("RunSpec", "msu", "periodic", "power", "pku", "pku_sum", "replace", "grid"), "spec"),
    **dict.fromkeys(("operation_from",), "tasks"),
    **dict.fromkeys(("user_model",), "models"),
    **dict.fromkeys(("Store", "RecordError"), "store"),
    **dict.fromkeys(("missing", "estimate", "MissingRuns"), "sweep"),
    **dict.fromkeys(("summary",), "analysis"),
}
# Bound at once: the function would otherwise give way to the module of its name when that is first imported.
from grokcore.sweep import sweep as sweep  # noqa: E402

_MODULES = ("analysis", "claims", "measures", "plots", "stats")


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"grokcore.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"grokcore.{name}")
    raise AttributeError(f"grokcore has no {name!r}; it has {', '.join([*_HOME, *_MODULES])}")
