"""What all tests share: one thread a process, and a store that is empty and thrown away."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the networks are too small for more

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from helpers.recorded import RUNS, record  # noqa: E402

from grokcore.records.store import Store  # noqa: E402
from grokcore.sweeps import worker  # noqa: E402

LONGEST = [
    "sweeps/test_survival",
    "report/test_build",
    "sweeps/test_dask",
    "hostile/test_hostile",
    "test_readme",
    "sweeps/test_interruption",
    "cli/test_main",
    "bench/test_gpu_check",
    "engine/test_parity",
    "bench/test_benchmark",
    "sweeps/test_checkpoint",
    "test_architecture",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that two processes end together."""
    tests = Path(__file__).parent
    place = {tests / f"{name}.py": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session", autouse=True)
def commit_is_known() -> None:
    """Ask git for the commit, which a process does once, before a test that hides all programs trains a run."""
    worker._commit()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store in a temporary folder."""
    return Store(cache=tmp_path / "cache", records=tmp_path / "records")


@pytest.fixture
def packed(store: Store) -> Store:
    """Two experiments in the records, of the made-up runs 0 and 2 and of run 1, and nothing in the cache."""
    for spec in RUNS:
        store.save(record(spec))
    store.pack("first", [RUNS[0].id, RUNS[2].id])
    store.pack("second", [RUNS[1].id])
    return Store(store.cache.parent / "empty", store.records)
