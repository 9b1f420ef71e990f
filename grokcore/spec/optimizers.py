"""The optimizers as a specification names them, frozen and validated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from grokcore.spec.base import MOST_STEPS, FrozenModel


class SGD(FrozenModel):
    """Stochastic gradient descent as in `torch.optim.SGD` (weight decay is added to the gradient)."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    warmup: int = Field(default=0, ge=0, le=MOST_STEPS)
    warmup_start: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _needs_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True needs momentum > 0, given 0")
        return self


class RMSprop(FrozenModel):
    """RMSprop as in `torch.optim.RMSprop`; `smoothing` is what torch calls alpha."""

    name: Literal["rmsprop"] = "rmsprop"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    smoothing: float = Field(default=0.99, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0)
    warmup: int = Field(default=0, ge=0, le=MOST_STEPS)
    warmup_start: float = Field(default=0.0, ge=0, le=1)


Beta = Annotated[float, Field(ge=0, lt=1)]


class Adam(FrozenModel):
    """Adam as in `torch.optim.Adam` (weight decay is added to the gradient).

    The rate rises linearly from `warmup_start` times `lr` over `warmup` steps. `update_noise` adds a Gaussian of that
    standard deviation to every weight's update before the rate: W + lr·(ΔW + ε), as in Power et al. 2022, A.1.2.
    """

    name: Literal["adam"] = "adam"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: float = Field(default=1e-8, gt=0)
    warmup: int = Field(default=10, ge=0, le=MOST_STEPS)
    warmup_start: float = Field(default=0.0, ge=0, le=1)
    update_noise: float = Field(default=0.0, ge=0)


class AdamW(FrozenModel):
    """AdamW as in `torch.optim.AdamW` (weight decay acts on the weights, Loshchilov & Hutter 2019).

    `decay_to_init` lets it pull the weights towards their initial values instead of zero (Power et al. 2022, 3.3).
    """

    name: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1.0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: float = Field(default=1e-8, gt=0)
    warmup: int = Field(default=10, ge=0, le=MOST_STEPS)
    warmup_start: float = Field(default=0.0, ge=0, le=1)
    update_noise: float = Field(default=0.0, ge=0)
    decay_to_init: bool = False

    @model_validator(mode="after")
    def _decays(self) -> AdamW:
        if self.decay_to_init and self.weight_decay == 0:
            raise ValueError("decay_to_init=True changes nothing at weight_decay = 0: give a weight decay")
        return self


OPTIMIZERS = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}
