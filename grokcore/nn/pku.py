"""The networks of the source `pku` as plain single-run modules: transformer encoder, MLP and LSTM.

All read the K operands one-hot; a one-hot vector times a weight matrix is a row of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grokcore.nn.blocks import PostNormBlock, run_blocks
from grokcore.nn.counter_rng import dropout
from grokcore.spec.networks import EncoderConfig, LSTMConfig, MLPConfig
from grokcore.spec.task import Task


class Encoder(nn.Module):
    """A transformer encoder: blocks as `torch.nn.TransformerEncoderLayer`, no mask, learned positions, an output layer.

    Embedding, positions and output are drawn as `torch.nn.Linear` draws weights. The source names width, heads and
    layers. LayerNorm after each sum, ReLU, four times the width in the MLP, positions and the mean as read-out are our
    choices.
    """

    def __init__(self, config: EncoderConfig, task: Task) -> None:
        super().__init__()
        d = config.d_model
        self.n_heads, self.dropout, self.readout = config.n_heads, config.dropout, config.readout
        self.W_E = nn.Linear(task.p, d)
        self.W_pos = nn.Parameter(torch.empty(task.n_operands, d).uniform_(-1, 1) / math.sqrt(task.p))
        self.blocks = nn.ModuleList(PostNormBlock(d, config.d_mlp) for _ in range(config.n_layers))
        self.W_U = nn.Linear(d, task.p)

    def forward(self, tokens: Tensor, key: Tensor | None = None) -> Tensor:
        """Return logits `[N, p]` of tokens `[N, T]`.

        With a `key` (scalar int64, see `counter_rng`) dropout is applied as in `torch.nn.TransformerEncoderLayer`.
        """
        drop = dropout(key, self.dropout)
        x = self.W_E.weight.T[tokens] + self.W_E.bias + self.W_pos
        x = run_blocks(self.blocks, x, self.n_heads, causal=False, drop=drop)
        return self.W_U(x.mean(1) if self.readout == "mean" else x[:, -1])


class MLP(nn.Module):
    """A multilayer perceptron with two hidden layers; ReLU is our choice, the source names no activation."""

    def __init__(self, config: MLPConfig, task: Task) -> None:
        super().__init__()
        self.p = task.p
        self.W_in = nn.Linear(task.n_operands * task.p, config.d_mlp)
        self.W_hidden = nn.Linear(config.d_mlp, config.d_model)
        self.W_out = nn.Linear(config.d_model, task.p)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits `[N, p]` of tokens `[N, T]`."""
        one_hot = (tokens[..., None] == torch.arange(self.p, device=tokens.device)).flatten(1).to(self.W_in.weight)
        return self.W_out(F.relu(self.W_hidden(F.relu(self.W_in(one_hot)))))


class LSTMLayer(nn.Module):
    """The weights of one layer of `torch.nn.LSTM`, gates in its order: input, forget, cell, output."""

    def __init__(self, d_in: int, d: int) -> None:
        super().__init__()
        self.W_input, self.W_state = nn.Linear(d_in, 4 * d), nn.Linear(d, 4 * d)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(d), 1 / math.sqrt(d))

    def forward(self, projected: Tensor, state: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next state and cell, each `[N, D]`.

        Args:
            projected: what the input adds to the gates, `[N, 4D]`.
            state: state before, `[N, D]`.
            cell: cell before, `[N, D]`.
        """
        input_gate, forget_gate, update, output_gate = (projected + self.W_state(state)).chunk(4, dim=-1)
        cell = forget_gate.sigmoid() * cell + input_gate.sigmoid() * update.tanh()
        return output_gate.sigmoid() * cell.tanh(), cell


class LSTM(nn.Module):
    """An LSTM as `torch.nn.LSTM` and an output layer on its last state.

    It is made of operations that `torch.func.vmap` lifts. The states after the first operand depend on it alone: with
    `share` they are computed once for each token of the vocabulary instead of once for each example.

    Attributes:
        shares_first_token: `forward` takes `share`.
    """

    shares_first_token = True

    def __init__(self, config: LSTMConfig, task: Task) -> None:
        super().__init__()
        self.d, self.p = config.d_model, task.p
        self.layers = nn.ModuleList(LSTMLayer(d, self.d) for d in [task.p] + [self.d] * (config.n_layers - 1))
        self.W_U = nn.Linear(self.d, task.p)

    def forward(self, tokens: Tensor, share: bool = False) -> Tensor:
        """Return logits `[N, p]` of tokens `[N, T]`."""
        first = torch.arange(self.p, device=tokens.device) if share else tokens[:, 0]
        zero = torch.zeros(len(first), self.d, device=tokens.device, dtype=self.W_U.weight.dtype)
        states = self._advance(first, [(zero, zero)] * len(self.layers))
        if share:
            states = [(state[tokens[:, 0]], cell[tokens[:, 0]]) for state, cell in states]
        for position in range(1, tokens.shape[1]):
            states = self._advance(tokens[:, position], states)
        return self.W_U(states[-1][0])

    def _advance(self, token: Tensor, states: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Return state and cell of every layer after one more token `[N]`."""
        new: list[tuple[Tensor, Tensor]] = []
        for layer, (state, cell) in zip(self.layers, states, strict=True):
            assert isinstance(layer, LSTMLayer)
            W = layer.W_input
            projected = W(new[-1][0]) if new else W.weight.T[token] + W.bias
            new.append(layer(projected, state, cell))
        return new
