"""YAML files read as plain values: no tag makes an object, no key stands twice, no alias makes a small file large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from grokcore.spec.base import GrokcoreError

MOST_VALUES = 100_000  # of a file, every alias counted as what it stands for
DEEPEST = 50  # lists and mappings within one another; far more make libyaml's composer end the process
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the loader in C, where there is one, is ten times faster


class YamlError(GrokcoreError, ValueError):
    """A file that is not YAML or not plain values; the message names the file and says what is wrong."""


class _Loader(_Base):
    """PyYAML's safe loader, but two equal keys are an error; PyYAML takes the last one silently."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for tag, name in keys:
            if keys.count((tag, name)) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read(path: Path) -> Any:
    """Return the content of a YAML file.

    Args:
        path: The file.

    Returns:
        Lists, mappings and scalars.

    Raises:
        YamlError: If it cannot be read, is not UTF-8 or not YAML, has tags of Python's or the same key twice, is nested
            deeper than `DEEPEST`, or stands for more than `MOST_VALUES` values by its aliases.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _check_depth(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _size(node, {}) > MOST_VALUES:
                raise YamlError(f"it stands for more than {MOST_VALUES} values: write them without aliases (*name)")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise YamlError(f"{path}: it is nested too deeply, or an alias stands within what it names") from None
    except Exception as error:  # a wrong tag or date makes PyYAML raise nearly anything
        message = str(error) or type(error).__name__
        raise YamlError(f"{path}: {message if len(message) < 500 else f'{message[:500]} …'}") from None


def _check_depth(text: str) -> None:
    """Raise YamlError for a text that is nested too deeply."""
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise YamlError(f"lists and mappings stand more than {DEEPEST} deep within one another: write them flat")


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many values a node stands for (too many if it stands within itself); `sizes` holds those counted."""
    if id(node) not in sizes:
        sizes[id(node)] = MOST_VALUES + 1  # what it counts as within itself
        children: list[Any] = node.value if isinstance(node, yaml.CollectionNode) else []
        nodes = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in nodes)
    return sizes[id(node)]
