"""grokcore: train many tiny networks at once, record what was measured, and answer claims about grokking.

Everything a notebook needs is one attribute away (`import grokcore as gc; gc.sweep([gc.msu()])`). The list of public
names is `__init__.pyi`. Each is imported when it is first used, so that a report made from records never loads torch.
"""

import sys
from importlib.metadata import PackageNotFoundError, version

from grokcore.spec.moved import MovedModules
from grokcore.spec.public_names import attach_stub

try:
    __version__ = version("grokcore")
except PackageNotFoundError:  # imported from a source tree that is not installed
    __version__ = "0.1.0"

sys.meta_path.append(MovedModules)  # asked last: `import grokcore.cluster` fails with the name of the new module
__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
