"""A published report knows what it was made from, and replaces an older one without touching anything else."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from helpers.notebooks import write_notebook

from grokcore.report import manifest

ABOUT = {"scale": "cpu", "settings": {}, "failed": [], "notebooks": ["n"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small repository with one notebook, one record and the claims."""
    root = tmp_path / "root"
    for folder in ("data/records", "notebooks/cpu"):
        (root / folder).mkdir(parents=True)
    for name in ("data/records/n.parquet", "data/records/n.json", "data/claims.yaml", "notebooks/cpu/n.yaml"):
        (root / name).write_text(name)
    write_notebook(root / "notebooks", "n")
    return root


def finished(tmp_path: Path, **files: str) -> Path:
    """Return a folder with the files of a finished report; names are written as those of arguments."""
    folder = tmp_path / "made"
    (folder / "assets").mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", "/").replace("_html", ".html").replace("_pdf", ".pdf")).write_text(text)
    return folder


def published(tmp_path: Path, root: Path) -> Path:
    out = tmp_path / "out"
    about = {**ABOUT, "inputs": manifest.inputs(root), "book": "sum of the pages"}
    manifest.publish(finished(tmp_path, index_html="i", assets__x="a", grokking_pdf="p"), out, about)
    return out


def change_cell(root: Path) -> None:
    path = root / "notebooks" / "n.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source += "\nmore: int = 1"
    nbformat.write(notebook, path)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda root: (root / "data/records/n.parquet").write_text("other"), "data/records/n.parquet has changed"),
        (lambda root: (root / "data/records/m.json").write_text("{}"), "data/records/m.json is new"),
        (lambda root: (root / "data/records/n.json").unlink(), "data/records/n.json is gone"),
        (lambda root: (root / "data/claims.yaml").write_text("other"), "data/claims.yaml has changed"),
        (lambda root: (root / "notebooks/cpu/n.yaml").write_text("p: 3"), "notebooks/cpu/n.yaml has changed"),
        (change_cell, "notebooks/n.ipynb has changed"),
        (lambda root: (root.parent / "out/index.html").write_text("edited"), "index.html is not what was written"),
        (lambda root: (root.parent / "out/assets/x").unlink(), "assets/x is missing from the report"),
    ],
)
def test_report_differs_as_soon_as_anything_it_was_made_from_changes(
    tmp_path: Path, root: Path, change: Callable[[Path], None], line: str
) -> None:
    out = published(tmp_path, root)
    assert manifest.differences(out, root) == []
    change(root)
    assert manifest.differences(out, root) == [line]


def test_outputs_of_a_notebook_make_no_difference(tmp_path: Path, root: Path) -> None:
    out = published(tmp_path, root)
    path = root / "notebooks" / "n.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="3")]
    nbformat.write(notebook, path)
    assert manifest.differences(out, root) == []


def test_failed_notebook_is_named(tmp_path: Path, root: Path) -> None:
    about = {**ABOUT, "failed": ["n"], "inputs": manifest.inputs(root)}
    manifest.publish(finished(tmp_path, index_html="i"), tmp_path / "out", about)
    assert manifest.differences(tmp_path / "out", root) == ["n failed when the report was made"]


@pytest.mark.parametrize("text", [None, "", "{"])
def test_folder_without_a_report_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    for use in (manifest.differences, manifest.read_manifest, lambda out: manifest.pack(out, tmp_path / "x.zip")):
        with pytest.raises(manifest.ManifestError, match="there is no report in .*make it with `make report`"):
            use(tmp_path)
    assert not (tmp_path / "x.zip").exists()


def test_new_report_removes_pages_of_the_old_one_and_nothing_else(tmp_path: Path, root: Path) -> None:
    out = published(tmp_path, root)
    (out / "mine.txt").write_text("kept")
    about = {**ABOUT, "inputs": manifest.inputs(root)}
    (tmp_path / "made").rename(tmp_path / "first")
    manifest.publish(finished(tmp_path, index_html="j", new_html="n"), out, about)
    assert {path.name for path in out.iterdir()} == {"index.html", "new.html", "manifest.json", "mine.txt", "assets"}
    assert (out / "index.html").read_text() == "j" and not list((out / "assets").iterdir())
    assert manifest.differences(out, root) == []


def test_pdf_stays_only_where_the_report_was_made_alike_and_it_is_what_was_written(tmp_path: Path, root: Path) -> None:
    out, about = published(tmp_path, root), {**ABOUT, "inputs": manifest.inputs(root)}
    assert manifest.printed_book(out, about) == "sum of the pages"
    assert manifest.printed_book(out, {**about, "settings": {"p": 3}}) is None
    (tmp_path / "made").rename(tmp_path / "first")
    manifest.publish(finished(tmp_path, index_html="j"), out, {**about, "book": "other"}, keep_pdf=True)
    assert (out / "grokking.pdf").read_text() == "p" and manifest.differences(out, root) == []
    assert manifest.printed_book(out, about) == "other"
    (out / "grokking.pdf").write_text("p edited")
    assert manifest.printed_book(out, about) is None
    (out / "grokking.pdf").write_text("p")
    (root / "data/claims.yaml").write_text("other")
    assert manifest.printed_book(out, {**about, "inputs": manifest.inputs(root)}) is None
    (out / "grokking.pdf").unlink()
    assert manifest.printed_book(out, about) is None and manifest.printed_book(tmp_path / "none", about) is None


def test_zip_holds_the_report_and_nothing_else(tmp_path: Path, root: Path) -> None:
    out = published(tmp_path, root)
    (out / "mine.txt").write_text("not packed")
    assert manifest.pack(out, tmp_path / "report.zip") == 4
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        names = {f"grokking-report/{name}" for name in ("index.html", "assets/x", "grokking.pdf", "manifest.json")}
        assert set(archive.namelist()) == names and archive.testzip() is None
        assert json.loads(archive.read("grokking-report/manifest.json"))["notebooks"] == ["n"]
    with pytest.raises(manifest.ManifestError, match="cannot be written"):
        manifest.pack(out, tmp_path / "no-such-folder" / "report.zip")
    with pytest.raises(manifest.ManifestError, match="name a file, as report.zip"):
        manifest.pack(out, Path("/"))


def test_report_that_cannot_be_moved_into_place_is_a_clear_error(tmp_path: Path, root: Path) -> None:
    site, out = tmp_path / "site", tmp_path / "out"
    site.mkdir()
    (site / "index.html").write_text("page")
    out.write_text("a file where the folder should be")
    with pytest.raises(manifest.ManifestError, match="out cannot be written: .*name another folder with --out"):
        manifest.publish(site, out, {})
