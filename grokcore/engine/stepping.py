"""What a step takes and returns, and how it is launched: as it is, compiled for a CPU, or as a CUDA graph.

Both graphs are made of `Program.step`, so that the step is written once. Compiled by TorchInductor, its operations are
fused into few passes over memory and launched without Python; a CUDA graph launches all its kernels at once.
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
    "batch_loss",
    "batch_accuracy",
    "grad_norm",
    "step_weight_norm",
    "effective_grad",
    "effective_lr",
    "effective_grad_si",
    "effective_lr_si",
)

Step = Callable[[Tensor, Tensor, Tensor, dict[str, Tensor]], Tensor]  # rows, weight, keys, scalars -> measures [M, R]


@dataclass
class Inputs:
    """What K steps of R runs take, on the device: batches of N rows, random keys, and the optimizer's H scalars.

    Attributes:
        rows: row numbers `[K, R, N]`.
        weight: `[K, R, N]`, 1/(examples that count) for these examples and 0 for padding.
        keys: keys `[K, R]` of the random numbers of each step (dropout, noise), 0 where there are none.
        scalars: scalars of the optimizer, `[K, H, R, 1]`.
        names: names of the H scalars.
        widths: number of examples of the largest batch among the runs, one entry for each of the K steps.
    """

    rows: Tensor
    weight: Tensor
    keys: Tensor
    scalars: Tensor
    names: list[str]
    widths: list[int]

    def at(self, k: int, width: int | None = None) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Return rows and weight `[R, width]`, keys `[R]` and scalars `[R, 1]` by name of step k of these."""
        return self.rows[k, :, :width], self.weight[k, :, :width], self.keys[k], self.named(self.scalars[k])

    def named(self, scalars: Tensor) -> dict[str, Tensor]:
        """Return scalars `[H, R, 1]` by name."""
        return dict(zip(self.names, scalars, strict=True))


class StepMeter:
    """Mean, minimum and maximum over steps of the M `STEP_MEASURES`, kept on the device until they are read."""

    def __init__(self, n_runs: int, device: torch.device) -> None:
        shape = (len(STEP_MEASURES), n_runs)
        self.sum, self.low, self.high = (torch.empty(shape, dtype=torch.float64, device=device) for _ in range(3))
        self.reset()

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tensors that `add` changes in place."""
        return self.sum, self.low, self.high

    def reset(self) -> None:
        """Forget all steps."""
        self.count = 0
        self.sum.zero_()
        self.low.fill_(torch.inf)
        self.high.fill_(-torch.inf)

    def add(self, values: Tensor) -> None:
        """Add the measures `[M, R]` of one step.

        The caller raises `count`, since a CUDA graph runs this without Python.
        """
        self.sum += values
        torch.minimum(self.low, values, out=self.low)
        torch.maximum(self.high, values, out=self.high)

    def read(self) -> dict[str, np.ndarray]:
        """Return `<measure>_mean`, `_min` and `_max`, each `[R]` (NaN if no step was taken), and start again."""
        values = torch.stack([self.sum / max(self.count, 1), self.low, self.high]).cpu().numpy()
        values = values if self.count else np.full_like(values, np.nan)
        self.reset()
        statistics = enumerate(("mean", "min", "max"))
        return {f"{name}_{kind}": values[i, m] for i, kind in statistics for m, name in enumerate(STEP_MEASURES)}


def graph_of(
    step: Step, inputs: Inputs, meter: StepMeter, changing: Sequence[Tensor], captures: bool, steps_left: int
) -> StepGraph | None:
    """Return the graph with which the steps of a program are taken, or None if there is none or it would not pay.

    It warns if the step cannot be compiled (no C++ compiler, or a network that torch cannot trace).

    Args:
        step: the step of the program.
        inputs: the inputs of its next steps; they are not consumed.
        meter: where the measures of the steps go.
        changing: the tensors that the step changes in place.
        captures: whether the step is captured as a CUDA graph.
        steps_left: steps until the end of the budget.

    Raises:
        RuntimeError: if the step cannot be captured.
    """
    if captures:
        return CapturedStep(step, inputs, meter, changing)
    if inputs.rows.device.type != "cpu" or steps_left < COMPILE_FROM:
        return None
    try:
        return CompiledStep(step, inputs, meter, changing)
    except Exception as error:  # from any part of a compiler; if the network is at fault, the plain step will show it
        reason = (str(error).strip().splitlines() or [""])[0]
        message = f"the step is not compiled and will be slower: {type(error).__name__}: {reason}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None


@contextlib.contextmanager
def _restored(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Restore tensors at the end of the block, whatever steps taken in it change."""
    saved = [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, before in zip(tensors, saved, strict=True):
            tensor.detach().copy_(before)


class CompiledStep:
    """The step compiled for a CPU.

    A single run is compiled for batches of any size, several for their full width, with weight 0 where a smaller batch
    ends.
    """

    name = "compiled"

    def __init__(self, step: Step, inputs: Inputs, meter: StepMeter, changing: Sequence[Tensor]) -> None:
        self.step, self.meter = torch.compile(step, fullgraph=True), meter
        with _restored([*changing, *meter.tensors]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own, on import and on what it leaves unfused
            # always for the full width, so that the compiled code does not depend on the step at which it is made
            self.take(replace(inputs, widths=[inputs.rows.shape[2]]), 1)

    def take(self, inputs: Inputs, n: int) -> None:
        """Take the first n steps of the inputs and add their measures to the meter."""
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
    """The step as a CUDA graph, which reads its inputs from fixed addresses.

    Batches have their full width, with weight 0 where a smaller one ends.

    Raises:
        RuntimeError: for a network that waits for the host in its forward pass.
    """

    name = "CUDA graph"

    def __init__(self, step: Step, inputs: Inputs, meter: StepMeter, changing: Sequence[Tensor]) -> None:
        self.step, self.meter = step, meter
        self.fixed = [tensor[0].clone() for tensor in self._input_tensors(inputs)]
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

    def _input_tensors(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return inputs.rows, inputs.weight, inputs.keys, inputs.scalars

    def _step(self, inputs: Inputs) -> None:
        rows, weight, keys, scalars = self.fixed
        self.meter.add(self.step(rows, weight, keys, inputs.named(scalars)))

    def take(self, inputs: Inputs, n: int) -> None:
        """Take the first n steps of the inputs and add their measures to the meter."""
        for k in range(n):
            for fixed, tensor in zip(self.fixed, self._input_tensors(inputs), strict=True):
                fixed.copy_(tensor[k])
            self.graph.replay()


StepGraph = CompiledStep | CapturedStep
