"""Our Grokformer out of torch's own parts."""

import torch
from torch import nn

from grokcore.bench.plain_loop import PlainGrokformer
from grokcore.spec.networks import GrokformerConfig
from grokcore.spec.run import RunSpec

NAMES = {"W_QKV": "self_attn.in_proj_", "W_O": "self_attn.out_proj.", "W_in": "linear1.", "W_out": "linear2."}
NAMES |= {"norm_1": "norm1.", "norm_2": "norm2."}


def names(n_layers: int) -> dict[str, str]:
    """Return the name that each weight of ours has in torch's encoder."""
    named = {"W_E": "embedding.weight"}
    for layer in range(n_layers):
        for ours, theirs in NAMES.items():
            for kind in ("weight", "bias"):
                named[f"blocks.{layer}.{ours}.{kind}"] = f"encoder.layers.{layer}.{theirs}{kind}"
    return named


def plain_grokformer(spec: RunSpec, ours: nn.Module) -> PlainGrokformer:
    """Return torch's network of a run with the weights of ours."""
    assert isinstance(spec.model, GrokformerConfig)
    plain = PlainGrokformer(spec.model, spec.task.p, spec.task.n_operands).to(getattr(torch, spec.precision))
    weights = {theirs: ours.get_parameter(own) for own, theirs in names(spec.model.n_layers).items()}
    missing = plain.load_state_dict(weights, strict=False)
    assert set(missing.missing_keys) == {"mask", "positions"} and not missing.unexpected_keys
    return plain
