"""The optimizers of a specification, frozen and validated; `grokcore.engine.optimizers` holds their updates.

All share four fields: `lr`, `weight_decay`, `warmup` and `warmup_start`. The learning rate rises linearly from
`warmup_start` times `lr` at step 0 to `lr` at step `warmup`, and stays there.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from grokcore.spec.base import MAX_STEPS, FrozenModel

Beta = Annotated[float, Field(ge=0, lt=1)]


class SGD(FrozenModel):
    """Stochastic gradient descent as in `torch.optim.SGD`.

    Attributes:
        name: "sgd".
        lr: learning rate, > 0.
        weight_decay: this times the weights is added to the gradient, ≥ 0.
        momentum: factor of the previous update, 0 ≤ momentum < 1.
        nesterov: whether the momentum is Nesterov's; needs momentum > 0.
        warmup: steps over which the learning rate rises, 0 to 10⁸.
        warmup_start: learning rate at step 0 as a fraction of `lr`, 0 to 1.
    """

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    warmup: int = Field(default=0, ge=0, le=MAX_STEPS)
    warmup_start: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _needs_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True needs momentum > 0, given 0")
        return self


class RMSprop(FrozenModel):
    """RMSprop as in `torch.optim.RMSprop`.

    Attributes:
        name: "rmsprop".
        lr: learning rate, > 0.
        weight_decay: this times the weights is added to the gradient, ≥ 0.
        momentum: factor of the previous update, 0 ≤ momentum < 1.
        smoothing: factor of the previous mean of squared gradients, 0 ≤ smoothing < 1; torch calls it alpha.
        eps: added to the root of that mean, > 0.
        warmup: steps over which the learning rate rises, 0 to 10⁸.
        warmup_start: learning rate at step 0 as a fraction of `lr`, 0 to 1.
    """

    name: Literal["rmsprop"] = "rmsprop"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    smoothing: float = Field(default=0.99, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0)
    warmup: int = Field(default=0, ge=0, le=MAX_STEPS)
    warmup_start: float = Field(default=0.0, ge=0, le=1)


class Adam(FrozenModel):
    """Adam as in `torch.optim.Adam`.

    Attributes:
        name: "adam".
        lr: learning rate, > 0.
        weight_decay: this times the weights is added to the gradient, ≥ 0.
        betas: factors of the previous mean of gradients and of the previous mean of their squares, each 0 ≤ beta < 1.
        eps: added to the root of the mean of squares, > 0.
        warmup: steps over which the learning rate rises, 0 to 10⁸.
        warmup_start: learning rate at step 0 as a fraction of `lr`, 0 to 1.
        update_noise: standard deviation ≥ 0 of Gaussian noise ε on the update ΔW of every weight, before it is
            multiplied by the learning rate: W + lr·(ΔW + ε) (Power et al. 2022, A.1.2).
    """

    name: Literal["adam"] = "adam"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: float = Field(default=1e-8, gt=0)
    warmup: int = Field(default=10, ge=0, le=MAX_STEPS)
    warmup_start: float = Field(default=0.0, ge=0, le=1)
    update_noise: float = Field(default=0.0, ge=0)


class AdamW(FrozenModel):
    """AdamW as in `torch.optim.AdamW`: Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Attributes:
        name: "adamw".
        lr: learning rate, > 0.
        weight_decay: weights are multiplied by 1 - lr·weight_decay at each step, ≥ 0.
        betas: factors of the previous mean of gradients and of the previous mean of their squares, each 0 ≤ beta < 1.
        eps: added to the root of the mean of squares, > 0.
        warmup: steps over which the learning rate rises, 0 to 10⁸.
        warmup_start: learning rate at step 0 as a fraction of `lr`, 0 to 1.
        update_noise: standard deviation ≥ 0 of Gaussian noise ε on the update ΔW of every weight, before it is
            multiplied by the learning rate: W + lr·(ΔW + ε) (Power et al. 2022, A.1.2).
        decay_to_init: whether weight decay pulls the weights towards their initial values in place of zero
            (Power et al. 2022, 3.3); needs weight_decay > 0.
    """

    name: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1.0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: float = Field(default=1e-8, gt=0)
    warmup: int = Field(default=10, ge=0, le=MAX_STEPS)
    warmup_start: float = Field(default=0.0, ge=0, le=1)
    update_noise: float = Field(default=0.0, ge=0)
    decay_to_init: bool = False

    @model_validator(mode="after")
    def _decays(self) -> AdamW:
        if self.decay_to_init and self.weight_decay == 0:
            raise ValueError("decay_to_init=True changes nothing at weight_decay = 0: give a weight decay")
        return self


OPTIMIZERS = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}
