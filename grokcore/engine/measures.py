"""Pure measures on logits, weights and gradients; each returns one value a run, `[R]`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy in nats of every example: logits `[R, N, V]`, labels `[R, N]` → `[R, N]`."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


def batch_measures(logits: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean loss and accuracy `[R]` of a padded batch; `weight` `[R, N]` is 1/(its size), 0 for padding."""
    loss = (row_losses(logits, labels) * weight).sum(1)
    with torch.no_grad():
        accuracy = ((logits.argmax(-1) == labels) * weight).sum(1)
    return loss, accuracy


def norms(flat: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the L2 norms `[R]` of vectors `[R, P]`, whole and over the subset `mask` `[P]` marks (NaN without)."""
    whole = torch.linalg.vector_norm(flat, dim=1)
    if mask is None:
        return whole, torch.full_like(whole, torch.nan)
    return whole, torch.linalg.vector_norm(flat * mask, dim=1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine `[R]` between flat vectors `[R, P]`."""
    return F.cosine_similarity(a, b, dim=1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean `[R]` of values `[R, N]` over the rows that the boolean mask `[R, N]` marks."""
    return torch.where(mask, values, 0).sum(1) / mask.sum(1)


def split_means(values: dict[str, Tensor], train: Tensor) -> dict[str, Tensor]:
    """Return `train_<name>` and `val_<name>` `[R]`: means of values `[R, rows]` over each set, `train` marks one."""
    masks = {"train": train, "val": ~train}
    return {
        f"{part}_{name}": masked_mean(value, mask) for part, mask in masks.items() for name, value in values.items()
    }
