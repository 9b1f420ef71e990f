"""Blocks of attention and MLP: how they are computed, and the one that three of the networks share.

`decoders` and `pku` build networks of them.

First-token sharing: in an operation table there are only p different first tokens, and under a causal mask the states
at the positions before the second operand depend on nothing else. `run_shared` computes these states once for each
token of the vocabulary instead of once for each example, and the first block's projections once for each token and
position. The function is that of `run_blocks`, in about half the arithmetic.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grokcore.nn.counter_rng import Drop, no_dropout


def attention(q: Tensor, k: Tensor, v: Tensor, n_heads: int, causal: bool = True, drop: Drop = no_dropout) -> Tensor:
    """Return multi-head attention from the last S of T positions, before its output layer.

    Args:
        q: queries `[N, S, D]`.
        k: keys `[N, T, D]`.
        v: values `[N, T, D]`.
        n_heads: number of heads, a divisor of D.
        causal: whether a position attends to itself and to those before it alone.
        drop: dropout of the attention weights.

    Returns:
        The mixed values `[N, S, D]`.
    """
    (n, s, d), t = q.shape, k.shape[1]
    q, k, v = (x.reshape(n, -1, n_heads, d // n_heads) for x in (q, k, v))
    scores = (q[:, :, None] * k[:, None]).sum(-1) / math.sqrt(d // n_heads)  # [N, S, T, H]
    if causal and s > 1:
        future = torch.ones(s, t, dtype=torch.bool, device=q.device).triu(t - s + 1)
        scores = scores.masked_fill(future[:, :, None], -math.inf)
    return (drop(scores.softmax(dim=2))[..., None] * v[:, None]).sum(2).reshape(n, s, d)


def run_blocks(blocks: Any, x: Tensor, n_heads: int, causal: bool = True, drop: Drop = no_dropout) -> Tensor:
    """Return the residual stream after some blocks.

    Args:
        blocks: an `nn.ModuleList`. Each block has `project(x)`, which returns queries, keys and values `[…, 3D]`, and
            `finish(x, mixed, drop)`, which does what follows attention, both of rows `[…, D]`.
        x: embedded tokens `[N, T, D]`.
        n_heads: number of heads.
        causal: whether attention is causal; then the last block is computed at the last position alone.
        drop: dropout of every block.

    Returns:
        The stream at the last position alone, `[N, 1, D]`, if attention is causal, else at every one, `[N, T, D]`.
    """
    for depth, block in enumerate(blocks):
        q, k, v = block.project(x).chunk(3, dim=-1)
        if causal and depth == len(blocks) - 1:
            x, q = x[:, -1:], q[:, -1:]
        x = block.finish(x, attention(q, k, v, n_heads, causal, drop), drop)
    return x


def run_shared(blocks: Any, W_E: Tensor, W_pos: Tensor, tokens: Tensor, n_heads: int, n_shared: int) -> Tensor:
    """Return the residual stream at the last position, `[N, D]`, with states of the first token computed once.

    The function is that of causal `run_blocks`. The rows of a block are those of the shared positions, once for each
    token of the vocabulary, then those of the N examples at the other positions: all go through a block together.

    Args:
        blocks: as in `run_blocks`.
        W_E: embedding of the tokens `[V, D]`.
        W_pos: position vectors `[T, D]`.
        tokens: what the network reads, `[N, T]`.
        n_heads: number of heads.
        n_shared: number S ≥ 1 of the first positions, whose states depend on the first token alone.

    Raises:
        ValueError: there is no block.
    """
    (n, t), V, first = tokens.shape, len(W_E), tokens[:, 0]
    vocabulary = torch.arange(V, device=tokens.device)[:, None]
    shared_tokens = torch.cat([vocabulary, tokens[:1, 1:n_shared].expand(V, -1)], dim=1)  # [V, S]
    shared_at, own_at = torch.arange(t, device=tokens.device).split([n_shared, t - n_shared])
    table = W_E[:, None] + W_pos  # [V, T, D]
    x, projected = (
        torch.cat([rows[shared_tokens, shared_at].flatten(0, 1), rows[tokens[:, n_shared:], own_at].flatten(0, 1)])
        for rows in (table, blocks[0].project(table))
    )
    sizes = [V * n_shared, n * (t - n_shared)]
    for depth, block in enumerate(blocks):
        if depth > 0:
            projected = block.project(x)
        shared, own = projected.split(sizes)
        shared_q, shared_k, shared_v = shared.view(V, n_shared, -1).chunk(3, dim=-1)
        q, k, v = own.view(n, t - n_shared, -1).chunk(3, dim=-1)
        keys, values = torch.cat([shared_k[first], k], 1), torch.cat([shared_v[first], v], 1)
        if depth == len(blocks) - 1:
            last = x[V * n_shared :].view(n, t - n_shared, -1)[:, -1]
            return block.finish(last, attention(q[:, -1:], keys, values, n_heads)[:, -1])
        mixed = attention(q, keys, values, n_heads)
        # a single first position attends to itself alone
        shared_mixed = shared_v if n_shared == 1 else attention(shared_q, shared_k, shared_v, n_heads)
        x = block.finish(x, torch.cat([shared_mixed.flatten(0, 1), mixed.flatten(0, 1)]))
    raise ValueError("a network needs at least one block")


def run_causal(
    network: Any, W_E: Tensor, W_pos: Tensor, tokens: Tensor, n_shared: int, drop: Drop = no_dropout
) -> Tensor:
    """Return the residual stream of a causal network at the last position, `[N, D]`.

    Args:
        network: a module with causal `blocks` and `n_heads`.
        W_E: embedding of the tokens `[V, D]`.
        W_pos: position vectors `[T, D]`.
        tokens: what the network reads, `[N, T]`.
        n_shared: number of first positions computed once for each token (`run_shared`); 0 shares nothing.
        drop: dropout of every block; where it drops, nothing can be shared.
    """
    if n_shared:
        return run_shared(network.blocks, W_E, W_pos, tokens, network.n_heads, n_shared)
    return run_blocks(network.blocks, W_E[tokens] + W_pos, network.n_heads, drop=drop)[:, -1]


class PostNormBlock(nn.Module):
    """A block of attention and MLP with biases and a LayerNorm after each sum.

    It is initialised as `torch.nn.TransformerEncoderLayer`.
    """

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

    def finish(self, x: Tensor, mixed: Tensor, drop: Drop = no_dropout) -> Tensor:
        x = self.norm_1(x + drop(self.W_O(mixed)))
        return self.norm_2(x + drop(self.W_out(drop(F.relu(self.W_in(x))))))
