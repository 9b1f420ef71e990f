"""The network of a run: one of the sources' or a user's own module, initialised from the run's seed.

The networks of the sources are in `decoders` and `pku`, built of `blocks`. `grokcore.engine.program` trains R of them
at once.
"""

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
    "grokformer": Grokformer,
    "periodic": PeriodicTransformer,
    "decoder": Decoder,
    "encoder": Encoder,
    "mlp": MLP,
    "lstm": LSTM,
}


def user_model(module_class: type[nn.Module], **arguments: Any) -> UserModelConfig:
    """Return the specification of a user's own network, to be the `model` of a run.

    The network is known by the source of its class and by its arguments: a change of either makes another run.

    Args:
        module_class: a class of modules that map tokens `[N, T]` (int64) to logits `[N, V]` with V ≥ p. It may be
            defined in a file or in a notebook cell.
        **arguments: keyword arguments of the class, plain JSON values.

    Raises:
        SpecError: if the source of the class cannot be read, or an argument is no plain JSON value.

    Example:
        >>> from grokcore.spec.presets import msu
        >>> model = user_model(nn.EmbeddingBag, num_embeddings=97, embedding_dim=97)  # logits: a mean of embeddings
        >>> build_network(msu(model=model, weight_decay=0.1))
        EmbeddingBag(97, 97, mode='mean')
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
    """Return the initialised network of a run, on the CPU: a function of the run's initialisation seed alone.

    Args:
        spec: the run.

    Returns:
        A module that maps tokens `[N, T]` to logits `[N, V]`, in the precision of the run.

    Raises:
        SpecError: for a user's network whose class is not known (the run was read from a record), whose logits have
            another shape, or which draws random numbers in training (dropout).
    """
    config = spec.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.derived_seed("init"))
        if not isinstance(config, UserModelConfig):
            network = NETWORKS[config.name](config, spec.task)
        elif config.module_class is None:
            raise SpecError(
                f"the class of model {config.class_name!r} is not known (the run was read from a record): "
                f"give grokcore.user_model({config.class_name}, …)"
            )
        else:
            network = config.module_class(**config.arguments)
            _check_user_model(network, spec)
    return network.to(getattr(torch, spec.precision))


@torch.no_grad()
def _check_user_model(network: nn.Module, spec: RunSpec) -> None:
    """Check on some rows that a user's network gives logits `[N, V ≥ p]`, and the same ones for the same rows."""
    tokens = torch.from_numpy(tables.table(spec.task)[0][:64])
    trial = copy.deepcopy(network)
    logits, repeated = trial(tokens), trial(tokens)
    if logits.ndim != 2 or logits.shape[0] != len(tokens) or logits.shape[1] < spec.task.p:
        raise SpecError(
            f"the module maps tokens {list(tokens.shape)} to {list(logits.shape)}; "
            f"logits have the shape [{len(tokens)}, {spec.task.p} or more]"
        )
    if not torch.equal(logits, repeated):
        raise SpecError("the module draws random numbers (dropout?), unknown to the seed: set p=0 or leave it out")
