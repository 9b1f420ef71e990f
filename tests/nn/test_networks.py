"""The networks of `power` and `pku` against torch's own parts, with the same weights, in float64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grokcore.nn.build import build_network
from grokcore.spec import tables
from grokcore.spec.networks import DecoderConfig, EncoderConfig
from grokcore.spec.presets import pku, power
from grokcore.spec.run import RunSpec

SMALL: dict[str, Any] = {"p": 7, "d_model": 16, "d_mlp": 24, "precision": "float64"}
BLOCK = {"W_QKV": "self_attn.in_proj_", "W_O": "self_attn.out_proj.", "W_in": "linear1.", "W_out": "linear2."}
BLOCK |= {"norm_1": "norm1.", "norm_2": "norm2."}


def close(logits: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(logits, expected, rtol=1e-11, atol=1e-11)


def network_and_tokens(spec: RunSpec) -> tuple[nn.Module, Tensor]:
    return build_network(spec), torch.from_numpy(tables.table(spec.task)[0])


def torch_encoder(model: nn.Module, spec: RunSpec) -> nn.TransformerEncoder:
    """Torch's encoder with the weights of the blocks of ours."""
    config = spec.model
    assert isinstance(config, DecoderConfig | EncoderConfig)
    layer = nn.TransformerEncoderLayer(
        config.d_model, config.n_heads, config.d_mlp, dropout=0.0, batch_first=True, dtype=torch.float64
    )
    encoder = nn.TransformerEncoder(layer, config.n_layers)
    weights = {
        f"layers.{i}.{theirs}{kind}": model.get_parameter(f"blocks.{i}.{ours}.{kind}")
        for i in range(config.n_layers)
        for ours, theirs in BLOCK.items()
        for kind in ("weight", "bias")
    }
    encoder.load_state_dict(weights)
    return encoder


@pytest.mark.parametrize("n_operands", [2, 3])
@pytest.mark.parametrize("marks", [True, False])
def test_decoder_equals_torchs_encoder_with_a_causal_mask(n_operands: int, marks: bool) -> None:
    spec = power("x+y", **SMALL, n_operands=n_operands, operator_tokens=marks, n_layers=2)
    model, tokens = network_and_tokens(spec)
    read_tokens = tokens
    if marks:  # x ∘ y = with ∘ token 7 and = token 8
        read_tokens = torch.stack([tokens, torch.full_like(tokens, 7)], 2).flatten(1)
        read_tokens[:, -1] = 8
    position, half = torch.arange(read_tokens.shape[1])[:, None].double(), torch.arange(8).double()
    angle = position / 10_000 ** (2 * half / 16)
    positions = torch.zeros(read_tokens.shape[1], 16, dtype=torch.float64)
    positions[:, 0::2], positions[:, 1::2] = angle.sin(), angle.cos()
    x = model.get_parameter("W_E")[read_tokens] + positions
    mask = nn.Transformer.generate_square_subsequent_mask(read_tokens.shape[1], dtype=torch.float64)
    expected = torch_encoder(model, spec)(x, mask=mask)[:, -1] @ model.get_parameter("W_U.weight").T
    close(model(tokens), expected)
    close(model(tokens, share=True), expected)


@pytest.mark.parametrize("readout", ["mean", "last"])
def test_encoder_equals_torchs_encoder(readout: str) -> None:
    spec = pku("encoder", **SMALL, n_operands=3, readout=readout)
    model, tokens = network_and_tokens(spec)
    weight, bias = (model.get_parameter(f"W_E.{kind}") for kind in ("weight", "bias"))
    x = F.one_hot(tokens, 7).double() @ weight.T + bias + model.get_parameter("W_pos")
    out = torch_encoder(model, spec)(x)
    read = out.mean(1) if readout == "mean" else out[:, -1]
    expected = read @ model.get_parameter("W_U.weight").T + model.get_parameter("W_U.bias")
    close(model(tokens), expected)


@pytest.mark.parametrize("n_operands", [2, 4])
def test_mlp_equals_torchs_layers(n_operands: int) -> None:
    spec = pku("mlp", **SMALL, n_operands=n_operands)
    model, tokens = network_and_tokens(spec)
    plain = nn.Sequential(
        nn.Linear(7 * n_operands, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 7)
    ).double()
    names = {"0": "W_in", "2": "W_hidden", "4": "W_out"}
    plain.load_state_dict(
        {f"{i}.{k}": model.get_parameter(f"{n}.{k}") for i, n in names.items() for k in ("weight", "bias")}
    )
    one_hot = torch.zeros(len(tokens), n_operands, 7, dtype=torch.float64).scatter_(2, tokens[..., None], 1)
    close(model(tokens), plain(one_hot.flatten(1)))


@pytest.mark.parametrize("n_layers", [1, 2])
def test_lstm_equals_torchs_lstm(n_layers: int) -> None:
    spec = pku("lstm", p=7, d_model=16, precision="float64", n_operands=3, n_layers=n_layers)
    model, tokens = network_and_tokens(spec)
    plain = nn.LSTM(7, 16, n_layers, batch_first=True, dtype=torch.float64)
    names = {"ih": "W_input", "hh": "W_state"}
    plain.load_state_dict(
        {
            f"{kind}_{theirs}_l{i}": model.get_parameter(f"layers.{i}.{ours}.{kind}")
            for i in range(n_layers)
            for theirs, ours in names.items()
            for kind in ("weight", "bias")
        }
    )
    states, _ = plain(F.one_hot(tokens, 7).double())
    expected = states[:, -1] @ model.get_parameter("W_U.weight").T + model.get_parameter("W_U.bias")
    close(model(tokens), expected)
    close(model(tokens, share=True), expected)


def test_sizes_are_those_of_the_sources() -> None:
    def size(spec: RunSpec) -> dict[str, int]:
        return {name: weight.numel() for name, weight in build_network(spec).named_parameters()}

    decoder = size(power())
    blocks = sum(n for name, n in decoder.items() if name.startswith("blocks"))
    assert 3.9e5 < blocks < 4.1e5  # "about 4·10⁵ non-embedding parameters" (Power et al. 2022)
    assert decoder["W_E"] == 99 * 128 and decoder["W_U.weight"] == 99 * 128
    mlp = size(pku("mlp"))
    assert sum(mlp.values()) == (194 * 256 + 256) + (256 * 128 + 128) + (128 * 97 + 97)
    lstm = size(pku("lstm"))
    assert sum(lstm.values()) == 4 * 128 * (97 + 128 + 2) + 4 * 128 * (128 + 128 + 2) + 97 * 129
    bound = 1 / math.sqrt(128)
    values = build_network(pku("lstm")).get_parameter("layers.1.W_state.weight").detach()
    assert values.abs().max() <= bound and values.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
