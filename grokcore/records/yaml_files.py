"""YAML files read as plain values: no tag makes an object, no key stands twice, no alias makes a small file large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from grokcore.spec.base import GrokcoreError

MOST_VALUES = 100_000  # of a file, every alias counted as what it stands for
DEEPEST = 50  # lists and mappings within one another; far more make libyaml's composer end the process
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where it is there: ten times faster


class YamlError(GrokcoreError, ValueError):
    """A file that is not YAML or not plain values; the message names the file and says what is wrong."""


class _Loader(_Base):
    """PyYAML's safe loader, which takes the last of two equal keys without a word, without that."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for tag, name in keys:
            if keys.count((tag, name)) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read(path: Path) -> Any:
    """Return the content of a YAML file as lists, mappings and scalars.

    Raises YamlError if it cannot be read, is not UTF-8 or not YAML, has tags of Python's or the same key twice, is
    nested deeper than `DEEPEST`, or stands for more than `MOST_VALUES` values by its aliases.
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
        said = str(error) or type(error).__name__
        raise YamlError(f"{path}: {said if len(said) < 500 else f'{said[:500]} …'}") from None


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise YamlError(f"lists and mappings stand more than {DEEPEST} deep within one another: write them flat")


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node stands for (too many if it stands within itself)."""
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # what it counts as within itself
        children: list[Any] = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]
