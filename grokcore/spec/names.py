"""Operations and optimizers as readers see them in figures, tables and messages."""

from __future__ import annotations

OPTIMIZER_NAME = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD", "rmsprop": "RMSprop"}
OPERATION_NAME = {
    **{"s5:xy": "x·y in S₅", "s5:xyx^-1": "x·y·x⁻¹ in S₅", "s5:xyx": "x·y·x in S₅"},
    "x*y+y*y": "x·y + y·y",
}


def operation_name(operation: str) -> str:
    """Return the operation as it stands in a figure: `x·y` for `x*y`, `x·y in S₅` for `s5:xy`."""
    return OPERATION_NAME.get(operation) or operation.replace("*", "·")


def optimizer_name(optimizer: str, weight_decay: float) -> str:
    """Return the optimizer as it stands in a figure, with its weight decay: `AdamW, weight decay 1`."""
    name = OPTIMIZER_NAME.get(optimizer, optimizer)
    return f"{name}, weight decay {weight_decay:g}" if weight_decay else f"{name}, no weight decay"
