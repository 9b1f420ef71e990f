"""Pure measures of logits, weights and gradients; each returns one value a run, `[R]`, but for `row_losses`.

`program` takes them in every step and in every evaluation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of every example, in nats.

    Args:
        logits: `[R, N, V]`.
        labels: `[R, N]`, int64.

    Returns:
        Losses `[R, N]`.
    """
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


def batch_measures(logits: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean loss and accuracy of a padded batch.

    Args:
        logits: `[R, N, V]`.
        labels: `[R, N]`, int64.
        weight: `[R, N]`, 1/(examples that count) for these examples and 0 for padding.

    Returns:
        Loss in nats and accuracy, 0 to 1, each `[R]`. Gradients flow through the loss alone.
    """
    loss = (row_losses(logits, labels) * weight).sum(1)
    with torch.no_grad():
        accuracy = ((logits.argmax(-1) == labels) * weight).sum(1)
    return loss, accuracy


def norms(flat: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return L2 norms of vectors, whole and over a subset of their entries.

    Args:
        flat: vectors `[R, P]`.
        mask: `[P]`, 1 for entries of the subset and 0 for others, or None if there is no subset.

    Returns:
        Both norms, each `[R]`; the second is NaN without a mask.

    Example:
        >>> norms(torch.tensor([[3.0, 4.0, 12.0]]), torch.tensor([1.0, 1.0, 0.0]))
        (tensor([13.]), tensor([5.]))
    """
    whole = torch.linalg.vector_norm(flat, dim=1)
    if mask is None:
        return whole, torch.full_like(whole, torch.nan)
    return whole, torch.linalg.vector_norm(flat * mask, dim=1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine `[R]` between flat vectors a and b, each `[R, P]`."""
    return F.cosine_similarity(a, b, dim=1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean `[R]` of values `[R, N]` over the rows that the boolean mask `[R, N]` marks."""
    return torch.where(mask, values, 0).sum(1) / mask.sum(1)


def split_means(values: dict[str, Tensor], train: Tensor) -> dict[str, Tensor]:
    """Return means over the training and over the validation rows.

    Args:
        values: measures by name, each `[R, rows]`.
        train: boolean `[R, rows]`, True for training rows.

    Returns:
        `train_<name>` and `val_<name>`, each `[R]`.

    Example:
        >>> means = split_means({"loss": torch.tensor([[1.0, 2.0, 6.0]])}, torch.tensor([[True, True, False]]))
        >>> {name: value.tolist() for name, value in means.items()}
        {'train_loss': [1.5], 'val_loss': [6.0]}
    """
    masks = {"train": train, "val": ~train}
    return {
        f"{rows}_{name}": masked_mean(value, mask) for rows, mask in masks.items() for name, value in values.items()
    }
