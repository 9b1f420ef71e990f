"""R runs as one program: flat weights `[R, P]` on a device, and the step and the evaluation of all runs at once.

The networks read views of the flat weights. With R = 1 the network is called as it is, with more it is lifted by
`torch.func.vmap`. Batches and hyperparameters of all steps between two evaluations are on the device before the first
of these steps, and measures stay there until the last, so that no step waits for the host. Steps are compiled or
captured where that pays (`stepping`).

`train` decides which steps are taken and when runs are evaluated; `Program.step` is the step itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from grokcore.engine import batches, measures, optimizers
from grokcore.engine.compatibility import kinds_of_noise
from grokcore.engine.stepping import Inputs, StepGraph, StepMeter, graph_of
from grokcore.nn import counter_rng
from grokcore.nn.build import build_network
from grokcore.spec import tables
from grokcore.spec.run import RunSpec

UPDATE_NOISE, WEIGHT_NOISE = 1_000_000, 2_000_000  # streams of random numbers, apart from those of dropout
EVALUATION_ROWS = {"mlp": 4096}  # rows of a forward pass in an evaluation, to stay in a CPU's cache; 512 for others


class Program:
    """The state of R runs: `advance` takes steps, `evaluate` measures, `keep` lets runs that have ended leave.

    Args:
        specs: the runs; all have one `program_key`.
        device: where they are trained.
        plain: leave out first-token sharing, compilation and CUDA graphs: the same batches, only slower.
    """

    def __init__(self, specs: Sequence[RunSpec], device: torch.device, *, plain: bool = False) -> None:
        self.specs, self.device, self.optimizer = list(specs), device, specs[0].optimizer.name
        networks = [build_network(spec) for spec in specs]
        self.model = networks[0].to(device)
        self.shapes = {name: p.shape for name, p in self.model.named_parameters() if p.requires_grad}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        flat = [torch.cat([p.detach().flatten().cpu() for p in self._trained(net)]) for net in networks]
        self.theta = torch.stack(flat).to(device)  # [R, P]
        fixed = [self._fixed(network) for network in networks]
        self.fixed = {name: torch.stack([tensors[name].to(device) for tensors in fixed]) for name in fixed[0]}
        self.state = optimizers.init_state(
            self.optimizer, self.theta, getattr(specs[0].optimizer, "decay_to_init", False)
        )
        sharing_pays = specs[0].task.p < specs[0].batch_size  # a shared position costs p examples
        can_share = getattr(self.model, "shares_first_token", False)
        self.options = {"share": True} if sharing_pays and can_share and not plain else {}
        self.drops = specs[0].dropout > 0
        self.noisy_weights, self.noisy_updates = kinds_of_noise(specs[0])
        self.clips = specs[0].clip_grad_norm > 0
        self.plain, self.captures = plain, device.type == "cuda" and not plain
        invariant = set(getattr(self.model, "scale_invariant", ()))
        marks = torch.cat([torch.full((s.numel(),), float(n in invariant)) for n, s in self.shapes.items()])
        self.mask = marks.to(self.theta) if invariant else None  # [P]
        self._load_data()
        self.previous = self.theta.clone()
        self._attach()

    def _load_data(self) -> None:
        """Put the tables and the splits of all runs on the device."""
        tables_of_runs = [tables.table(spec.task) for spec in self.specs]
        self.tokens = torch.from_numpy(tables_of_runs[0][0]).to(self.device)  # [rows, T]
        self.labels = torch.from_numpy(np.stack([labels for _, labels in tables_of_runs])).to(self.device)  # [R, rows]
        train = np.zeros(self.labels.shape, dtype=bool)
        for run, spec in enumerate(self.specs):
            train[run, batches.split(spec)[0]] = True
        self.train_mask = torch.from_numpy(train).to(self.device)
        self.answers = torch.zeros_like(self.labels)

    def _trained(self, network: nn.Module) -> list[nn.Parameter]:
        return [parameter for name, parameter in network.named_parameters() if name in self.shapes]

    def _fixed(self, network: nn.Module) -> dict[str, Tensor]:
        """Return buffers and frozen parameters, which differ between runs but are not trained."""
        frozen = {name: p.detach() for name, p in network.named_parameters() if name not in self.shapes}
        return dict(network.named_buffers()) | frozen

    def _weights_by_name(self) -> dict[str, Tensor]:
        """Return the weights of all runs by name, as views `[R, size]` of the flat ones."""
        return dict(zip(self.shapes, self.theta.split(self.sizes, dim=1), strict=True))

    def _attach(self) -> None:
        """Make the leaves that gradients are taken of; with R = 1 they are the network's own parameters."""
        shaped = {name: weight.view(-1, *self.shapes[name]) for name, weight in self._weights_by_name().items()}
        self.single = len(self.specs) == 1
        self.meter = StepMeter(len(self.specs), self.device)
        self.graph: StepGraph | None = None
        self.since: int | None = None  # the step since which these runs are trained together
        self.asked = False  # whether a graph was asked for
        self.ahead: tuple[tuple[int, int], Inputs] | None = None  # first and last step, and inputs drawn ahead
        if not self.single:
            self.leaves: dict[str, Tensor] = {name: view.detach().requires_grad_() for name, view in shaped.items()}
            return
        self.leaves = dict(zip(self.shapes, self._trained(self.model), strict=True))
        for name, leaf in self.leaves.items():
            leaf.data = shaped[name][0]
        for name, value in self._fixed(self.model).items():
            value.copy_(self.fixed[name][0])

    def _changing(self) -> list[Tensor]:
        """Return the tensors that a step changes in place, with the buffers of a user's network."""
        return [self.theta, *self.state.values(), *self.fixed.values(), *self.model.buffers()]

    @property
    def engine(self) -> str:
        """How steps are taken: "plain", "eager", "compiled" or "CUDA graph"."""
        return "plain" if self.plain else self.graph.name if self.graph is not None else "eager"

    def logits(self, tokens: Tensor, keys: Tensor | None = None) -> Tensor:
        """Return the logits of all runs.

        Args:
            tokens: `[R, N, T]`, or `[N, T]` common to all runs.
            keys: keys `[R]` of the random numbers of a step, for dropout; without them nothing is dropped.

        Returns:
            Logits `[R, N, V]`.
        """
        common = tokens.ndim == 2
        if self.single:
            options = self.options if keys is None else {"key": keys[0]}
            return self.model(tokens if common else tokens[0], **options)[None]

        def single_run(leaves: dict[str, Tensor], fixed: dict[str, Tensor], tokens: Tensor, key: Tensor) -> Tensor:
            options = self.options if keys is None else {"key": key}
            return functional_call(self.model, (leaves, fixed), (tokens,), options)

        run_keys = torch.zeros(len(self.specs), dtype=torch.int64, device=self.device) if keys is None else keys
        in_dims = (0, 0, None if common else 0, 0)
        return vmap(single_run, in_dims=in_dims)(self.leaves, self.fixed, tokens, run_keys)

    def advance(self, start: int, stop: int, following: int | None = None) -> None:
        """Take steps start..stop-1 of every run and add their measures to `meter`.

        Args:
            start: first step.
            stop: step after the last.
            following: while a GPU computes these steps, the inputs of the steps from `stop` to this one are drawn.
        """
        ahead, self.ahead = self.ahead, None
        inputs = ahead[1] if ahead is not None and ahead[0] == (start, stop) else self.inputs(start, stop)
        if start < stop and not self.asked and not self.plain:
            self.since, self.asked = start if self.since is None else self.since, True
            left = self.specs[0].steps - self.since  # not from here, so that a resumed program takes the same engine
            self.graph = graph_of(self.step, inputs, self.meter, self._changing(), self.captures, left)
        if self.graph is not None:
            self.graph.take(inputs, stop - start)
        else:
            for k in range(stop - start):
                self.meter.add(self.step(*inputs.at(k, inputs.widths[k])))
        self.meter.count += stop - start
        if self.captures and following is not None:
            self.ahead = (stop, following), self.inputs(stop, following)

    def step(self, rows: Tensor, weight: Tensor, keys: Tensor, h: dict[str, Tensor]) -> Tensor:
        """Advance every run by one step.

        Args:
            rows: row numbers of the batches, `[R, N]`.
            weight: `[R, N]`, 1/(examples that count) for these examples and 0 for padding.
            keys: keys `[R]` of the step's random numbers.
            h: the optimizer's scalars by name, each `[R, 1]`.

        Returns:
            `STEP_MEASURES` before the update, `[M, R]`.
        """
        before = self._disturb(keys, h) if self.noisy_weights else None
        logits = self.logits(self.tokens[rows], keys if self.drops else None)
        loss, accuracy = measures.batch_measures(logits, self.labels.gather(1, rows), weight)
        grads = torch.autograd.grad(loss.sum(), list(self.leaves.values()))
        with torch.no_grad():
            if before is not None:
                self.theta.copy_(before)
            grad = torch.cat([g.reshape(len(self.specs), -1) for g in grads], dim=1)
            grad_norm, grad_si = measures.norms(grad, self.mask)
            norm, norm_si = measures.norms(self.theta, self.mask)
            lr = h["lr"][:, 0]
            effective = (grad_norm * norm, lr / norm**2, grad_si * norm_si, lr / norm_si**2)
            if self.clips:  # the measures are those of the unclipped gradient
                grad = grad * (h["clip_grad_norm"] / (grad_norm[:, None] + 1e-6)).clamp(max=1)  # as torch's own
            optimizers.update(self.optimizer, self.theta, grad, self.state, h)
            if self.noisy_updates:
                self.theta.add_(self._normal(keys, UPDATE_NOISE) * h["noise"])
            return torch.stack([loss.detach(), accuracy, grad_norm, norm, *effective])

    @torch.no_grad()
    def _disturb(self, keys: Tensor, h: dict[str, Tensor]) -> Tensor:
        """Add noise to the weights, and return them as they were before."""
        before = self.theta.clone()
        self.theta.add_(self._normal(keys, WEIGHT_NOISE) * h["weight_noise"])
        return before

    def _normal(self, keys: Tensor, stream: int) -> Tensor:
        """Return a standard normal number for every weight of every run, `[R, P]`."""
        draws = vmap(lambda key: counter_rng.normal(key, stream, (self.theta.shape[1],)))(keys)
        return draws.to(self.theta.dtype)

    @torch.no_grad()
    def evaluate(self) -> dict[str, Tensor]:
        """Evaluate all runs on their whole training and validation sets.

        Returns:
            By name, each `[R]`: losses and accuracies of both sets, the share of rows whose predicted label is that of
            the last evaluation (`answers_kept`, `answers_kept_val`), norms of the weights, and the cosine between the
            weights of the last evaluation and these.
        """
        size = EVALUATION_ROWS.get(self.specs[0].model.name, 512)
        chunks = zip(self.tokens.split(size), self.labels.split(size, dim=1), strict=True)
        logits = [(self.logits(tokens), labels) for tokens, labels in chunks]
        losses = torch.cat([measures.row_losses(x, y) for x, y in logits], dim=1)  # [R, rows]
        predicted = torch.cat([x.argmax(-1) for x, _ in logits], dim=1)
        correct, kept = (predicted == self.labels).to(losses), (predicted == self.answers).to(losses)
        norm, norm_si = measures.norms(self.theta, self.mask)
        norm_by_name = {f"norm:{name}": weight.norm(dim=1) for name, weight in self._weights_by_name().items()}
        evaluated = measures.split_means({"loss": losses, "accuracy": correct}, self.train_mask)
        evaluated |= {
            "answers_kept": measures.masked_mean(kept, self.train_mask),
            "answers_kept_val": measures.masked_mean(kept, ~self.train_mask),
            "weight_norm": norm,
            "weight_norm_sum": torch.stack(list(norm_by_name.values())).sum(0),
            "weight_norm_si": norm_si,
            "weight_cosine": measures.cosine(self.theta, self.previous),
        }
        self.answers, self.previous = predicted, self.theta.clone()
        return evaluated | norm_by_name

    def inputs(self, start: int, stop: int) -> Inputs:
        """Return what steps start..stop-1 take, drawn on the host and sent to the device together."""
        rows_and_counts = [batches.batches(spec, start, stop) for spec in self.specs]
        counts = np.stack([run_counts for _, run_counts in rows_and_counts], axis=1)  # [K, R]
        width = max(run_rows.shape[1] for run_rows, _ in rows_and_counts)
        rows = np.zeros((stop - start, len(self.specs), width), dtype=np.int64)  # [K, R, N]
        for run, (run_rows, _) in enumerate(rows_and_counts):
            rows[:, run, : run_rows.shape[1]] = run_rows
        keys = np.stack([batches.step_keys(spec, start, stop) for spec in self.specs], axis=1)  # [K, R]
        weight = (np.arange(width) < counts[..., None]) / counts[..., None]
        scalars = optimizers.hyperparameters(self.specs, start, stop)

        def send(values: np.ndarray, dtype: torch.dtype) -> Tensor:
            host = torch.from_numpy(values).to(dtype)
            return (host.pin_memory() if self.device.type == "cuda" else host).to(self.device, non_blocking=True)

        return Inputs(
            rows=send(rows, torch.int64),
            weight=send(weight, self.theta.dtype),
            keys=send(keys, torch.int64),
            scalars=send(np.stack(list(scalars.values()), axis=1), self.theta.dtype),
            names=list(scalars),
            widths=counts.max(axis=1).tolist(),
        )

    def weights(self, run: int) -> dict[str, np.ndarray]:
        """Return the weights of one run by name, copied to the host."""
        return {
            name: weight[run].view(self.shapes[name]).cpu().numpy().copy()
            for name, weight in self._weights_by_name().items()
        }

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return what further steps depend on, by name, copied to the host; to be taken after an evaluation."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self._lasting().items()}

    def restore(self, state: dict[str, np.ndarray], since: int | None) -> None:
        """Continue from what `snapshot` returned for the same runs, which are trained together since that step."""
        with torch.no_grad():
            for name, tensor in self._lasting().items():
                tensor.copy_(torch.from_numpy(state[name]))
        self.since = since

    def _lasting(self) -> dict[str, Tensor]:
        """Return the tensors that outlast an evaluation, by name; `restore` writes into them."""
        buffers = self._fixed(self.model) if self.single else self.fixed
        lasting = {"theta": self.theta, "answers": self.answers, "previous": self.previous}
        lasting |= {f"optimizer/{name}": tensor for name, tensor in self.state.items()}
        return lasting | {f"fixed/{name}": tensor for name, tensor in buffers.items()}

    def keep(self, runs: list[int]) -> None:
        """Continue with these runs alone (their indices); the others have ended and leave the batch."""
        chosen = torch.tensor(runs, device=self.device)
        self.specs = [self.specs[run] for run in runs]
        for name in ("theta", "labels", "train_mask", "answers", "previous"):
            setattr(self, name, getattr(self, name)[chosen])
        self.state = {key: value[chosen] for key, value in self.state.items()}
        self.fixed = {key: value[chosen] for key, value in self.fixed.items()}
        self._attach()
