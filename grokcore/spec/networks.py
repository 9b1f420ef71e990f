"""The networks of a specification, frozen and validated; `grokcore.nn` holds the modules.

One class for each network of the four sources, and `UserModelConfig` for a user's own.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from grokcore.spec.base import FrozenModel, short_repr

DropoutRate = Annotated[float, Field(ge=0, lt=1)]


class GrokformerConfig(FrozenModel):
    """The two-layer transformer of the source `msu`: LayerNorm after each sum, tied embedding.

    Attributes:
        name: "grokformer".
        n_layers: number of blocks, 1 to 16.
        d_model: width of the residual stream, 4 to 4096; a multiple of `n_heads`.
        n_heads: number of attention heads, 1 to 64.
        d_mlp: hidden width of the MLPs, 1 to 16384.
    """

    name: Literal["grokformer"] = "grokformer"
    n_layers: int = Field(default=2, ge=1, le=16)
    d_model: int = Field(default=128, ge=4, le=4096)
    n_heads: int = Field(default=4, ge=1, le=64)
    d_mlp: int = Field(default=512, ge=1, le=16384)

    @model_validator(mode="after")
    def _heads_divide(self) -> GrokformerConfig:
        return _check_heads(self)


class PeriodicConfig(FrozenModel):
    """The transformer of the source `periodic`: LayerNorm before each sublayer, in the MLP and before the last layer.

    Attributes:
        name: "periodic".
        n_layers: number of blocks, 1 to 16.
        d_model: width of the residual stream, 4 to 4096; a multiple of `n_heads`.
        n_heads: number of attention heads, 1 to 64.
        d_mlp: hidden width of the MLPs, 1 to 16384.
        layernorm: False removes all LayerNorms (the control).
        affine: whether every LayerNorm has a gain and a bias; needs `layernorm`.
        norm_first: False puts LayerNorms after each sum in place of before each sublayer; needs `layernorm`.
        operator_tokens: whether the network reads x ∘ y = in place of x y.
    """

    name: Literal["periodic"] = "periodic"
    n_layers: int = Field(default=2, ge=1, le=16)
    d_model: int = Field(default=128, ge=4, le=4096)
    n_heads: int = Field(default=4, ge=1, le=64)
    d_mlp: int = Field(default=512, ge=1, le=16384)
    layernorm: bool = True
    affine: bool = False
    norm_first: bool = True
    operator_tokens: bool = False

    @model_validator(mode="after")
    def _heads_divide(self) -> PeriodicConfig:
        if self.affine and not self.layernorm:
            raise ValueError("affine=True changes nothing without LayerNorm: leave it out or set layernorm=True")
        if not (self.norm_first or self.layernorm):
            raise ValueError("norm_first=False changes nothing without LayerNorm: leave it out or set layernorm=True")
        return _check_heads(self)


def _check_heads(config: Any) -> Any:
    if config.d_model % config.n_heads:
        raise ValueError(f"n_heads = {config.n_heads} has to divide d_model = {config.d_model}")
    return config


class DecoderConfig(FrozenModel):
    """The causal decoder of the source `power`.

    Attributes:
        name: "decoder".
        n_layers: number of blocks, 1 to 16.
        d_model: width of the residual stream, 4 to 4096; even, and a multiple of `n_heads`.
        n_heads: number of attention heads, 1 to 64.
        d_mlp: hidden width of the MLPs, 1 to 16384.
        dropout: probability that a number is dropped in training, 0 ≤ dropout < 1.
        operator_tokens: whether the network reads x ∘ y = (else x y).
    """

    name: Literal["decoder"] = "decoder"
    n_layers: int = Field(default=2, ge=1, le=16)
    d_model: int = Field(default=128, ge=4, le=4096, multiple_of=2)
    n_heads: int = Field(default=4, ge=1, le=64)
    d_mlp: int = Field(default=512, ge=1, le=16384)
    dropout: DropoutRate = 0.0
    operator_tokens: bool = True

    @model_validator(mode="after")
    def _heads_divide(self) -> DecoderConfig:
        return _check_heads(self)


class EncoderConfig(FrozenModel):
    """The transformer encoder of the source `pku`: no causal mask.

    Attributes:
        name: "encoder".
        n_layers: number of blocks, 1 to 16.
        d_model: width of the residual stream, 4 to 4096; a multiple of `n_heads`.
        n_heads: number of attention heads, 1 to 64.
        d_mlp: hidden width of the MLPs, 1 to 16384.
        dropout: probability that a number is dropped in training, 0 ≤ dropout < 1.
        readout: what the output layer reads: the "mean" over positions, or the "last" position.
    """

    name: Literal["encoder"] = "encoder"
    n_layers: int = Field(default=2, ge=1, le=16)
    d_model: int = Field(default=128, ge=4, le=4096)
    n_heads: int = Field(default=4, ge=1, le=64)
    d_mlp: int = Field(default=512, ge=1, le=16384)
    dropout: DropoutRate = 0.0
    readout: Literal["mean", "last"] = "mean"

    @model_validator(mode="after")
    def _heads_divide(self) -> EncoderConfig:
        return _check_heads(self)


class MLPConfig(FrozenModel):
    """The multilayer perceptron of the source `pku`: operands one-hot → `d_mlp` → `d_model` → p, ReLU between.

    Attributes:
        name: "mlp".
        d_mlp: width of the first hidden layer, 1 to 16384.
        d_model: width of the second hidden layer, 1 to 4096.
    """

    name: Literal["mlp"] = "mlp"
    d_mlp: int = Field(default=256, ge=1, le=16384)
    d_model: int = Field(default=128, ge=1, le=4096)


class LSTMConfig(FrozenModel):
    """The LSTM of the source `pku`: operands one-hot, output from the state after the last one.

    Attributes:
        name: "lstm".
        n_layers: number of layers, 1 to 16.
        d_model: number of units of each layer, 1 to 4096.
    """

    name: Literal["lstm"] = "lstm"
    n_layers: int = Field(default=2, ge=1, le=16)
    d_model: int = Field(default=128, ge=1, le=4096)


class UserModelConfig(FrozenModel):
    """A user's own `nn.Module`, known by its source and arguments; `grokcore.user_model` makes it.

    Attributes:
        name: "user".
        class_name: name of the class.
        source: source text of the class.
        arguments: keyword arguments of the class, plain JSON values.
        module_class: the class itself, or None for a run that was read from a record; not part of the id.
    """

    name: Literal["user"] = "user"
    class_name: str
    source: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    module_class: Any = Field(default=None, exclude=True, repr=False)

    @field_validator("class_name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not name.isidentifier():  # it stands in tables, figures and pages
            raise ValueError(f"a class has a name of letters, digits and _; given {short_repr(name)}")
        return name

    @field_validator("source")
    @classmethod
    def _is_text(cls, source: str) -> str:
        source.encode()  # half a surrogate pair is an error, a ValueError that says where
        return source

    @field_validator("arguments")
    @classmethod
    def _come_back_from_json(cls, arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
        try:
            json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise ValueError(f"a module's arguments have to be plain JSON values ({error}); give others") from None
        return arguments


ModelConfig = (
    GrokformerConfig | PeriodicConfig | DecoderConfig | EncoderConfig | MLPConfig | LSTMConfig | UserModelConfig
)
MODELS: dict[str, type[FrozenModel]] = {
    "grokformer": GrokformerConfig,
    "periodic": PeriodicConfig,
    "decoder": DecoderConfig,
    "encoder": EncoderConfig,
    "mlp": MLPConfig,
    "lstm": LSTMConfig,
    "user": UserModelConfig,
}
