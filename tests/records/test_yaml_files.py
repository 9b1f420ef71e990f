"""YAML is read as plain values, or refused with its file and what is wrong."""

import time
from pathlib import Path

import pytest
import yaml

from grokcore.records import yaml_files
from grokcore.records.store import repository


def written(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["data/claims.yaml", "data/sources.yaml", "notebooks/cpu/09_decoder.yaml"])
def test_the_repositorys_own_files_are_read_as_by_pyyaml(name: str) -> None:
    path = repository() / name
    assert yaml_files.read(path) == yaml.safe_load(path.read_text(encoding="utf-8")) != {}


def test_aliases_and_merges_of_a_usual_size_are_followed(tmp_path: Path) -> None:
    path = written(tmp_path, "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n")
    same = {"x": 1, "y": 2}
    assert yaml_files.read(path) == {"a": same, "b": {"x": 1, "y": 3}, "c": [same, same]}
    assert yaml_files.read(written(tmp_path, "")) is None


def test_a_key_that_stands_twice_is_refused_where_it_stands(tmp_path: Path) -> None:
    for text in ("steps: 1\nlr: 2\nsteps: 3", "a:\n  - {steps: 1, steps: 1}"):
        with pytest.raises(yaml_files.YamlError, match=r"(?s)x\.yaml: the key 'steps' stands twice.*line"):
            yaml_files.read(written(tmp_path, text))
    assert yaml_files.read(written(tmp_path, "1: a\n'1': b")) == {1: "a", "1": "b"}


@pytest.mark.parametrize("lines", [6, 11])
@pytest.mark.parametrize("item", ["[{0}]", "{{<<: [{0}]}}"])
def test_a_small_file_that_stands_for_a_large_one_is_refused_at_once(tmp_path: Path, item: str, lines: int) -> None:
    text = ["a0: &a0 {x: 1}"]
    text += [f"a{i}: &a{i} {item.format(', '.join([f'*a{i - 1}'] * 10))}" for i in range(1, lines + 1)]
    began = time.process_time()  # of this process, however busy the machine
    with pytest.raises(yaml_files.YamlError, match="stands for more than 100000 values: write them without aliases"):
        yaml_files.read(written(tmp_path, "\n".join(text)))
    assert time.process_time() - began < 5  # building the larger ones would take hours


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "&a {*a : 1}"])
def test_what_stands_within_itself_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(yaml_files.YamlError, match=r"x\.yaml"):
        yaml_files.read(written(tmp_path, text))


def test_deep_nesting_is_refused_and_does_not_end_the_process(tmp_path: Path) -> None:
    assert yaml_files.read(written(tmp_path, "[" * 50 + "]" * 50)) is not None
    for depth in (51, 5000, 200_000):
        for text in ("[" * depth, "[" * depth + "]" * depth, "{a: " * depth):
            with pytest.raises(yaml_files.YamlError, match="more than 50 deep within one another: write them flat"):
                yaml_files.read(written(tmp_path, text))


@pytest.mark.parametrize(
    "kind", ["python/object/apply:os.getcwd []", "python/name:os.system", "python/tuple [1]", "x 1"]
)
def test_tags_that_make_objects_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(yaml_files.YamlError, match="could not determine a constructor"):
        yaml_files.read(written(tmp_path, f"a: !!{kind}"))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    for name in ("none.yaml", "latin.yaml", "."):
        with pytest.raises(yaml_files.YamlError, match=name.replace(".", r"\.") if name != "." else str(tmp_path)):
            yaml_files.read(tmp_path / name)
