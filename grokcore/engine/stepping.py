"""What a step takes and gives, and how it is launched: as it is, compiled for a CPU, or as a CUDA graph.

Both graphs take the very step of the program, so that there is one text of it. Compiled by TorchInductor, its
operations are fused into few passes over memory and launched without Python; a CUDA graph launches at once whatever
it consists of.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

COMPILE_FROM = 5_000  # steps left from which compiling pays: it takes 10 to 40 s at first, some 4 s from torch's cache
STEP_MEASURES = (
    *("batch_loss", "batch_accuracy", "grad_norm", "step_weight_norm"),
    *("effective_grad", "effective_lr", "effective_grad_si", "effective_lr_si"),
)

Step = Callable[[Tensor, Tensor, Tensor, dict[str, Tensor]], Tensor]  # rows, weight, keys, scalars -> measures [M, R]


@dataclass
class Inputs:
    """What K steps of R runs take, on the device: batches of N rows, random keys, and the optimizer's H scalars."""

    rows: Tensor  # [K, R, N]
    weight: Tensor  # [K, R, N]: 1/(examples that count), 0 for padding
    keys: Tensor  # [K, R]: of the random numbers of a step (dropout, noise), 0 where there are none
    scalars: Tensor  # [K, H, R, 1]
    names: list[str]  # of the H scalars
    widths: list[int]  # [K]: examples of the largest batch among the runs; no run needs more

    def at(self, k: int, width: int | None = None) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Return rows, weight, keys and scalars of one step, cut to `width` examples."""
        return self.rows[k, :, :width], self.weight[k, :, :width], self.keys[k], self.named(self.scalars[k])

    def named(self, scalars: Tensor) -> dict[str, Tensor]:
        """Return scalars `[H, R, 1]` by name."""
        return dict(zip(self.names, scalars, strict=True))


class StepMeter:
    """Mean, minimum and maximum over steps of measures `[M, R]`, kept on the device until they are read."""

    def __init__(self, n_runs: int, device: torch.device) -> None:
        shape = (len(STEP_MEASURES), n_runs)
        self.sum, self.low, self.high = (torch.empty(shape, dtype=torch.float64, device=device) for _ in range(3))
        self.reset()

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `add` changes."""
        return self.sum, self.low, self.high

    def reset(self) -> None:
        """Forget all steps."""
        self.count = 0
        self.sum.zero_()
        self.low.fill_(torch.inf)
        self.high.fill_(-torch.inf)

    def add(self, values: Tensor) -> None:
        """Take in the measures of one step; who calls counts the steps, since a graph runs this without Python."""
        self.sum += values
        torch.minimum(self.low, values, out=self.low)
        torch.maximum(self.high, values, out=self.high)

    def read(self) -> dict[str, np.ndarray]:
        """Return `<measure>_mean`, `_min` and `_max`, each `[R]` (NaN if no step was taken), and start again."""
        values = torch.stack([self.sum / max(self.count, 1), self.low, self.high]).cpu().numpy()
        values = values if self.count else np.full_like(values, np.nan)
        self.reset()
        kinds = enumerate(("mean", "min", "max"))
        return {f"{name}_{kind}": values[i, m] for i, kind in kinds for m, name in enumerate(STEP_MEASURES)}


def graph_of(
    step: Step, inputs: Inputs, meter: StepMeter, changing: Sequence[Tensor], captures: bool, steps_left: int
) -> StepGraph | None:
    """Return the graph to take the steps of a program with, or None where there is none or it would not pay.

    `changing` is what the step changes in place.

    Warns where the step cannot be compiled (no C++ compiler, or a network that torch cannot trace) and raises
    RuntimeError where it cannot be captured.
    """
    if captures:
        return CapturedStep(step, inputs, meter, changing)
    if inputs.rows.device.type != "cpu" or steps_left < COMPILE_FROM:
        return None
    try:
        return CompiledStep(step, inputs, meter, changing)
    except Exception as error:  # from any part of a compiler; what is wrong with the network the plain step will show
        reason = (str(error).strip().splitlines() or [""])[0]
        message = f"the step is not compiled and will be slower: {type(error).__name__}: {reason}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None


@contextlib.contextmanager
def _restored(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Undo what steps taken in the block change."""
    saved = [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, before in zip(tensors, saved, strict=True):
            tensor.detach().copy_(before)


class CompiledStep:
    """The step compiled for a CPU. A single run is compiled for batches of any size, several for their full width,
    with weight 0 where a smaller one ends.
    """

    name = "compiled"

    def __init__(self, step: Step, inputs: Inputs, meter: StepMeter, changing: Sequence[Tensor]) -> None:
        self.step, self.meter = torch.compile(step, fullgraph=True), meter
        with _restored([*changing, *meter.tensors]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own, on import and on what it leaves unfused
            # always for the full width, so that what is compiled does not hang on the step at which it is
            self.take(replace(inputs, widths=[inputs.rows.shape[2]]), 1)

    def take(self, inputs: Inputs, n: int) -> None:
        """Take the first n steps of the inputs; their measures go to the meter."""
        from torch._dynamo import config as dynamo  # both take seconds to import
        from torch._inductor import config as inductor

        patched = dynamo.patch(trace_autograd_ops=True, automatic_dynamic_shapes=False, recompile_limit=64)
        with patched, inductor.patch(compile_threads=1):  # no processes of its own
            for k in range(n):
                single = inputs.rows.shape[1] == 1
                rows, weight, keys, scalars = inputs.at(k, inputs.widths[k] if single else None)
                if single:
                    rows, weight = rows[0][None], weight[0][None]  # with the strides of a tensor of this size
                    if rows.shape[1] > 1:
                        torch._dynamo.mark_dynamic(rows, 1)
                        torch._dynamo.mark_dynamic(weight, 1)
                self.meter.add(self.step(rows, weight, keys, scalars))


class CapturedStep:
    """The step as a CUDA graph, on inputs at a fixed place. Batches have their full width here, with weight 0 where a
    smaller one ends.

    Raises RuntimeError for a network that waits for the host in its forward pass.
    """

    name = "CUDA graph"

    def __init__(self, step: Step, inputs: Inputs, meter: StepMeter, changing: Sequence[Tensor]) -> None:
        self.step, self.meter = step, meter
        self.fixed = [part[0].clone() for part in self._parts(inputs)]
        with torch.cuda.device(inputs.rows.device), _restored([*changing, *meter.tensors]):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):  # what is set up on first use must not be captured
                    self._step(inputs)
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(self.graph, stream=stream):
                    self._step(inputs)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                if isinstance(error.__context__, torch.OutOfMemoryError):
                    raise error.__context__ from None
                raise RuntimeError(
                    f"the step cannot be captured as a CUDA graph: train with plain=True ({error})"
                ) from error

    def _parts(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return inputs.rows, inputs.weight, inputs.keys, inputs.scalars

    def _step(self, inputs: Inputs) -> None:
        rows, weight, keys, scalars = self.fixed
        self.meter.add(self.step(rows, weight, keys, inputs.named(scalars)))

    def take(self, inputs: Inputs, n: int) -> None:
        """Take the first n steps of the inputs; their measures go to the meter."""
        for k in range(n):
            for fixed, part in zip(self.fixed, self._parts(inputs), strict=True):
                fixed.copy_(part[k])
            self.graph.replay()


StepGraph = CompiledStep | CapturedStep
