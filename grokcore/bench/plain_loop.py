"""What the benchmark compares with: the training loop that the source `msu` describes, written plainly.

One run at a time; shuffled mini-batches; loss and accuracy fetched at every step; the whole validation set after every
epoch, in batches of 512 or, where that is larger, of the training's. The network of `msu` is torch's own
`TransformerEncoder`; others are the package's modules, every position computed for every example.
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
    """The network of `decoders.Grokformer` out of torch's own parts."""

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
    """Return the network of a run as the reference has it, initialised anew."""
    if isinstance(spec.model, GrokformerConfig):
        return PlainGrokformer(spec.model, spec.task.p, spec.task.n_operands)
    return build_network(spec)


def plain_optimizer(spec: RunSpec, model: nn.Module) -> torch.optim.Optimizer:
    """Return torch's own optimizer with the run's rate, decay, momentum, betas. Raises ValueError if there is none."""
    if spec.clip_grad_norm or spec.weight_noise:
        raise ValueError(
            "the reference neither clips gradients nor adds noise: leave out clip_grad_norm and weight_noise"
        )
    o = spec.optimizer
    if isinstance(o, AdamW):
        return torch.optim.AdamW(model.parameters(), lr=o.lr, betas=o.betas, eps=o.eps, weight_decay=o.weight_decay)
    if isinstance(o, SGD):
        return torch.optim.SGD(model.parameters(), lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay)
    raise ValueError(f"the reference has no {o.name!r}; it has adamw and sgd")


def train_plainly(spec: RunSpec, device: str = "cpu") -> Iterator[dict[str, float]]:
    """Train one run and yield loss and accuracy after every step, with the validation set's at the end of an epoch."""
    tokens, labels = (torch.from_numpy(part).to(device) for part in tables.table(spec.task))
    train, validation = (torch.from_numpy(rows).to(device) for rows in batches.split(spec))
    model = plain_model(spec).to(device)
    optimizer = plain_optimizer(spec, model)
    warmup = spec.optimizer.warmup
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / warmup, 1.0) if warmup else 1.0)
    step = 0
    while step < spec.steps:
        model.train()
        measured = {}
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
    """Return mean loss and accuracy over the rows, in batches of `size`."""
    model.eval()
    loss, right = 0.0, 0.0
    for part in rows.split(size):
        logits = model(tokens[part])
        loss += F.cross_entropy(logits, labels[part], reduction="sum").item()
        right += (logits.argmax(-1) == labels[part]).sum().item()
    return {"val_loss": loss / len(rows), "val_accuracy": right / len(rows)}
