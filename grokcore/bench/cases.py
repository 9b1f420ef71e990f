"""The runs that the benchmark times. (The command line needs their names at once: nothing heavy is imported here.)"""

from __future__ import annotations

from grokcore.spec.presets import msu, periodic, pku, pku_sum, power
from grokcore.spec.run import RunSpec

ROUNDS = 3  # of measurements, if no other number is given
CASES: dict[str, RunSpec] = {
    "msu": msu(),
    "periodic-1": periodic(1),
    "periodic-2": periodic(2),
    "decoder": power(),
    "encoder": pku("encoder"),
    "mlp": pku("mlp"),
    "lstm": pku("lstm"),
    "sum-2": pku_sum(2),
    "sum-3": pku_sum(3),
    "sum-4": pku_sum(4),
}
