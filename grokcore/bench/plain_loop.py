"""What the benchmark compares with: the training loop that the source `msu` describes, written plainly.

It trains one run at a time on shuffled mini-batches, fetches loss and accuracy at every step, and evaluates the whole
validation set after every epoch, in batches of 512 rows or of the training's batch size, whichever is larger. The
network of `msu` is torch's own `TransformerEncoder`. The other networks are the package's modules, which compute every
position for every example.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grokcore.engine import batches
from grokcore.nn.build import build_network
from grokcore.spec import tables
from grokcore.spec.networks import GrokformerConfig
from grokcore.spec.optimizers import SGD, AdamW
from grokcore.spec.run import RunSpec


class PlainGrokformer(nn.Module):
    """The network of `decoders.Grokformer`, built of torch's own layers."""

    def __init__(self, config: GrokformerConfig, p: int, n_operands: int) -> None:
        super().__init__()
        self.n_tokens = p + 2
        self.embedding = nn.Embedding(self.n_tokens + n_operands, config.d_model)
        layer = nn.TransformerEncoderLayer(
            config.d_model, config.n_heads, config.d_mlp, dropout=0.0, activation="relu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, config.n_layers)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(n_operands))
        self.register_buffer("positions", torch.arange(self.n_tokens, self.n_tokens + n_operands))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens `[N, T]` to logits `[N, p + 2]`."""
        x = self.embedding(tokens) + self.embedding(self.positions)
        return self.encoder(x, mask=self.mask, is_causal=True)[:, -1] @ self.embedding.weight[: self.n_tokens].T


def plain_model(spec: RunSpec) -> nn.Module:
    """Return the network of a run as the reference has it, newly initialised."""
    if isinstance(spec.model, GrokformerConfig):
        return PlainGrokformer(spec.model, spec.task.p, spec.task.n_operands)
    return build_network(spec)


def plain_optimizer(spec: RunSpec, model: nn.Module) -> torch.optim.Optimizer:
    """Return torch's own optimizer with the run's hyperparameters.

    Raises:
        ValueError: the run clips gradients or adds noise to its weights, or its optimizer is neither AdamW nor SGD.
    """
    if spec.clip_grad_norm or spec.weight_noise:
        raise ValueError(
            "the reference neither clips gradients nor adds noise: leave out clip_grad_norm and weight_noise"
        )
    h = spec.optimizer
    if isinstance(h, AdamW):
        return torch.optim.AdamW(model.parameters(), lr=h.lr, betas=h.betas, eps=h.eps, weight_decay=h.weight_decay)
    if isinstance(h, SGD):
        return torch.optim.SGD(model.parameters(), lr=h.lr, momentum=h.momentum, weight_decay=h.weight_decay)
    raise ValueError(f"the reference has no {h.name!r}; it has adamw and sgd")


def train_plainly(spec: RunSpec, device: str = "cpu") -> Iterator[dict[str, float]]:
    """Train one run, and yield after every step what was measured.

    Args:
        spec: the run. Its seed decides the split; batches, and the weights of `PlainGrokformer`, come from torch's
            global generator.
        device: where it is trained.

    Yields:
        `loss` (mean cross-entropy in nats) and `accuracy` of the mini-batch, after the last step of an epoch also
        `val_loss` and `val_accuracy` of the validation set.

    Raises:
        ValueError: as `plain_optimizer`.
    """
    tokens, labels = (torch.from_numpy(array).to(device) for array in tables.table(spec.task))
    train, validation = (torch.from_numpy(rows).to(device) for rows in batches.split(spec))
    model = plain_model(spec).to(device)
    optimizer = plain_optimizer(spec, model)
    warmup = spec.optimizer.warmup
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / warmup, 1.0) if warmup else 1.0)
    step = 0
    while step < spec.steps:
        model.train()
        measured: dict[str, float] = {}
        for rows in train[torch.randperm(len(train), device=device)].split(spec.batch_size):
            if measured:
                yield measured
            optimizer.zero_grad()
            logits = model(tokens[rows])
            loss = F.cross_entropy(logits, labels[rows])
            loss.backward()
            optimizer.step()
            schedule.step()
            accuracy = (logits.argmax(-1) == labels[rows]).float().mean()
            measured = {"loss": loss.item(), "accuracy": accuracy.item()}
            step += 1
            if step == spec.steps:
                break
        yield measured | evaluate_plainly(model, tokens, labels, validation, max(512, spec.batch_size))


@torch.no_grad()
def evaluate_plainly(model: nn.Module, tokens: Tensor, labels: Tensor, rows: Tensor, size: int) -> dict[str, float]:
    """Return mean loss and accuracy over some rows of the table.

    Args:
        model: maps tokens `[N, T]` to logits `[N, V]`.
        tokens: the table `[n_rows, T]`.
        labels: its labels `[n_rows]`.
        rows: which rows count, `[N]`.
        size: rows of a batch.

    Returns:
        `val_loss` in nats and `val_accuracy` between 0 and 1.
    """
    model.eval()
    loss, n_correct = 0.0, 0.0
    for batch in rows.split(size):
        logits = model(tokens[batch])
        loss += F.cross_entropy(logits, labels[batch], reduction="sum").item()
        n_correct += (logits.argmax(-1) == labels[batch]).sum().item()
    return {"val_loss": loss / len(rows), "val_accuracy": n_correct / len(rows)}
