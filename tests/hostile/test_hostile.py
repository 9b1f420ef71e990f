"""Damaged and hostile inputs, family by family (`hostile`), and specifications by hypothesis."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.notebooks import write_notebook
from helpers.recorded import record
from hostile import run as hostile
from hostile.files import pickled
from hostile.pages import HARM, active
from hostile.run import EVIL, Box
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from grokcore.records.record import Record, RecordError
from grokcore.records.store import Store
from grokcore.report import manifest, pages, sanitize
from grokcore.report.evidence import evidence
from grokcore.report.execute import execute
from grokcore.spec.base import SpecError
from grokcore.spec.presets import msu
from grokcore.spec.run import RunSpec, replace
from grokcore.spec.task import MODULAR_OPERATIONS, is_prime

LEAST = {  # inputs of each family
    "cached runs": 400,
    "recorded experiments": 200,
    "kept weights": 300,
    "checkpoints": 300,
    "measurements (CSV)": 200,
    "specifications": 500,
    "parameter files": 300,
    "notebooks": 350,
    "claims": 350,
    "sources": 300,
    "manifests": 300,
    "words on pages": 150,
    "names of pages": 60,
    "words of claims": 50,
    "labels of figures": 90,
    "exported CSV": 150,
    "command line": 800,
    "names of files": 200,
    "benchmark results": 60,
}


@pytest.mark.parametrize("name", LEAST, ids=lambda name: name.replace(" ", "_"))
def test_every_input_is_refused_in_clear_words_or_handled(name: str) -> None:
    ends = hostile.run(hostile.families()[name])
    assert ends.total() >= LEAST[name] and all(end.startswith(("refused: ", "handled")) for end in ends), ends


def test_there_are_thousands_of_inputs_of_many_families() -> None:
    assert set(hostile.families()) == set(LEAST) and sum(LEAST.values()) > 4500 and len(LEAST) > 8


def _executes(box: Box) -> Iterator[str]:
    exec(hostile.payload(box.canary))
    yield "handled"


def _unpickles(box: Box) -> Iterator[str]:
    import pickle

    pickle.loads(pickled(box))
    yield "handled"


def _writes_beside(box: Box) -> Iterator[str]:
    Path("here.txt").write_text("x")
    yield "handled"


def _removes(box: Box) -> Iterator[str]:
    (box.root / "outside" / "decoy").unlink()
    yield "handled"


@pytest.mark.parametrize("bad", [_executes, _unpickles, _writes_beside, _removes])
def test_what_is_executed_written_or_removed_is_noticed(bad: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(hostile.FLAG, raising=False)
    with pytest.raises(AssertionError, match="payload was executed|outside the folder allowed"):
        hostile.run(bad)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: {}["x"], "ends in KeyError"),
        (lambda: 3, "read as 3"),
        (lambda: _raise(RecordError("it is broken: restore it")), "does not name 'n.json'"),
        (lambda: _raise(RecordError("n.json is broken")), "what is to be done"),
        (lambda: _raise(RecordError(f"n.json: restore it {'x' * 9999}")), "a message of"),
    ],
)
def test_an_input_that_ends_badly_is_noticed(action: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        hostile.tried(action, lambda result: False, "n.json", "input")
    assert hostile.tried(lambda: 3, lambda result: result == 3, "n.json", "input").startswith("handled")


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("harm", [harm for harm in HARM if "<" in harm or harm[0] in "'\""])
def test_markup_that_is_not_escaped_is_noticed(harm: str) -> None:
    frame = '<p title="{}">x</p>' if harm[0] == '"' else "<p title='{}'>x</p>" if harm[0] == "'" else "<p>{}</p>"
    page = frame.format(harm)
    if not any(hidden in harm for hidden in ("CDATA", "noscript", "<math>", "<!-->")):  # from this parser, that is
        assert active(page), harm
    assert not active(sanitize.harmless(f"<p>{harm}</p>"))


# Specifications

EXTREME = st.just(4400).map(lambda digits: 10**digits) | st.sampled_from(
    [0, -1, 2**63, 1e308, 5e-324, math.nan, math.inf, -math.inf, None, True, *EVIL]
)
ANY = st.recursive(
    EXTREME | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(list(RunSpec.model_fields)) | st.sampled_from(EVIL) | st.text(max_size=9)
PARTS = st.dictionaries(st.sampled_from(["name", "p", "operation", "table", "lr", "betas", "n_layers"]) | NAMES, ANY)
QUICK = settings(max_examples=300, deadline=None, derandomize=True, database=None)


@settings(QUICK, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, ANY | PARTS, max_size=5))
def test_any_dictionary_is_a_specification_or_an_error_that_names_the_field(values: dict[str, Any]) -> None:
    try:
        spec = RunSpec.model_validate(values)
    except ValidationError as error:
        fields = [str(item["loc"][0]) for item in error.errors() if item["loc"]]
        assert set(fields) <= set(values) and len(str(error)) < 20_000
        return
    assert RunSpec.model_validate(json.loads(json.dumps(spec.to_dict()))).id == spec.id
    assert all(getattr(spec, name) is not None for name in ("task", "model", "optimizer"))


@QUICK
@given(ANY, st.text(max_size=9))
def test_arguments_of_a_users_network_come_back_or_are_refused(value: Any, name: str) -> None:
    source = {"name": "user", "class_name": "A", "source": "class A: pass", "arguments": {name: value}}
    try:
        spec = replace(msu(), model=source)
    except SpecError as error:
        assert "arguments" in str(error)
    else:
        again = RunSpec.model_validate(json.loads(json.dumps(spec.to_dict())))
        assert again.id == spec.id and again == spec


@QUICK
@given(st.dictionaries(NAMES | st.sampled_from(["p", "lr", "n_layers", "table"]), ANY, max_size=3))
def test_any_change_is_made_or_refused_by_name(changes: dict[str, Any]) -> None:
    try:
        spec = replace(msu(), **changes)
    except SpecError as error:
        assert str(error) and len(str(error)) < 20_000
    else:
        assert RunSpec.model_validate(json.loads(json.dumps(spec.to_dict()))) == spec


@QUICK
@given(
    operation=st.sampled_from(MODULAR_OPERATIONS),
    p=st.integers(5, 200).filter(is_prime),
    alpha=st.floats(0.1, 0.9),
    seed=st.integers(0, 2**63 - 1),
    lr=st.floats(min_value=1e-300, max_value=1e300),
    steps=st.integers(1, 100_000_000),
    early_stop=st.none() | st.integers(1, 100_000_000),
    y_min=st.just(1),
)
def test_a_valid_specification_comes_back_from_json_with_its_id(**fields: Any) -> None:
    spec = msu(**fields)
    again = RunSpec.model_validate(json.loads(json.dumps(spec.to_dict())))
    assert again == spec and again.id == spec.id and len(spec.id) == 16
    assert replace(spec, seed=(spec.seed + 1) % 2**63).id != spec.id


# Executed notebooks


def test_hostile_notebooks_end_as_pages_that_say_how(tmp_path: Path) -> None:
    """The few that are executed: an error full of HTML, printed text full of it, and a kernel that dies."""
    harm = HARM[0] + HARM[1] + "\x1b[31m"
    cells = {"error": f"raise ValueError({harm!r})", "dies": "import os\nos._exit(3)", "prints": f"print({harm!r})"}
    paths = {name: write_notebook(tmp_path, name, [cell], prose=[f"# {harm}"]) for name, cell in cells.items()}
    (tmp_path / "work").mkdir()
    done = execute({path: {} for path in paths.values()}, tmp_path / "work", jobs=2)
    assert [executed.failure is None for executed in done] == [False, False, True]
    for executed in done:
        page = pages.notebook_page(executed, [], "smoke", "0")
        assert not active(page.body + page.colophon) and "&lt;script&gt;" in page.body, executed.source.name
    assert "DeadKernelError" in str(done[1].failure)


@pytest.mark.parametrize("provenance", [{}, {"seconds": None}, {"seconds": "<b>"}, {"seconds": []}])
def test_a_run_that_does_not_say_how_long_it_took_is_named(store: Store, provenance: dict[str, Any]) -> None:
    complete = record(msu())
    store.save(Record(complete.spec, complete.curve, complete.status, provenance))
    with pytest.raises(RecordError, match=f"run {msu().id} does not say how long it took: restore"):
        evidence(store, [msu().id])


def test_a_report_through_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    finished, out, elsewhere = (tmp_path / name for name in ("finished", "out", "elsewhere"))
    for folder in (finished / "assets", out, elsewhere):
        folder.mkdir(parents=True)
    (finished / "assets" / "x.js").write_text("x")
    (out / "assets").symlink_to(elsewhere)
    with pytest.raises(manifest.ManifestError, match=r"assets/x.js is a link to elsewhere: .*--out"):
        manifest.publish(finished, out, {})
    assert not list(elsewhere.iterdir()) and not (out / "manifest.json").exists()
