"""Notebooks are found by name or path; a file that is none is refused."""

from pathlib import Path

import pytest
from helpers.notebooks import PARAMETERS, write_notebook

from grokcore.report.notebook_files import NotebookError, find
from grokcore.report.parameters import parameters


def test_notebooks_are_found_by_name_or_path_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    b, a = (write_notebook(tmp_path, name) for name in ("02_b", "01_a"))
    elsewhere = write_notebook(tmp_path / "other", "03_c")
    assert find(folder=tmp_path) == [a, b]
    assert find(["02_b", str(elsewhere)], tmp_path) == [b, elsewhere]
    assert find(["01_a.ipynb"], tmp_path) == [a]
    with pytest.raises(NotebookError, match=r"no notebook '01_aa' in .*; did you mean '01_a'\?"):
        find(["01_aa"], tmp_path)
    with pytest.raises(NotebookError, match="no notebook 'missing/01_a.ipynb'"):
        find(["missing/01_a.ipynb"], tmp_path)
    with pytest.raises(NotebookError, match="two notebooks named '01_a'"):
        find(["01_a", str(write_notebook(tmp_path / "other", "01_a"))], tmp_path)
    with pytest.raises(NotebookError, match="place of the front page"):
        find([str(write_notebook(tmp_path, "index"))], tmp_path)
    with pytest.raises(NotebookError, match="no notebook in"):
        find(folder=tmp_path / "cpu")


@pytest.mark.parametrize("text", ["", "[]", '{"cells": 3}', "\x00\x01", PARAMETERS])
def test_file_that_is_no_notebook_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "n.ipynb"
    path.write_text(text)
    with pytest.raises(NotebookError, match="n.ipynb cannot be read as a notebook"):
        parameters(path)
