"""What curves and weights show, one row a run: `gc.analysis`. Its public names are listed in `__init__.pyi`."""

from grokcore.spec.public_names import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
