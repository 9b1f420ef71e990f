"""grokcore: train many tiny networks at once, record what was measured, and answer claims about grokking.

Everything a notebook needs is one attribute away (`import grokcore as gc; gc.sweep([gc.msu()])`). The list of public
names is `__init__.pyi`. Each is imported when it is first used, so that a report made from records never loads torch.
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import lazy_loader

from grokcore.spec.moved import MovedModules, no_such_name

try:
    __version__ = version("grokcore")
except PackageNotFoundError:  # imported from a source tree that is not installed
    __version__ = "0.1.0"

sys.meta_path.append(MovedModules)  # asked last: `import grokcore.cluster` fails with the name of the new module
_lazy_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used; raises AttributeError with the nearest name for any other."""
    if name in __all__ or name.startswith("_"):
        return _lazy_attribute(name)
    raise AttributeError(no_such_name(name, __all__))
