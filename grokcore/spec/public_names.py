"""The public names of a package: listed in its `__init__.pyi`, and imported when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lazy_loader

from grokcore.spec.moved import MOVED


def attach_stub(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package.

    They are those of `lazy_loader.attach_stub`, but an unknown name is answered with the nearest public one.

    Args:
        package: the package's `__name__`.
        file: the package's `__file__`, beside which the list of names stands as `__init__.pyi`.
    """
    import_name, list_names, names = lazy_loader.attach_stub(package, file)

    def attribute(name: str) -> Any:
        if name in names or name.startswith("_"):
            return import_name(name)
        raise AttributeError(unknown_name_message(package, name, names))

    return attribute, list_names, names


def unknown_name_message(package: str, name: str, names: Iterable[str]) -> str:
    """Return the message for a name that a package does not have: where it is now, or the nearest public name."""
    if package == "grokcore" and name in MOVED:
        return f"grokcore.{name} is now {MOVED[name]}"
    from grokcore.spec.base import suggestion  # which loads pydantic: not each time grokcore is imported

    return f"{package} has no {name!r}; {suggestion(name, names)}"
