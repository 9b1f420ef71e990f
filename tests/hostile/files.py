"""Families of damaged files of numbers: cached runs, recorded experiments, kept weights, checkpoints."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from helpers.recorded import record
from hostile.run import EVIL, Box, flipped, payload, strange, tried
from safetensors.numpy import save

from grokcore.engine.snapshot import Snapshot
from grokcore.records import verify
from grokcore.records.record import Record, array_checksum
from grokcore.records.store import Store
from grokcore.spec.presets import msu
from grokcore.sweeps import checkpoint
from grokcore.sweeps.sweep import estimate

RUN, OTHER = msu(), msu(seed=1)


class Payload:
    """An object whose pickle executes what it is given."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return eval, (self.code,)


def pickled(box: Box, rng_protocol: int = 4) -> bytes:
    """Return a pickle that would execute the payload."""
    return pickle.dumps(Payload(payload(box.canary)), rng_protocol)


def same_run(loaded: Record) -> bool:
    """Tell whether a record is the one that was saved; where it comes from is not covered by its checksum."""
    return loaded.checksum == record(RUN).checksum and loaded.curve.equals(record(RUN).curve)


def edited(value: Any, rng: Any) -> Any:
    """Return a copy of JSON values with one thing changed, removed or added, anywhere in it."""
    copy = json.loads(json.dumps(value))
    place, depth = copy, rng.randrange(1, 5)
    for _ in range(depth):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        inner = [key for key in keys if isinstance(place[key], (dict, list)) and place[key]]
        if not inner:
            break
        place = place[rng.choice(inner)]
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    key, kind = rng.choice(keys), rng.randrange(3)
    if kind == 0:
        del place[key]
    else:
        place[key] = json.loads(json.dumps(strange(rng), default=str))
        if kind == 2 and isinstance(place, dict):
            place[rng.choice(EVIL)] = "new"
    return copy


def cached_runs(box: Box) -> Iterator[str]:
    """A run of the cache: bytes damaged, header edited, columns dropped or renamed, another run's file, a pickle."""
    store, rng = Store(box.allowed / "cache", box.allowed / "records"), box.random
    store.save(record(RUN))
    store.save(record(OTHER))
    path = store.cache / f"{RUN.id}.parquet"
    whole, table = path.read_bytes(), pq.read_table(path)
    header = json.loads(table.schema.metadata[b"grokcore"])

    def change_header() -> None:
        new = json.dumps(edited(header, rng)).encode()
        pq.write_table(table.replace_schema_metadata({b"grokcore": new}), path)

    def change_columns() -> None:
        name = rng.choice(table.column_names)
        changed = [
            table.drop_columns([name]),
            table.rename_columns([rng.choice(EVIL[:12]) if c == name else c for c in table.column_names]),
            table.set_column(0, name, pa.array([rng.choice(EVIL[:12])] * len(table))),
            table.take(pa.array(rng.sample(range(5), rng.randrange(5)), pa.int64())),
            table.append_column(rng.choice(EVIL[:12]), pa.array([1.0] * 5)),
        ]
        pq.write_table(rng.choice(changed).replace_schema_metadata(table.schema.metadata), path)

    def change_bytes() -> None:
        path.write_bytes(flipped(whole, rng))

    def exchange() -> None:
        others = [(store.cache / f"{OTHER.id}.parquet").read_bytes(), b"", bytes(500), b"PAR1" * 3, pickled(box)]
        path.write_bytes(rng.choice(others))

    for change in [change_bytes] * 250 + [change_header] * 120 + [change_columns] * 40 + [exchange] * 10:
        change()
        yield tried(lambda: store.load(RUN.id), same_run, path.name, change.__name__)
    path.unlink()
    path.mkdir()
    yield tried(lambda: store.load(RUN.id), same_run, RUN.id, "a folder")


def recorded_experiments(box: Box) -> Iterator[str]:
    """The two files of a recorded experiment; every reader of them, and `runs verify` names what is wrong."""
    store, rng = Store(box.allowed / "cache", box.allowed / "records"), box.random
    for spec in (RUN, OTHER):
        store.save(record(spec))
    store.pack("first", [RUN.id, OTHER.id])
    (store.cache / f"{RUN.id}.parquet").unlink()
    paths = {kind: store.records / f"first.{kind}" for kind in ("json", "parquet")}
    whole = {kind: path.read_bytes() for kind, path in paths.items()}
    content = json.loads(whole["json"])
    lists: list[Any] = ["", "null", "[]", "3", '{"runs": []}', '{"runs": {"a": 3}}', "[" * 100_000, '{"runs": null}']
    for i in range(220):
        kind = "json" if i % 2 else "parquet"
        for other, path in paths.items():
            path.write_bytes(whole[other])
        damaged = flipped(whole[kind], rng)
        if kind == "json" and i % 4 == 1:
            damaged = json.dumps(edited(content, rng)).encode()
        elif i < 2 * len(lists):
            damaged = lists[i // 2].encode() if kind == "json" else rng.choice([b"", bytes(300), pickled(box)])
        paths[kind].write_bytes(damaged)
        fresh = Store(store.cache, store.records)
        end = tried(lambda store=fresh: store.load(RUN.id), same_run, "", f"{kind} {damaged!r:.80}")
        if end.startswith("refused"):
            try:
                damages = [str(damage) for damage in verify.verify(Store(store.cache, store.records))[1]]
                assert any("first." in line for line in damages) or b"first" not in damaged, damages
            except AttributeError as error:
                raise AssertionError(f"verify: {error!r} on {damaged!r:.300}") from error
        tried(
            lambda store=fresh: estimate([RUN], store, 1),
            lambda hours: hours >= 0,
            "first.json",
            damaged.decode("latin1"),
        )
        yield end


def _named_weights(box: Box) -> list[dict[str, np.ndarray]]:
    value = np.arange(4.0)
    return [{f"{step}/W": value} for step in ("../../x", "-1", "1.5", "nan", "", "٣", "1_0", "9" * 30)] + [
        {"W": value},
        {"5": value},
        {"5/": value},
    ]


def kept_weights(box: Box) -> Iterator[str]:
    """The weights of a run: bytes damaged, headers of any size, names that are no steps, another run's, pickles."""
    store, rng = Store(box.allowed / "cache", box.allowed / "records"), box.random
    weights = {5: {"W_E": np.arange(12.0).reshape(3, 4)}, 10: {"W_E": np.ones((3, 4)), "b": np.zeros(2)}}
    store.save(record(RUN), weights)
    store.save(record(OTHER), weights)
    path = store.cache / f"{RUN.id}.safetensors"
    whole = path.read_bytes()
    others = [(store.cache / f"{OTHER.id}.safetensors").read_bytes(), b"", bytes(64), pickled(box), pickled(box, 0)]
    others += [size.to_bytes(8, "little") + whole[8:] for size in (0, 1, 2**31, 2**63, 2**64 - 1, 10**9)]
    others += [len(head).to_bytes(8, "little") + head for head in (b"{}", b"[]", b"null", b"[" * 50_000, b'{"a":3}')]
    for flat in _named_weights(box):
        others += [save(flat), save(flat, {"sha256": array_checksum(flat)})]
        others.append(save(flat, {"sha256": array_checksum(flat, RUN.id.encode())}))

    def same(loaded: dict[int, dict[str, np.ndarray]]) -> bool:
        return list(loaded) == [5, 10] and all(
            np.array_equal(loaded[step][name], value)
            for step, arrays in weights.items()
            for name, value in arrays.items()
        )

    for damaged in [*others, *(flipped(whole, rng) for _ in range(260))]:
        path.write_bytes(damaged)
        yield tried(lambda: store.weights(RUN.id), same, path.name, f"{damaged[:200]!r}")


def checkpoints(box: Box) -> Iterator[str]:
    """A checkpoint: bytes damaged, and headers edited with a checksum that fits, as a hostile one would have."""
    rng, path = box.random, box.allowed / "0123456789abcdef.safetensors"
    curve = {"step": np.arange(3), "val_loss": np.ones(3, np.float32)}
    snapshot = Snapshot([RUN.id], [RUN.id], 3, 0, 1.5, {}, {RUN.id: curve}, {RUN.id: {2: {"W": np.ones(2)}}})
    snapshot.state = {"theta": np.arange(6.0)}
    checkpoint.write(path, snapshot, {"device": "cpu"})
    whole, (header, _, flat) = path.read_bytes(), checkpoint._open(path, with_arrays=True)

    def same(loaded: Snapshot) -> bool:
        checkpoint.write(box.allowed / "again", loaded, {"device": "cpu"})
        again = checkpoint._open(box.allowed / "again", with_arrays=True)
        return again[1] == checkpoint._checksum(header, flat)

    def hostile() -> bytes:
        new, arrays = edited(header, rng), dict(flat)
        if rng.random() < 0.5:
            name = rng.choice(["weights/x", "curve/x/y", "weights/a/../../x/W", "weights/a/one/W", "x", "", "../../x"])
            new, arrays[name] = header, np.ones(1)
        return save(arrays, {"grokcore": json.dumps(new), "sha256": checkpoint._checksum(new, arrays)})

    def plain(loaded: Snapshot) -> bool:
        kinds = (isinstance(loaded.runs, list), isinstance(loaded.step, int), isinstance(loaded.ended, dict))
        return all(kinds) and set(loaded.curves) == set(loaded.runs)

    others = [b"", bytes(64), pickled(box), (2**62).to_bytes(8, "little") + whole[8:]]
    for damaged in [*others, *(flipped(whole, rng) for _ in range(230))]:
        path.write_bytes(damaged)
        yield tried(lambda: checkpoint.read(path), same, path.name, f"{damaged[:200]!r}")
    for _ in range(100):
        path.write_bytes(hostile())
        yield tried(lambda: checkpoint.read(path), plain, path.name, f"{path.read_bytes()[:400]!r}")


def measured_by_csv(box: Box) -> Iterator[str]:
    """The measurements recorded as CSV: cut, edited, not text at all."""
    from grokcore.analysis import fourier, invariance, predictions
    from grokcore.records import weight_tables

    store, rng = Store(box.allowed / "cache", box.allowed / "records"), box.random
    store.records.mkdir(parents=True)
    run = {"run": ["aa", "aa"]}
    tables = {
        predictions: {**run, "step": [0, 5], "answers": ["1 2 3", "4 5 6"]},
        fourier: {**run, "step": [0, 0], "measure": ["share", "key"], "frequency": [1, 1], "value": [0.5, 1.0]},
        invariance: {
            **run,
            "parameter": ["W_E", "b"],
            "n_weights": [12, 3],
            "change": [0.5, 0.1],
            "scale_invariant": 0,
        },
    }
    for module, table in tables.items():
        path: Path = store.records / module.FILE
        weight_tables.write(path, pd.DataFrame(table), digits=6)
        text, whole = path.read_text(), module.recorded(store)
        wrong = [b"", b"\x00", b"\xff\xfe", text.replace("5", "9" * 40).encode(), b"run\n=1\n", pickled(box), b'"' * 9]
        for damaged in [*wrong, *(flipped(text.encode(), rng) for _ in range(70))]:
            path.write_bytes(damaged)

            def recorded(module: Any = module) -> pd.DataFrame:
                return module.recorded(store)

            yield tried(recorded, whole.equals, path.name, damaged)


FAMILIES = {
    "cached runs": cached_runs,
    "recorded experiments": recorded_experiments,
    "kept weights": kept_weights,
    "checkpoints": checkpoints,
    "measurements (CSV)": measured_by_csv,
}
