"""The names of operations and optimizers in figures, tables and messages."""

from __future__ import annotations

OPTIMIZER_NAME = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD", "rmsprop": "RMSprop"}
OPERATION_NAME = {
    "s5:xy": "x·y in S₅",
    "s5:xyx^-1": "x·y·x⁻¹ in S₅",
    "s5:xyx": "x·y·x in S₅",
    "x*y+y*y": "x·y + y·y",
}


def operation_name(operation: str) -> str:
    """Return the name of an operation in figures.

    Example:
        >>> operation_name("x*y"), operation_name("s5:xy")
        ('x·y', 'x·y in S₅')
    """
    return OPERATION_NAME.get(operation) or operation.replace("*", "·")


def optimizer_name(optimizer: str, weight_decay: float) -> str:
    """Return the name of an optimizer in figures, with its weight decay.

    Example:
        >>> optimizer_name("adamw", 1.0), optimizer_name("sgd", 0.0)
        ('AdamW, weight decay 1', 'SGD, no weight decay')
    """
    name = OPTIMIZER_NAME.get(optimizer, optimizer)
    return f"{name}, weight decay {weight_decay:g}" if weight_decay else f"{name}, no weight decay"
