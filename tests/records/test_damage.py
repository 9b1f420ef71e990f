"""Damaged records: cut short, edited, exchanged; each is refused with its file and its run, never read as data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.recorded import RUNS, record, same

from grokcore.records.record import RecordError
from grokcore.records.store import Store
from grokcore.spec.presets import msu


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit_of_a_number(path: Path) -> None:
    """Change one stored value and leave the file readable, as an edit or a failing disk may."""
    table = pq.read_table(path)
    column = table.column_names.index("val_loss")
    values = table["val_loss"].to_numpy().copy()
    values.view(np.uint32)[-1] ^= 1  # the last bit of one number
    pq.write_table(table.set_column(column, "val_loss", [values]), path)


def edit_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the specification or status stored beside a curve."""
    table = pq.read_table(path)
    header = json.loads(table.schema.metadata[b"grokcore"])
    change(header)
    pq.write_table(table.replace_schema_metadata({b"grokcore": json.dumps(header).encode()}), path)


def swap_status(header: dict[str, Any]) -> None:
    header["status"] = "nonfinite"


def change_spec(header: dict[str, Any]) -> None:
    header["spec"]["alpha"] = 0.41


def impossible_spec(header: dict[str, Any]) -> None:
    header["spec"]["alpha"] = 4


def drop_checksum(header: dict[str, Any]) -> None:
    del header["sha256"]


def drop_spec(header: dict[str, Any]) -> None:
    del header["spec"]


def drop_column(header: dict[str, Any]) -> None:
    header["columns"].remove("val_loss")


HEADERS = [swap_status, change_spec, impossible_spec, drop_checksum, drop_spec, drop_column]


@pytest.mark.parametrize("damage", [truncate, cut_in_half, empty, flip_a_bit_of_a_number])
def test_a_damaged_file_of_the_cache_is_refused(store: Store, damage: Callable[[Path], None]) -> None:
    store.save(record(msu()))
    store.save(record(msu(seed=1)))
    damage(store.cache / f"{msu().id}.parquet")
    with pytest.raises(RecordError, match=msu().id) as caught:
        store.load(msu().id)
    assert f"{msu().id}.parquet" in str(caught.value) and "delete it from the cache" in str(caught.value)
    same(store.load(msu(seed=1).id), record(msu(seed=1)))


def test_no_flipped_bit_goes_unnoticed(store: Store) -> None:
    """Any byte of a file: the run is refused, or what was changed is neither its numbers nor its specification."""
    store.save(record(msu()))
    path = store.cache / f"{msu().id}.parquet"
    whole, refused = path.read_bytes(), 0
    places = range(0, len(whole), len(whole) // 80)
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            assert store.load(msu().id).checksum == record(msu()).checksum
        except RecordError:
            refused += 1
    assert refused > len(places) / 2


def test_weights_cut_short_are_refused(store: Store) -> None:
    store.save(record(msu()), {5: {"W": np.arange(4.0)}})
    truncate(store.cache / f"{msu().id}.safetensors")
    with pytest.raises(RecordError, match=f"{msu().id}.safetensors"):
        store.weights(msu().id)


@pytest.mark.parametrize("change", HEADERS, ids=lambda change: change.__name__)
def test_an_edited_file_of_the_cache_is_refused(store: Store, change: Callable[[dict[str, Any]], None]) -> None:
    store.save(record(msu()))
    edit_header(store.cache / f"{msu().id}.parquet", change)
    with pytest.raises(RecordError, match=f"{msu().id}.parquet.*run {msu().id}"):
        store.load(msu().id)


def test_a_file_of_another_run_or_without_a_header_is_refused(store: Store) -> None:
    store.save(record(msu(seed=1)))
    path = store.cache / f"{msu().id}.parquet"
    path.write_bytes((store.cache / f"{msu(seed=1).id}.parquet").read_bytes())
    with pytest.raises(RecordError, match=f"{path.name}.*is not what was recorded"):
        store.load(msu().id)
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    with pytest.raises(RecordError, match=path.name):
        store.load(msu().id)


@pytest.mark.parametrize("damage", [truncate, cut_in_half, empty, flip_a_bit_of_a_number])
def test_a_damaged_file_of_the_records_is_refused(packed: Store, damage: Callable[[Path], None]) -> None:
    damage(packed.records / "first.parquet")
    with pytest.raises(RecordError, match=r"first\.parquet") as caught:
        for run in packed.headers("first"):
            packed.load(run)
    assert "version control" in str(caught.value)
    same(packed.load(RUNS[1].id), record(RUNS[1]))


@pytest.mark.parametrize("change", HEADERS, ids=lambda change: change.__name__)
def test_edited_headers_of_the_records_are_refused(packed: Store, change: Callable[[dict[str, Any]], None]) -> None:
    path = packed.records / "first.json"
    content = json.loads(path.read_text())
    change(content["runs"][RUNS[0].id])
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=rf"first\.parquet.*{RUNS[0].id}"):
        packed.load(RUNS[0].id)
    same(packed.load(RUNS[2].id), record(RUNS[2]))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"runs"', "null"])
def test_a_list_of_records_that_cannot_be_read_is_refused(packed: Store, text: str) -> None:
    (packed.records / "first.json").write_text(text)
    with pytest.raises(RecordError, match=r"first\.json.*version control"):
        packed.load(RUNS[0].id)


def test_rows_that_are_missing_or_doubled_are_noticed(packed: Store) -> None:
    path = packed.records / "first.parquet"
    table = pq.read_table(path)
    for rows in ([*range(3), *range(4, 10)], [*range(10), 9], [1, 0, *range(2, 10)]):
        pq.write_table(table.take(rows), path)
        fresh = Store(packed.cache, packed.records)
        with pytest.raises(RecordError, match="is not what was recorded"):
            [fresh.load(run) for run in (RUNS[0].id, RUNS[2].id)]
    path.unlink()
    with pytest.raises(RecordError, match=r"first\.parquet"):
        Store(packed.cache, packed.records).load(RUNS[0].id)


LISTED = [change_spec, impossible_spec, drop_spec]


def drop_status(header: dict[str, Any]) -> None:
    del header["status"]


def number_for_status(header: dict[str, Any]) -> None:
    header["status"] = 1


@pytest.mark.parametrize("change", [*LISTED, drop_status, number_for_status], ids=lambda change: change.__name__)
def test_edited_headers_are_not_listed(packed: Store, change: Callable[[dict[str, Any]], None]) -> None:
    packed.save(record(RUNS[3]))
    assert [row["run"] for row in packed.listing()] == packed.ids()
    file = packed.cache / f"{RUNS[3].id}.parquet"
    whole = file.read_bytes()
    edit_header(file, change)
    with pytest.raises(RecordError, match=f"{file.name}.*run {RUNS[3].id}"):
        packed.listing()
    file.write_bytes(whole)
    path = packed.records / "first.json"
    content = json.loads(path.read_text())
    change(content["runs"][RUNS[0].id])
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=rf"first\.json: run {RUNS[0].id}"):
        packed.listing()


@pytest.mark.parametrize("damage", [truncate, cut_in_half, empty])
def test_a_damaged_file_is_not_listed(packed: Store, damage: Callable[[Path], None]) -> None:
    packed.save(record(RUNS[3]))
    damage(packed.cache / f"{RUNS[3].id}.parquet")
    with pytest.raises(RecordError, match=f"{RUNS[3].id}.parquet"):
        packed.listing()
    (packed.cache / f"{RUNS[3].id}.parquet").unlink()
    damage(packed.records / "first.json")
    with pytest.raises(RecordError, match=r"first\.json"):
        packed.listing()
