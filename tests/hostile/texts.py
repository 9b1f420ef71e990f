"""Families of hostile texts: specifications, parameter files, notebooks, claims, sources, manifests."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import yaml
from helpers.notebooks import SPECS, write_notebook
from hostile.files import edited
from hostile.run import EVIL, Box, flipped, payload, strange, tried

from grokcore.claims import rules
from grokcore.records.store import repository
from grokcore.report import execution_cache, manifest, pages, sources
from grokcore.report.notebook_files import find
from grokcore.report.parameters import parameter_values, parameters
from grokcore.report.plan import planned_runs
from grokcore.spec.base import SpecError
from grokcore.spec.presets import msu, periodic, pku, power
from grokcore.spec.run import RunSpec, replace

VALID = [msu(), periodic(1), power(), pku("lstm"), msu("s5:xy", split_seed=4), pku("mlp", early_stop=9)]


def read_spec(values: Any) -> RunSpec:
    """Return a specification from a dictionary; pydantic's own error, which names the field, as ours."""
    try:
        return RunSpec.model_validate(values)
    except ValueError as error:
        raise SpecError(str(error)) from error


def comes_back(spec: RunSpec) -> bool:
    """Tell whether a specification is the same after having been JSON."""
    again = RunSpec.model_validate(json.loads(json.dumps(spec.to_dict())))
    return again == spec and again.id == spec.id and len(json.dumps(spec.columns())) > 0


def specs(box: Box) -> Iterator[str]:
    """Specifications with fields of every kind of value, unknown ones, removed ones; `replace` with the same."""
    rng = box.random
    fields = [*RunSpec.model_fields, "p", "operation", "n_layers", "lr", "table", "betas", "spec", "self", "name"]
    for i in range(500):
        values: Any = rng.choice(VALID).to_dict()
        if i % 5 == 0:
            name, value = rng.choice([*fields, *EVIL]), strange(rng)
            changes = {name: value}
            yield tried(lambda changes=changes: replace(msu(), **changes), comes_back, "", changes)
            continue
        for _ in range(rng.randrange(1, 4)):
            place = rng.choice([values, *(part for part in values.values() if isinstance(part, dict))])
            if place and rng.random() < 0.2:
                del place[rng.choice(list(place))]
            else:
                place[rng.choice([*place, *fields, *EVIL, 3, None])] = strange(rng)
        whole = values if rng.random() < 0.97 else strange(rng)
        yield tried(lambda whole=whole: read_spec(whole), comes_back, "", whole)
    source = {"name": "user", "source": "class A: pass", "class_name": "A", "arguments": {}}
    for name in EVIL:
        for change in ({"class_name": name}, {"source": name}, {"arguments": {name: strange(rng)}}):
            model = {**source, **change}
            yield tried(lambda model=model: replace(msu(), model=model), comes_back, "", model)


BOMB = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
MERGES = "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def evil_yaml(box: Box) -> list[bytes]:
    """Return YAML that executes, explodes, nests, repeats or is none."""
    code = payload(box.canary)
    texts = [
        f"steps: !!python/object/apply:eval ['{code.replace(chr(39), chr(39) * 2)}']",
        f'steps: !!python/object/new:eval ["{code}"]',
        "steps: !!python/name:os.system",
        "steps: !!python/module:os",
        "!!python/object:grokcore.spec.run.RunSpec {}",
        f"steps: !!python/object/apply:os.system ['touch {box.canary}']",
        f"a: &a [1, 2]\n{BOMB}steps: *i",
        f"a: &a {{x: 1}}\n{MERGES}steps: *i",
        "steps: &a [*a]",
        "&a steps: *a",
        "steps: &a {<<: *a}",
        "steps: 1\nsteps: 2",
        "steps:\n\t- 1",
        "\tsteps: 1",
        "steps: [1",
        "steps: 2001-99-99",
        "steps: 2001-01-01",
        "steps: 2001-01-01T00:00:00+99:99",
        "steps: !!int abc",
        "steps: !!int ''",
        "steps: !!bool maybe",
        "steps: !!timestamp x",
        "steps: !!binary x",
        "steps: !!set {a, b}",
        "? [a, b]\n: 1",
        "- steps",
        "3",
        "null: 1",
        "3: 4",
        "--- 1\n--- 2",
        "steps: .nan",
        "steps: -.inf",
        f"steps: {'9' * 5000}",
        f"steps: 0x{'f' * 9000}",
        f"steps: 1{':59' * 3000}",
        "[" * 100_000,
        "[" * 5000 + "]" * 5000,
        "- " * 20_000,
        "{a: " * 5000,
        "%YAML 9.9\n---\na: 1",
        "%TAG ! tag:yaml.org,2002:python/\n--- !object/apply:os.getcwd []",
        *(text.format(json.dumps(name)) for name in EVIL for text in ("{}: 1", "steps: {}", "name: {}")),
    ]
    raw = [text.encode("utf-8", "surrogatepass") for text in texts]
    return [*raw, b"\xff\xfe", b"steps: \xe9", b"steps: 1\x00", b"\x80", "steps: 1".encode("utf-16"), bytes(100)]


def parameter_files(box: Box) -> Iterator[str]:
    """The YAML of every notebook's plan cpu, damaged, and hostile YAML: unknown names and other types are refused."""
    rng, folder = box.random, box.allowed
    (folder / "cpu").mkdir()
    files = sorted((repository() / "notebooks" / "cpu").glob("*.yaml"))

    def taken(text: bytes, path: Path) -> bool:
        plain = yaml.safe_load(text) or {}
        return parameter_values(path) == plain and set(plain) <= set(parameters(path))

    for file in files:
        source = nbformat.read(repository() / "notebooks" / f"{file.stem}.ipynb", as_version=4)
        cell = next(cell.source for cell in source.cells if "parameters" in cell.metadata.get("tags", []))
        path, target = write_notebook(folder, file.stem, parameters=cell), folder / "cpu" / file.name
        whole = file.read_bytes()
        for damaged in [flipped(whole, rng) for _ in range(10)]:
            target.write_bytes(damaged)
            yield tried(
                lambda path=path: parameter_values(path), lambda _, d=damaged, p=path: taken(d, p), path.stem, damaged
            )
    path = write_notebook(folder, "tiny")
    for damaged in evil_yaml(box):
        (folder / "cpu" / "tiny.yaml").write_bytes(damaged)
        yield tried(lambda: parameter_values(path), lambda _, d=damaged: taken(d, path), "tiny", damaged)


def evil_cells(box: Box) -> list[dict[str, str]]:
    """Return pairs of parameters and specs cells that are not what they should be, or would do harm if executed."""
    code = payload(box.canary)
    lines = [
        f"a: int = {code}",
        f"a: {code} = 3",
        "a: int = 9**9**9",
        "a: 9**9**9 = 3",
        "a: [x for x in (1,) * 99999999] = 3",
        "a: (lambda: 3) = 3",
        "a: 'int' = 3",
        "a: int = {[]: 1}",
        "a: int = " + "(" * 300 + ")" * 300,
        "a: int = " + "-" * 3000 + "1",
        "a: int = 1" + "0" * 5000,
        "a: int = '\ud800'",
        "a: int = 1\x00",
        "a = 3",
        "import os",
        "%run x",
        "return 3",
        "a: int",
        "a: nonsense = 3",
        "(a): int = 3",
        "a: list[int = 3",
        "",
    ]
    cells = [
        "return 3",
        "await x",
        "specs = " + "(" * 300,
        "specs = '\ud800'",
        "raise SystemExit(3)",
        "exit()",
        "raise KeyError('<img src=x onerror=alert(1)>')",
        "def f(): f()\nf()",
        "specs = [1]",
        "specs = {}",
        "specs, kept = [], 3",
        "specs, kept = [], ['a']",
        "specs, kept = [], [-1]",
        "import grokcore as gc\nspecs = [gc.msu('<b>')]",
        "x = " + "+".join(["1"] * 20_000),
        "specs = []\x00",
        "\tspecs = []\n  x",
    ]
    return [{"parameters": line, "specs": SPECS} for line in lines] + [{"specs": cell} for cell in cells]


def use(path: Path) -> list[Any]:
    """Do with a notebook what a report does before it executes it."""
    (notebook,) = find([str(path)])
    defaults = {name: parameter.default for name, parameter in parameters(notebook).items()}
    parameter_values(notebook, "smoke", defaults)
    specs, kept = planned_runs(notebook, defaults)
    return [*specs, *kept, pages.title(notebook)]


def notebooks(box: Box) -> Iterator[str]:
    """Notebooks: broken JSON, missing and wrong parts, other versions, no cells; and cells that would do harm."""
    rng, folder = box.random, box.allowed
    good = write_notebook(folder, "good")
    whole = good.read_bytes()
    content, path = json.loads(whole), folder / "n.ipynb"
    wrong = [b"", b"[]", b"null", b"3", b"\xff\xfe\x00", bytes(50), b"[" * 100_000, b'{"cells": ' * 3000, whole[:-3]]
    wrong += [
        json.dumps({**content, "nbformat": version}).encode() for version in (0, 1, 2, 3, 5, 99, "4", None, 1e400)
    ]
    wrong += [json.dumps({**content, "cells": cells}).encode() for cells in ([], {}, 3, None, [3], [None], [[]], "ab")]
    wrong += [json.dumps({**content, "metadata": data}).encode() for data in ([], 3, None, {"kernelspec": 3})]
    wrong += [
        json.dumps({**content, "metadata": {"kernelspec": {"name": name, "display_name": ""}}}).encode()
        for name in EVIL
    ]

    def plain(result: list[Any]) -> bool:
        return isinstance(result[-1], str) and not result[:-1]

    for damaged in [*wrong, *(flipped(whole, rng) for _ in range(100)), *(_edited(content, rng) for _ in range(130))]:
        path.write_bytes(damaged)
        yield tried(lambda: use(path), plain, "n.ipynb", damaged)
    for cells in evil_cells(box):
        path.write_text(json.dumps(_with_cells(content, **cells)))  # which takes what no editor would write
        yield tried(lambda: use(path), plain, "n.ipynb", cells)
        yield tried(lambda: manifest.inputs(folder), lambda sums: all(len(s) == 64 for s in sums.values()), "", cells)
    kept = folder / "cache"
    store = execution_cache.Store(kept, kept)
    copy = execution_cache.kept_file(good, "0" * 64, store)
    copy.parent.mkdir(parents=True)
    for damaged in [*wrong[:9], *(flipped(whole, rng) for _ in range(20))]:
        copy.write_bytes(damaged)
        assert execution_cache.find(good, {}, "0" * 64, store) is None, damaged
        yield "handled: a kept execution that is damaged is made anew"
    (folder / "folder.ipynb").mkdir()
    yield tried(lambda: use(folder / "folder.ipynb"), plain, "folder.ipynb", "a folder")


def _edited(content: Any, rng: Any) -> bytes:
    return json.dumps(edited(content, rng)).encode()


def _with_cells(content: Any, parameters: str = "steps: int = 3", specs: str = SPECS) -> Any:
    copy = json.loads(json.dumps(content))
    copy["cells"][1]["source"], copy["cells"][2]["source"] = parameters, specs
    return copy


def _evil_claims(content: dict[str, Any], rng: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(content))
    for _ in range(rng.randrange(1, 3)):
        copy = edited(copy, rng)
        if not isinstance(copy, dict):
            break
    return copy


def claims_files(box: Box) -> Iterator[str]:
    """The claims: bytes damaged, lines dropped, any value changed, hostile YAML; what is read is claims with rules."""
    rng, path = box.random, box.allowed / "claims.yaml"
    content = yaml.safe_load((repository() / "data" / "claims.yaml").read_text(encoding="utf-8"))
    content["claims"] = content["claims"][:2]
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    lines, damaged = text.splitlines(keepends=True), evil_yaml(box)
    damaged += [flipped(text.encode(), rng) for _ in range(60)]
    damaged += [
        "".join(line for i, line in enumerate(lines) if i != rng.randrange(len(lines))).encode() for _ in range(20)
    ]
    damaged += [_dumped(_evil_claims(content, rng)) for _ in range(150)]
    shapes: list[Any] = [{**content, name: value} for name in content for value in (3, [], None, "x", {"msu": 3})]
    damaged += [_dumped(shape) for shape in shapes]

    def whole(claims: dict[str, Any]) -> bool:
        return all(
            claim.id == id and len(claim.rule) >= 4 and len(claim.rule_sha256) == 64 for id, claim in claims.items()
        )

    for data in damaged:
        path.write_bytes(data)
        yield tried(lambda: rules.load(path), whole, "claims.yaml", data)


def _dumped(value: Any) -> bytes:
    return json.dumps(value, default=str).encode()  # JSON is YAML, but for what only YAML can say


def sources_files(box: Box) -> Iterator[str]:
    """The sources: as the claims; a link of another kind than http is refused."""
    rng, path = box.random, box.allowed / "sources.yaml"
    text = (repository() / "data" / "sources.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    damaged = [*evil_yaml(box), *(flipped(text.encode(), rng) for _ in range(60))]
    damaged += [_dumped(edited(content, rng)) for _ in range(100)]
    for link in [
        *EVIL,
        "JAVASCRIPT:alert(1)",
        " javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "//x.y",
    ]:
        damaged.append(_dumped({**content, "literature": [{"text": "x", "link": link}]}))

    def safe(cited: sources.Sources) -> bool:
        return all(work.link is None or work.link.startswith(("https://", "http://")) for work in cited.literature)

    for data in damaged:
        path.write_bytes(data)
        yield tried(lambda: sources.load(path), safe, "sources.yaml", data)


def manifests(box: Box) -> Iterator[str]:
    """The manifest of a report: damaged, or naming files elsewhere, which are neither packed nor removed."""
    rng, out = box.random, box.allowed / "out"
    finished = box.allowed / "finished"

    def publish(name: str = "index.html") -> None:
        finished.mkdir(exist_ok=True)
        (finished / name).write_text("page")
        manifest.publish(finished, out, {"inputs": {}, "failed": [], "book": "b"})

    publish()
    whole = (out / manifest.NAME).read_bytes()
    content, decoy, zipped = json.loads(whole), box.root / "outside" / "decoy", box.allowed / "report.zip"
    (out / "link").symlink_to(box.root / "outside")
    (out / "one").symlink_to(decoy)
    names = [
        *EVIL,
        str(decoy),
        "../../outside/decoy",
        "a/../../../outside/decoy",
        "link/decoy",
        "one",
        "./../x",
        "//x",
        "a//b",
    ]
    damaged = [json.dumps({**content, "files": {"index.html": "0", name: "0" * 64}}).encode() for name in names]
    damaged += [
        json.dumps({**content, name: value}).encode() for name in content for value in ([], 3, None, "x", {"a": 3})
    ]
    damaged += [b"", b"[]", b"null", b"[" * 100_000, b"\xff", *(flipped(whole, rng) for _ in range(60))]
    damaged += [_edited(content, rng) for _ in range(60)]

    def packed() -> list[str]:
        manifest.pack(out, zipped)
        with zipfile.ZipFile(zipped) as archive:
            assert not any(b"secret" in archive.read(name) for name in archive.namelist())
            return archive.namelist()

    def differences() -> list[str]:
        manifest.printed_book(out, {"failed": []})
        return manifest.differences(out, box.allowed / "none")

    for data in damaged:
        (out / manifest.NAME).write_bytes(data)
        yield tried(differences, lambda lines: all(isinstance(line, str) for line in lines), "manifest.json", data)
        yield tried(packed, lambda files: all(name.startswith("grokking-report/") for name in files), "", data)
        publish("new.html")
        assert decoy.read_text() == "secret", data
        (out / "new.html").unlink()


FAMILIES = {
    "specifications": specs,
    "parameter files": parameter_files,
    "notebooks": notebooks,
    "claims": claims_files,
    "sources": sources_files,
    "manifests": manifests,
}
