"""The networks of the sources as plain single-run modules, and the construction of a user's own.

First-token sharing: in an operation table there are only p different first tokens, and under a causal mask the state
at position 0 depends on nothing else. With `share=True` that position is computed once a token, not once an example,
and the first block's projections once a token at every position: the same function, in less than half the arithmetic.
"""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grokcore import tasks
from grokcore.parts import GrokformerConfig, PeriodicConfig, SpecError, Task, UserModelConfig
from grokcore.spec import RunSpec


def causal_attention(q: Tensor, k: Tensor, v: Tensor, n_heads: int) -> Tensor:
    """Attend causally from the last S of T positions: q `[N, S, D]`, k and v `[N, T, D]` → `[N, S, D]`."""
    (n, s, d), t = q.shape, k.shape[1]
    q, k, v = (x.reshape(n, -1, n_heads, d // n_heads) for x in (q, k, v))
    scores = (q[:, :, None] * k[:, None]).sum(-1) / math.sqrt(d // n_heads)  # [N, S, T, H]
    if s > 1:
        future = torch.ones(s, t, dtype=torch.bool, device=q.device).triu(t - s + 1)
        scores = scores.masked_fill(future[:, :, None], -math.inf)
    return (scores.softmax(dim=2)[..., None] * v[:, None]).sum(2).reshape(n, s, d)


def run_blocks(blocks: Any, W_E: Tensor, W_pos: Tensor, tokens: Tensor, n_heads: int, share: bool) -> Tensor:
    """Run causal blocks over tokens `[N, T]` and return the residual stream at the last position `[N, D]`.

    Each of the `nn.ModuleList` blocks has `project(x)` (queries, keys and values of what it reads) and
    `finish(x, mixed)` (what follows attention), both of rows `[…, D]`. The rows of a block are those of position 0,
    one a token with `share` and one an example without, then those of the N examples at the other T-1 positions: all
    go through a block together.
    """
    n, t = tokens.shape
    if share:
        table = W_E[:, None] + W_pos  # [V, T, D]
        places = torch.arange(1, t, device=tokens.device)
        index = tokens[:, 0]
        x, projected = (
            torch.cat([each[:, 0], each[tokens[:, 1:], places].flatten(0, 1)])
            for each in (table, blocks[0].project(table))
        )
    else:
        x = W_E[tokens] + W_pos
        index = None
        x = torch.cat([x[:, 0], x[:, 1:].flatten(0, 1)])
        projected = blocks[0].project(x)
    n_first = len(x) - n * (t - 1)
    for depth, block in enumerate(blocks):
        if depth > 0:
            projected = block.project(x)
        first, rest = projected.split([n_first, n * (t - 1)])
        q, k, v = rest.view(n, t - 1, -1).chunk(3, dim=-1)  # each [N, T-1, D]
        _, first_k, first_v = first.chunk(3, dim=-1)  # each [V or N, D]
        k0, v0 = (first_k, first_v) if index is None else (first_k[index], first_v[index])
        last = depth == len(blocks) - 1
        mixed = causal_attention(
            q[:, -1:] if last else q, torch.cat([k0[:, None], k], 1), torch.cat([v0[:, None], v], 1), n_heads
        )
        if last:
            return block.finish(x[n_first:].view(n, t - 1, -1)[:, -1], mixed[:, -1])
        x = block.finish(x, torch.cat([first_v, mixed.flatten(0, 1)]))  # position 0 attends to itself alone
    raise ValueError("a network needs at least one block")


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

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = self.norm_1(x + self.W_O(mixed))
        return self.norm_2(x + self.W_out(F.relu(self.W_in(x))))


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
        return run_blocks(self.blocks, W_E, W_pos, tokens, self.n_heads, share) @ W_E.T


class PeriodicBlock(nn.Module):
    """Attention without biases and an MLP, each behind a LayerNorm, a third LayerNorm in the MLP after its ReLU."""

    def __init__(self, config: PeriodicConfig) -> None:
        super().__init__()
        d, affine = config.d_model, config.affine
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
        return F.linear(self.norm_attention(x), torch.cat([self.W_Q.weight, self.W_K.weight, self.W_V.weight]))

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.W_O(mixed)
        return x + self.W_out(self.norm_mlp(F.relu(self.W_in(self.norm_in(x)))))


class PeriodicTransformer(nn.Module):
    """The source `periodic`'s network: causal, untied, weights N(0, 1/d_model), biases in the MLP alone, zero at first.

    The source names the places of its LayerNorms but not their side of the sublayers; before each sublayer is our
    choice. `scale_invariant` names the weights that can be multiplied together by any C > 0 without changing the
    function: all that is written into the residual stream (which is always read through a LayerNorm), and the MLP's
    first layer.
    """

    shares_first_token = True

    def __init__(self, config: PeriodicConfig, task: Task) -> None:
        super().__init__()
        d = config.d_model
        self.n_heads = config.n_heads
        self.W_E = nn.Parameter(torch.randn(task.p, d) / math.sqrt(d))
        self.W_pos = nn.Parameter(torch.randn(task.n_operands, d) / math.sqrt(d))
        self.blocks = nn.ModuleList(PeriodicBlock(config) for _ in range(config.n_layers))
        self.norm_final = nn.LayerNorm(d, elementwise_affine=config.affine) if config.layernorm else nn.Identity()
        self.W_U = nn.Linear(d, task.p, bias=False)
        nn.init.normal_(self.W_U.weight, std=1 / math.sqrt(d))
        invariant = ("W_O.weight", "W_in.weight", "W_in.bias", "W_out.weight", "W_out.bias")
        names = [
            "W_E",
            "W_pos",
            *(f"blocks.{i}.{name}" for i in range(config.n_layers) for name in invariant),
        ]
        self.scale_invariant = tuple(names) if config.layernorm else ()

    def forward(self, tokens: Tensor, share: bool = False) -> Tensor:
        """Map tokens `[N, T]` to logits `[N, p]`."""
        return self.W_U(self.norm_final(run_blocks(self.blocks, self.W_E, self.W_pos, tokens, self.n_heads, share)))


def user_model(module_class: type[nn.Module], **arguments: Any) -> UserModelConfig:
    """Return the specification of a user's module: `module_class(**arguments)`, tokens `[N, T]` to logits `[N, V ≥ p]`.

    It may be defined in a notebook cell. Its identity is its source and its arguments, which have to be plain JSON
    values. Raises SpecError if the source cannot be read.
    """
    try:
        source = inspect.getsource(module_class)
    except (OSError, TypeError) as error:
        raise SpecError(
            f"the source of {module_class!r} cannot be read ({error}): define the class in a file or a cell"
        ) from None
    return UserModelConfig(
        class_name=module_class.__name__, source=source, arguments=arguments, module_class=module_class
    )


def build(spec: RunSpec) -> nn.Module:
    """Return the initialised network of a run on the CPU: a function of the run's initialisation seed alone.

    Raises SpecError for a user's module whose class is not at hand or which draws random numbers in training
    (dropout).
    """
    config = spec.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.derived_seed("init"))
        if isinstance(config, GrokformerConfig):
            model: nn.Module = Grokformer(config, spec.task)
        elif isinstance(config, PeriodicConfig):
            model = PeriodicTransformer(config, spec.task)
        elif config.module_class is None:
            raise SpecError(
                f"the class of model {config.class_name!r} is not at hand (the run was read from a record): "
                f"give grokcore.user_model({config.class_name}, …)"
            )
        else:
            model = config.module_class(**config.arguments)
            _check_user_model(model, spec)
    return model.to(getattr(torch, spec.precision))


@torch.no_grad()
def _check_user_model(model: nn.Module, spec: RunSpec) -> None:
    """Try a copy of a user's module on some rows: logits `[N, V ≥ p]`, and the same again for the same rows."""
    tokens = torch.from_numpy(tasks.table(spec.task)[0][:64])
    trial = copy.deepcopy(model)
    first, again = trial(tokens), trial(tokens)
    if first.ndim != 2 or first.shape[0] != len(tokens) or first.shape[1] < spec.task.p:
        given, wanted = list(first.shape), f"[{len(tokens)}, {spec.task.p} or more]"
        raise SpecError(f"the module maps tokens {list(tokens.shape)} to {given}; logits have the shape {wanted}")
    if not torch.equal(first, again):
        raise SpecError("the module draws random numbers (dropout?), unknown to the seed: set p=0 or leave it out")
