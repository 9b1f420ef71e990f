"""Which weights can be scaled without changing what a network says: measured, against what the networks declare."""

from typing import Any

import pytest

from grokcore.analysis import invariance
from grokcore.nn.build import build_network
from grokcore.spec.presets import periodic
from grokcore.spec.run import replace


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_scale_invariance_of_a_network_with_layernorm(n_layers: int, affine: bool) -> None:
    """Only the declared subset can be multiplied together; at d_model 64 LayerNorm's eps leaves less than 0.01."""
    spec = periodic(n_layers, p=23, d_model=64, d_mlp=128, affine=affine)
    table: Any = invariance.scale_invariance(spec).set_index("parameter")
    weights = {name: p.numel() for name, p in build_network(spec).named_parameters()}
    assert list(table.index) == [*weights, "scale-invariant subset", "all weights"]
    change: Any = table["change"]
    assert change["scale-invariant subset"] < 0.01
    assert change["all weights"] > 0.1
    # biases are zero at first, and what only rescales the input of the MLP's first layer acts like that layer
    hidden = ("bias", "norm_in.weight")
    outside = [name for name in weights if not table["scale_invariant"][name] and not name.endswith(hidden)]
    assert {"W_U.weight", "blocks.0.W_Q.weight", "blocks.0.W_V.weight"} <= set(outside)
    assert (change[outside] > 0.1).all(), change[outside]
    # alone, the first layer of the MLP is read through a LayerNorm only while its bias is zero, as it is at first
    assert (change[[f"blocks.{i}.W_in.weight" for i in range(n_layers)]] < 0.01).all()
    assert (change[["W_E", *(f"blocks.{i}.W_out.weight" for i in range(n_layers))]] > 0.1).all()
    assert table["n_weights"].to_dict() == weights | {
        "scale-invariant subset": sum(weights[name] for name in weights if table["scale_invariant"][name]),
        "all weights": sum(weights.values()),
    }
    assert table["scale_invariant"]["scale-invariant subset"] and not table["scale_invariant"]["all weights"]


def test_no_weight_is_scale_invariant_without_layernorm() -> None:
    table: Any = invariance.scale_invariance(periodic(p=23, d_model=64, d_mlp=128, layernorm=False)).set_index(
        "parameter"
    )
    assert "scale-invariant subset" not in table.index and not table["scale_invariant"].any()
    assert table["change"]["all weights"] > 0.1 and table["change"]["W_E"] > 0.1
    larger: Any = invariance.scale_invariance(replace(periodic(1), p=23, d_model=64), factor=10.0).set_index(
        "parameter"
    )
    assert larger["change"]["scale-invariant subset"] < 0.01 < larger["change"]["W_U.weight"]


def test_with_layernorm_after_the_sums_the_first_layers_of_the_mlps_alone_are_scale_invariant() -> None:
    spec = periodic(2, p=23, d_model=64, d_mlp=128, norm_first=False)
    table: Any = invariance.scale_invariance(spec).set_index("parameter")
    subset = {f"blocks.{i}.W_in.{name}" for i in range(2) for name in ("weight", "bias")}
    weights = table.index.drop(["scale-invariant subset", "all weights"])
    assert {name for name in weights if table["scale_invariant"][name]} == subset
    assert table["change"]["scale-invariant subset"] < 0.01
    assert all(table["change"][name] > 0.1 for name in ("W_E", "blocks.0.W_V.weight", "W_U.weight", "all weights"))
