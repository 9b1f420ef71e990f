"""What two trees are compared by: a difference of any kind is found and named."""

from pathlib import Path

import pytest
from tools import same

ONE: same.Facts = {"plans": {"a": [["1f"], []], "b": [["2e"], [3]]}, "files": {"x": "0"}}


def test_equal_trees_are_the_same() -> None:
    lines: list[str] = []
    assert same.report(ONE, ONE, lines.append)
    assert lines == ["files             1 compared, none differ", "plans             2 compared, none differ"]


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ({**ONE, "plans": {**ONE["plans"], "b": [["2e"], []]}}, "b differs"),
        ({**ONE, "plans": {"a": ONE["plans"]["a"]}}, "b is only in the base"),
        ({**ONE, "files": {"x": "0", "y": "1"}}, "y is only in this tree"),
        ({"plans": ONE["plans"]}, "x is only in the base"),
    ],
)
def test_a_difference_is_found_and_named(now: same.Facts, expected: str) -> None:
    lines: list[str] = []
    assert not same.report(ONE, now, lines.append)
    assert f"    {expected}" in lines


def test_many_differences_are_counted_and_some_are_shown() -> None:
    many = {"records": {str(i): i for i in range(9)}}
    lines: list[str] = []
    assert not same.report(many, {"records": {}}, lines.append)
    assert lines[0].endswith("9 differ") and lines[-1] == "    and 4 more" and len(lines) == 7


def test_a_figure_that_shows_a_speed_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "a.html").write_text(
        "<svg><!-- 1 of 1 runs done, 184 steps/s --></svg><svg/></svg>", encoding="utf-8"
    )
    assert list(same.figures(tmp_path)) == ["a.html, figure 2"]


def test_figures_are_told_apart_by_page_and_place(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    page = tmp_path / "reports" / "a.html"
    page.write_text("<p>1</p><svg id='1'>\n<path/></svg> and <svg><rect/></svg>", encoding="utf-8")
    before = same.figures(tmp_path)
    assert list(before) == ["a.html, figure 1", "a.html, figure 2"]
    page.write_text("<p>other text</p><svg id='1'>\n<path/></svg> and <svg><circle/></svg>", encoding="utf-8")
    assert [name for name, digest in same.figures(tmp_path).items() if digest != before[name]] == ["a.html, figure 2"]
