"""The causal networks of the sources `msu`, `periodic` and `power` as plain single-run modules.

Their `forward` takes `share`: states that depend on the first operand alone are then computed once for each token (see
`blocks`). Networks without a causal mask are in `pku`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grokcore.nn.blocks import PostNormBlock, run_causal
from grokcore.nn.counter_rng import Drop, dropout, no_dropout
from grokcore.spec.networks import DecoderConfig, GrokformerConfig, PeriodicConfig
from grokcore.spec.task import Task


class Grokformer(nn.Module):
    """The network of the source `msu`, after public code with its class name and call (Power et al. 2022, section 3).

    One table of p + 2 + T rows, drawn from N(0, 1), holds p + 2 tokens (two are never used) and T positions. The output
    at the last position times the token rows gives p + 2 logits. All blocks start as copies of the first, as
    `torch.nn.TransformerEncoder` makes them.

    Attributes:
        shares_first_token: `forward` takes `share`.
        scale_invariant: names of the weights that can be multiplied together by any C > 0 without changing the
            function; none here.
    """

    shares_first_token = True
    scale_invariant: tuple[str, ...] = ()

    def __init__(self, config: GrokformerConfig, task: Task) -> None:
        super().__init__()
        self.n_heads, self.n_tokens = config.n_heads, task.p + 2
        self.W_E = nn.Parameter(torch.randn(self.n_tokens + task.n_operands, config.d_model))
        self.blocks = nn.ModuleList(PostNormBlock(config.d_model, config.d_mlp) for _ in range(config.n_layers))
        for block in self.blocks:
            block.load_state_dict(self.blocks[0].state_dict())

    def forward(self, tokens: Tensor, share: bool = False) -> Tensor:
        """Return logits `[N, p + 2]` of tokens `[N, T]`."""
        W_E, W_pos = self.W_E[: self.n_tokens], self.W_E[self.n_tokens :]
        return run_causal(self, W_E, W_pos, tokens, n_shared=1 if share else 0) @ W_E.T


class PeriodicBlock(nn.Module):
    """A block of attention without biases and an MLP, with three LayerNorms.

    One is before each of the two (without `norm_first` after the sum), the third in the MLP after its ReLU.
    """

    def __init__(self, config: PeriodicConfig) -> None:
        super().__init__()
        d, self.norm_first = config.d_model, config.norm_first
        self.W_Q, self.W_K, self.W_V, self.W_O = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.W_in, self.W_out = nn.Linear(d, config.d_mlp), nn.Linear(config.d_mlp, d)
        self.norm_attention, self.norm_in, self.norm_mlp = (
            nn.LayerNorm(width, elementwise_affine=config.affine) if config.layernorm else nn.Identity()
            for width in (d, d, config.d_mlp)
        )
        for linear in (self.W_Q, self.W_K, self.W_V, self.W_O, self.W_in, self.W_out):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(d))
        nn.init.zeros_(self.W_in.bias)
        nn.init.zeros_(self.W_out.bias)

    def project(self, x: Tensor) -> Tensor:
        normed = self.norm_attention(x) if self.norm_first else x
        return F.linear(normed, torch.cat([self.W_Q.weight, self.W_K.weight, self.W_V.weight]))

    def finish(self, x: Tensor, mixed: Tensor, _: Drop = no_dropout) -> Tensor:  # the source has no dropout
        x = x + self.W_O(mixed)
        if self.norm_first:
            return x + self._mlp(self.norm_in(x))
        x = self.norm_attention(x)
        return self.norm_in(x + self._mlp(x))

    def _mlp(self, x: Tensor) -> Tensor:
        return self.W_out(self.norm_mlp(F.relu(self.W_in(x))))


class PeriodicTransformer(nn.Module):
    """The network of the source `periodic`: causal, with an untied output.

    Weights are drawn from N(0, 1/d_model); biases, in the MLP alone, start at zero. The source names the places of its
    LayerNorms but not their side of the sublayers; before each sublayer is our choice.

    Attributes:
        shares_first_token: `forward` takes `share`.
        scale_invariant: names of the weights that can be multiplied together by any C > 0 without changing the
            function: the MLP's first layer and, where the residual stream is always read through a LayerNorm
            (`norm_first`), all that is written into it.
    """

    shares_first_token = True

    def __init__(self, config: PeriodicConfig, task: Task) -> None:
        super().__init__()
        d, operators = config.d_model, config.operator_tokens
        self.n_heads, self.p, self.operator_tokens = config.n_heads, task.p, operators
        self.W_E = nn.Parameter(torch.randn(task.p + 2 * operators, d) / math.sqrt(d))
        self.W_pos = nn.Parameter(torch.randn(task.n_operands * (1 + operators), d) / math.sqrt(d))
        self.blocks = nn.ModuleList(PeriodicBlock(config) for _ in range(config.n_layers))
        self.norm_final = nn.LayerNorm(d, elementwise_affine=config.affine) if config.layernorm else nn.Identity()
        self.W_U = nn.Linear(d, task.p, bias=False)
        nn.init.normal_(self.W_U.weight, std=1 / math.sqrt(d))
        written = ("W_O.weight", "W_out.weight", "W_out.bias") if config.norm_first else ()
        invariant = ("W_in.weight", "W_in.bias", *written)
        names = [f"blocks.{i}.{name}" for i in range(config.n_layers) for name in invariant]
        names = ["W_E", "W_pos", *names] if config.norm_first else names
        self.scale_invariant = tuple(names) if config.layernorm else ()

    def forward(self, tokens: Tensor, share: bool = False) -> Tensor:
        """Return logits `[N, p]` of tokens `[N, T]`."""
        tokens, n_first = with_operators(tokens, self.p, self.operator_tokens)
        x = run_causal(self, self.W_E, self.W_pos, tokens, n_shared=n_first if share else 0)
        return self.W_U(self.norm_final(x))


class Decoder(nn.Module):
    """The network of the source `power`: a causal decoder over x ∘ y =, after Vaswani et al. 2017.

    LayerNorm after each sum, biases, fixed sinusoidal positions, tokens drawn from N(0, 1), and an untied output
    without bias of p + 2 logits. The states at x and ∘ depend on x alone.

    Attributes:
        shares_first_token: `forward` takes `share`.
    """

    shares_first_token = True

    def __init__(self, config: DecoderConfig, task: Task) -> None:
        super().__init__()
        d, operators = config.d_model, config.operator_tokens
        self.n_heads, self.p, self.operator_tokens, self.dropout = config.n_heads, task.p, operators, config.dropout
        self.W_E = nn.Parameter(torch.randn(task.p + 2, d))
        self.register_buffer("W_pos", sinusoids(task.n_operands * (1 + operators), d))
        self.blocks = nn.ModuleList(PostNormBlock(d, config.d_mlp) for _ in range(config.n_layers))
        self.W_U = nn.Linear(d, task.p + 2, bias=False)

    def forward(self, tokens: Tensor, share: bool = False, key: Tensor | None = None) -> Tensor:
        """Return logits `[N, p + 2]` of tokens `[N, T]`.

        With a `key` (scalar int64, see `counter_rng`) dropout is applied as in `torch.nn.TransformerEncoderLayer`: to
        the attention weights, the output of attention, the hidden layer of the MLP and its output.
        """
        tokens, n_first = with_operators(tokens, self.p, self.operator_tokens)
        drop, W_pos = dropout(key, self.dropout), self.get_buffer("W_pos")
        return self.W_U(run_causal(self, self.W_E, W_pos, tokens, n_first if share else 0, drop))


def sinusoids(n: int, d: int) -> Tensor:
    """Return the position vectors `[n, d]` of Vaswani et al. 2017, 3.5: sines at even indices, cosines at odd ones."""
    angles = torch.arange(n, dtype=torch.float64)[:, None] / 10_000 ** (torch.arange(0, d, 2, dtype=torch.float64) / d)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def with_operators(tokens: Tensor, p: int, operator_tokens: bool) -> tuple[Tensor, int]:
    """Return what a network reads, and the number of its first positions that depend on the first operand alone.

    Args:
        tokens: operands x y …, `[N, T]`.
        p: token of ∘; = is p + 1.
        operator_tokens: whether the network reads x ∘ y … =, `[N, 2T]`, in place of the operands.
    """
    if not operator_tokens:
        return tokens, 1
    marks = torch.full_like(tokens, p)
    marks[:, -1] = p + 1
    return torch.stack([tokens, marks], dim=2).flatten(1), 2
