"""The network of a run: one of the sources' or a user's own module, initialised from the run's seed."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from grokcore.nn.decoders import Decoder, Grokformer, PeriodicTransformer
from grokcore.nn.pku import LSTM, MLP, Encoder
from grokcore.spec import tables
from grokcore.spec.base import SpecError
from grokcore.spec.networks import UserModelConfig
from grokcore.spec.run import RunSpec

NETWORKS: dict[str, Callable[[Any, Any], nn.Module]] = {
    **{"grokformer": Grokformer, "periodic": PeriodicTransformer, "decoder": Decoder},
    **{"encoder": Encoder, "mlp": MLP, "lstm": LSTM},
}


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


def build_network(spec: RunSpec) -> nn.Module:
    """Return the initialised network of a run on the CPU: a function of the run's initialisation seed alone.

    Raises SpecError for a user's module whose class is not at hand or which draws random numbers in training
    (dropout).
    """
    config = spec.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.derived_seed("init"))
        if not isinstance(config, UserModelConfig):
            model = NETWORKS[config.name](config, spec.task)
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
    tokens = torch.from_numpy(tables.table(spec.task)[0][:64])
    trial = copy.deepcopy(model)
    first, again = trial(tokens), trial(tokens)
    if first.ndim != 2 or first.shape[0] != len(tokens) or first.shape[1] < spec.task.p:
        given, wanted = list(first.shape), f"[{len(tokens)}, {spec.task.p} or more]"
        raise SpecError(f"the module maps tokens {list(tokens.shape)} to {given}; logits have the shape {wanted}")
    if not torch.equal(first, again):
        raise SpecError("the module draws random numbers (dropout?), unknown to the seed: set p=0 or leave it out")
