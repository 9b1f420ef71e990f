"""The causal networks of the sources `msu`, `periodic` and `power` as plain single-run modules.

First-token sharing: in an operation table there are only p different first tokens, and under a causal mask the states
at the positions before the second operand depend on nothing else. With `share=True` they are computed once a token, not
once an example, and the first block's projections once a token at every position: the same function, in about half the
arithmetic.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grokcore.nn.counter_rng import Drop, dropout, keep
from grokcore.spec.networks import DecoderConfig, GrokformerConfig, PeriodicConfig
from grokcore.spec.task import Task


def attention(q: Tensor, k: Tensor, v: Tensor, n_heads: int, causal: bool = True, drop: Drop = keep) -> Tensor:
    """Attend from the last S of T positions: q `[N, S, D]`, k and v `[N, T, D]` → `[N, S, D]`."""
    (n, s, d), t = q.shape, k.shape[1]
    q, k, v = (x.reshape(n, -1, n_heads, d // n_heads) for x in (q, k, v))
    scores = (q[:, :, None] * k[:, None]).sum(-1) / math.sqrt(d // n_heads)  # [N, S, T, H]
    if causal and s > 1:
        future = torch.ones(s, t, dtype=torch.bool, device=q.device).triu(t - s + 1)
        scores = scores.masked_fill(future[:, :, None], -math.inf)
    return (drop(scores.softmax(dim=2))[..., None] * v[:, None]).sum(2).reshape(n, s, d)


def with_operators(tokens: Tensor, p: int, shown: bool) -> tuple[Tensor, int]:
    """Return tokens `[N, T]` x y … as x ∘ y … =, `[N, 2T]`, where ∘ is token p and = token p + 1, or as they are if
    these are not `shown`; and how many positions depend on x alone.
    """
    if not shown:
        return tokens, 1
    marks = torch.full_like(tokens, p)
    marks[:, -1] = p + 1
    return torch.stack([tokens, marks], dim=2).flatten(1), 2


def run_blocks(blocks: Any, x: Tensor, n_heads: int, causal: bool = True, drop: Drop = keep) -> Tensor:
    """Run blocks over embedded tokens `[N, T, D]` and return the residual stream: causal ones at the last position
    alone, `[N, 1, D]`, else at every one.

    Each of the `nn.ModuleList` blocks has `project(x)` (queries, keys and values of what it reads) and
    `finish(x, mixed, drop)` (what follows attention), both of rows `[…, D]`.
    """
    for depth, block in enumerate(blocks):
        q, k, v = block.project(x).chunk(3, dim=-1)
        if causal and depth == len(blocks) - 1:
            x, q = x[:, -1:], q[:, -1:]
        x = block.finish(x, attention(q, k, v, n_heads, causal, drop), drop)
    return x


def run_shared(blocks: Any, W_E: Tensor, W_pos: Tensor, tokens: Tensor, n_heads: int, first: int) -> Tensor:
    """Do what `run_blocks` does for causal blocks over tokens `[N, T]`, and return the last position alone, `[N, D]`.

    The states at the `first` positions depend on the first token alone. The rows of a block are those of these
    positions, one a token of the vocabulary, then those of the N examples at the other positions: all go through a
    block together.
    """
    (n, t), V, index = tokens.shape, len(W_E), tokens[:, 0]
    before = torch.cat([torch.arange(V, device=tokens.device)[:, None], tokens[:1, 1:first].expand(V, -1)], dim=1)
    places_first, places_after = torch.arange(t, device=tokens.device).split([first, t - first])
    table = W_E[:, None] + W_pos  # [V, T, D]
    x, projected = (
        torch.cat([each[before, places_first].flatten(0, 1), each[tokens[:, first:], places_after].flatten(0, 1)])
        for each in (table, blocks[0].project(table))
    )
    sizes = [V * first, n * (t - first)]
    for depth, block in enumerate(blocks):
        if depth > 0:
            projected = block.project(x)
        shared, own = projected.split(sizes)
        first_q, first_k, first_v = shared.view(V, first, -1).chunk(3, dim=-1)
        q, k, v = own.view(n, t - first, -1).chunk(3, dim=-1)
        keys, values = torch.cat([first_k[index], k], 1), torch.cat([first_v[index], v], 1)
        if depth == len(blocks) - 1:
            last = x[V * first :].view(n, t - first, -1)[:, -1]
            return block.finish(last, attention(q[:, -1:], keys, values, n_heads)[:, -1])
        mixed = attention(q, keys, values, n_heads)
        first_mixed = first_v if first == 1 else attention(first_q, first_k, first_v, n_heads)  # one attends to itself
        x = block.finish(x, torch.cat([first_mixed.flatten(0, 1), mixed.flatten(0, 1)]))
    raise ValueError("a network needs at least one block")


def run_causal(
    network: Any, W_E: Tensor, W_pos: Tensor, tokens: Tensor, share: bool, first: int = 1, drop: Drop = keep
) -> Tensor:
    """Return the residual stream of a network with causal `blocks` and `n_heads` at the last position, `[N, D]`."""
    if share:
        return run_shared(network.blocks, W_E, W_pos, tokens, network.n_heads, first)
    return run_blocks(network.blocks, W_E[tokens] + W_pos, network.n_heads, drop=drop)[:, -1]


class GrokformerBlock(nn.Module):
    """Attention and MLP, LayerNorm after each sum, biases; initialised as `torch.nn.TransformerEncoderLayer`."""

    def __init__(self, d_model: int, d_mlp: int) -> None:
        super().__init__()
        self.W_QKV = nn.Linear(d_model, 3 * d_model)
        self.W_O = nn.Linear(d_model, d_model)
        self.W_in = nn.Linear(d_model, d_mlp)
        self.W_out = nn.Linear(d_mlp, d_model)
        self.norm_1, self.norm_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        nn.init.xavier_uniform_(self.W_QKV.weight)
        nn.init.zeros_(self.W_QKV.bias)
        nn.init.zeros_(self.W_O.bias)

    def project(self, x: Tensor) -> Tensor:
        return self.W_QKV(x)

    def finish(self, x: Tensor, mixed: Tensor, drop: Drop = keep) -> Tensor:
        x = self.norm_1(x + drop(self.W_O(mixed)))
        return self.norm_2(x + drop(self.W_out(drop(F.relu(self.W_in(x))))))


class Grokformer(nn.Module):
    """The source `msu`'s network, after public code with its class name and call (Power et al. 2022, section 3).

    One table N(0, 1) of p + 4 rows holds p + 2 tokens (two are never used) and T positions; the output at the last
    position times the token rows gives p + 2 logits. All blocks start as copies of the first, as
    `torch.nn.TransformerEncoder` makes them.
    """

    shares_first_token = True
    scale_invariant: tuple[str, ...] = ()

    def __init__(self, config: GrokformerConfig, task: Task) -> None:
        super().__init__()
        self.n_heads, self.n_tokens = config.n_heads, task.p + 2
        self.W_E = nn.Parameter(torch.randn(self.n_tokens + task.n_operands, config.d_model))
        self.blocks = nn.ModuleList(GrokformerBlock(config.d_model, config.d_mlp) for _ in range(config.n_layers))
        for block in self.blocks:
            block.load_state_dict(self.blocks[0].state_dict())

    def forward(self, tokens: Tensor, share: bool = False) -> Tensor:
        """Map tokens `[N, T]` to logits `[N, p + 2]`."""
        W_E, W_pos = self.W_E[: self.n_tokens], self.W_E[self.n_tokens :]
        return run_causal(self, W_E, W_pos, tokens, share) @ W_E.T


class PeriodicBlock(nn.Module):
    """Attention without biases and an MLP, each with a LayerNorm before it (without `norm_first` after the sum), and a
    third LayerNorm in the MLP after its ReLU.
    """

    def __init__(self, config: PeriodicConfig) -> None:
        super().__init__()
        d, affine, self.norm_first = config.d_model, config.affine, config.norm_first
        self.W_Q, self.W_K, self.W_V, self.W_O = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.W_in, self.W_out = nn.Linear(d, config.d_mlp), nn.Linear(config.d_mlp, d)
        self.norm_attention, self.norm_in, self.norm_mlp = (
            nn.LayerNorm(width, elementwise_affine=affine) if config.layernorm else nn.Identity()
            for width in (d, d, config.d_mlp)
        )
        for linear in (self.W_Q, self.W_K, self.W_V, self.W_O, self.W_in, self.W_out):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(d))
        nn.init.zeros_(self.W_in.bias)
        nn.init.zeros_(self.W_out.bias)

    def project(self, x: Tensor) -> Tensor:
        read = self.norm_attention(x) if self.norm_first else x
        return F.linear(read, torch.cat([self.W_Q.weight, self.W_K.weight, self.W_V.weight]))

    def finish(self, x: Tensor, mixed: Tensor, _: Drop = keep) -> Tensor:  # the source has no dropout
        x = x + self.W_O(mixed)
        if self.norm_first:
            return x + self._mlp(self.norm_in(x))
        x = self.norm_attention(x)
        return self.norm_in(x + self._mlp(x))

    def _mlp(self, x: Tensor) -> Tensor:
        return self.W_out(self.norm_mlp(F.relu(self.W_in(x))))


class PeriodicTransformer(nn.Module):
    """The source `periodic`'s network: causal, untied, weights N(0, 1/d_model), biases in the MLP alone, zero at first.

    The source names the places of its LayerNorms but not their side of the sublayers; before each sublayer is our
    choice. `scale_invariant` names the weights that can be multiplied together by any C > 0 without changing the
    function: the MLP's first layer and, where the residual stream is always read through a LayerNorm (`norm_first`),
    all that is written into it.
    """

    shares_first_token = True

    def __init__(self, config: PeriodicConfig, task: Task) -> None:
        super().__init__()
        d, marks = config.d_model, config.operator_tokens
        self.n_heads, self.p, self.operator_tokens = config.n_heads, task.p, marks
        self.W_E = nn.Parameter(torch.randn(task.p + 2 * marks, d) / math.sqrt(d))
        self.W_pos = nn.Parameter(torch.randn(task.n_operands * (1 + marks), d) / math.sqrt(d))
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
        """Map tokens `[N, T]` to logits `[N, p]`."""
        tokens, first = with_operators(tokens, self.p, self.operator_tokens)
        return self.W_U(self.norm_final(run_causal(self, self.W_E, self.W_pos, tokens, share, first)))


class Decoder(nn.Module):
    """The network of the source `power`: a causal decoder over x ∘ y =, after Vaswani et al. 2017.

    Post-LayerNorm blocks with biases, fixed sinusoidal positions, tokens N(0, 1), an untied output without bias of
    p + 2 logits. The states at x and ∘ depend on x alone. With `key` (int64, see `noise`) dropout is applied as in
    `torch.nn.TransformerEncoderLayer`: to attention, its output, the MLP and its output.
    """

    shares_first_token = True

    def __init__(self, config: DecoderConfig, task: Task) -> None:
        super().__init__()
        d, marks = config.d_model, config.operator_tokens
        self.n_heads, self.p, self.operator_tokens, self.dropout = config.n_heads, task.p, marks, config.dropout
        self.W_E = nn.Parameter(torch.randn(task.p + 2, d))
        self.register_buffer("W_pos", sinusoids(task.n_operands * (1 + marks), d))
        self.blocks = nn.ModuleList(GrokformerBlock(d, config.d_mlp) for _ in range(config.n_layers))
        self.W_U = nn.Linear(d, task.p + 2, bias=False)

    def forward(self, tokens: Tensor, share: bool = False, key: Tensor | None = None) -> Tensor:
        """Map tokens `[N, T]` to logits `[N, p + 2]`."""
        tokens, first = with_operators(tokens, self.p, self.operator_tokens)
        drop, W_pos = dropout(key, self.dropout), self.get_buffer("W_pos")
        return self.W_U(run_causal(self, self.W_E, W_pos, tokens, share, first, drop))


def sinusoids(n: int, d: int) -> Tensor:
    """Return the position vectors `[n, d]` of Vaswani et al. 2017, 3.5: sines at even places, cosines at odd."""
    angles = torch.arange(n, dtype=torch.float64)[:, None] / 10_000 ** (torch.arange(0, d, 2, dtype=torch.float64) / d)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
