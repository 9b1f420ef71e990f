"""The matmul bound holds exactly the matrix products of a step."""

import pytest
import torch

from grokcore.bench import matmul_bound
from grokcore.engine.program import Program
from grokcore.spec.presets import msu, periodic
from grokcore.spec.run import RunSpec, replace

SMALL = msu(p=11, d_model=8, d_mlp=12, n_heads=2, batch_size=16)
CPU = torch.device("cpu")


def by_hand(n: int, table: int, d: int, m: int, v: int, layers: int) -> int:
    """Operations of the products of a shared Grokformer's step: n examples, a table of first tokens, width d, MLP m.

    Products come forward, and twice backward; the shared position goes through every block but the last's end.
    """
    forward = 2 * table * d * 3 * d  # queries, keys, values of both positions, once a token
    for layer in range(layers):
        last = layer == layers - 1
        rows = n if last else n + table  # the shared position leaves the last block with its keys and values
        forward += rows * (d * d + 2 * d * m)
        forward += 0 if last else (n + table) * 3 * d * d
    return 3 * 2 * (forward + n * d * v)


@pytest.mark.parametrize(("batch", "layers"), [(16, 1), (16, 2), (20, 3)])
def test_operations_are_those_counted_by_hand(batch: int, layers: int) -> None:
    spec = replace(SMALL, batch_size=batch, n_layers=layers)
    products = matmul_bound.products(Program([spec], CPU))
    assert sum(product.flops for product in products) == by_hand(batch, 11 + 2, 8, 12, 13, layers)


@pytest.mark.parametrize("spec", [SMALL, periodic(p=11, d_model=8, d_mlp=12, n_heads=2, batch_size=16)])
def test_runs_of_one_program_make_their_products_each(spec: RunSpec) -> None:
    one = sum(product.flops for product in matmul_bound.products(Program([spec], CPU)))
    three = matmul_bound.products(Program([replace(spec, seed=seed) for seed in range(3)], CPU))
    assert sum(product.flops for product in three) == 3 * one


def test_products_are_made_with_the_shapes_and_layouts_of_the_step() -> None:
    products = matmul_bound.products(Program([SMALL], CPU))
    bound = matmul_bound.MatmulBound(Program([replace(SMALL, alpha=16 / 110)], CPU))
    bound.steps(2)
    for product, (_, (a, b, out)) in zip(products, bound.operands, strict=True):
        assert (a.shape, b.shape) == product.sizes and (a.stride(), b.stride()) == product.strides
        torch.testing.assert_close(out, a @ b)
    assert bound.flops == sum(product.flops for product in products)


def test_the_smaller_last_batch_of_an_epoch_has_its_share() -> None:
    spec = replace(SMALL, alpha=40 / 110)  # 40 rows: batches of 16, 16 and 8
    program = Program([spec], CPU)
    full, ragged = (sum(product.flops for product in matmul_bound.products(program, step)) for step in (0, 2))
    assert ragged < full
    bound = matmul_bound.MatmulBound(program)
    assert bound.flops == pytest.approx((2 * full + ragged) / 3)
    assert sum(share for share, _ in bound.operands) == pytest.approx(len(bound.operands) / 2)
