"""README, CONTRIBUTING, CHANGELOG and docs: numbers are those of the results, examples run, links lead somewhere.

`python tests/test_readme.py` prints what is generated, to be pasted where a test says that a page differs.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from grokcore.cli.arguments import parser

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
MOST_WORDS, MOST_WORDS_FIRST_SCREEN = 900, 250
IN_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
# Numbers of the README that no result gives: what is said of them, and where else it stands.
OTHER_NUMBERS = {
    "3.11": "Python, in pyproject.toml",
    "3.13": "Python, in pyproject.toml",
    "5": "minutes of `make report`, which it prints at its end",
    "8": "minutes of `make test`",
    "2": "cores on which both were measured",
    "99": "percent, the threshold of `val_99_sustained`",
    "500": "steps for which an accuracy has to stay, in the head of data/claims.yaml",
    "3.2.2": "MathJax, as in its folder",
    "2.0": "of the Apache License",
}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def first_screen(text: str) -> str:
    """Return what stands before the first heading of the second level."""
    return text.split("\n## ", 1)[0]


def words(text: str) -> int:
    """Count what a reader reads: code and tables too, but neither HTML tags and comments nor the targets of links."""
    text = re.sub(r"<!--.*?-->|<[^>\n]*>", " ", text, flags=re.S)
    text = re.sub(r"\]\([^)\s]*\)", "] ", text)
    return len([token for token in text.split() if re.search(r"\w", token)])


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language ("" for none), also those within a list."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", text, flags=re.S | re.M)
    return [re.sub(rf"^{indent}", "", code, flags=re.M) for indent, kind, code in found if kind == language]


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.S | re.M)


def headings(text: str) -> list[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.+?)\s*$", prose(text), flags=re.M)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


# What is generated from the results.


def claims() -> list[dict[str, Any]]:
    return json.loads((ROOT / "reports" / "claims.json").read_text(encoding="utf-8"))


def recorded_runs() -> set[str]:
    files = sorted((ROOT / "data" / "records").glob("*.json"))
    return {run for file in files for run in json.loads(file.read_text(encoding="utf-8"))["runs"]}


def benchmark() -> list[dict[str, Any]]:
    rows = json.loads((ROOT / "benchmarks" / "cpu.json").read_text(encoding="utf-8"))
    return [row for row in rows if row["case"] != "growth"]


def runs_of(rows: list[dict[str, Any]]) -> set[str]:
    return {run for row in rows for run in row["run_ids"]}


def verdict_table(rows: list[dict[str, Any]], kinds: dict[str, str]) -> str:
    """Return the verdicts by source as a Markdown table; `runs` are the different runs that they rest on."""
    settled = ["confirmed", "partly", "refuted"]
    verdicts = settled + sorted({row["verdict"] for row in rows} - set(settled))
    names = {source: f"{kinds[source]} (`{source}`)" for source in dict.fromkeys(row["source"] for row in rows)}
    parts = [(name, [row for row in rows if row["source"] == source]) for source, name in names.items()]
    lines = [["source", "claims", *verdicts, "runs"], ["---", *["--:"] * (len(verdicts) + 2)]]
    for name, some in [*parts, ("**all**", rows)]:
        counts = Counter(row["verdict"] for row in some)
        numbers = [len(some), *(counts[verdict] for verdict in verdicts), len(runs_of(some))]
        lines.append([name, *map(str, numbers)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def counts(rows: list[dict[str, Any]], recorded: set[str]) -> str:
    sources, used = IN_WORDS[len({row["source"] for row in rows})].capitalize(), runs_of(rows)
    assert used <= recorded
    return (
        f"{sources} documents make {len(rows)} claims; {len(recorded)} runs are recorded, of which {len(used)} decide"
    )


def between(rows: list[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in rows]
    return f"{min(values):.1f} to {max(values):.1f}"


def speed(rows: list[dict[str, Any]]) -> str:
    (machine,) = {row["machine"] for row in rows}
    cores = machine.split(", ")[1]
    return (
        f"{between(rows, 'job_speedup')} times as fast as a plain PyTorch loop, "
        f"{between(rows, 'job_speedup_vs_two_references')} times as fast as two such loops at once "
        f"({IN_WORDS[len(rows)]} networks, {cores})"
    )


def speed_table(rows: list[dict[str, Any]]) -> str:
    """Return the benchmark as a Markdown table, with the smallest and largest of the rounds in brackets."""
    columns = {
        "against one plain loop": "job_speedup",
        "against two at once": "job_speedup_vs_two_references",
        "against the matmul bound": "matmul_bound_ratio",
    }
    lines = [["network", "runs together", *columns], ["---", *["--:"] * (len(columns) + 1)]]
    for row in rows:
        spread = {name: f"({row['spread'][name][0]:.2f} to {row['spread'][name][1]:.2f})" for name in columns.values()}
        values = [f"{row[name]:.2f} {spread[name]}" for name in columns.values()]
        lines.append([f"`{row['case']}`", str(row["R"]), *values])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def kinds() -> dict[str, str]:
    """Return what kind of document each source is, as data/sources.yaml says it, without its language."""
    documents = yaml.safe_load((ROOT / "data" / "sources.yaml").read_text(encoding="utf-8"))["documents"]
    return {name: document["kind"].split(",")[0] for name, document in documents.items()}


def generated() -> dict[Path, list[str]]:
    """Return the passages of each page that hold numbers of the results."""
    return {
        README: [verdict_table(claims(), kinds()), counts(claims(), recorded_runs()), speed(benchmark())],
        ROOT / "docs" / "speed.md": [speed_table(benchmark())],
    }


def test_numbers_of_the_results_are_those_of_claims_json_and_cpu_json() -> None:
    for page, passages in generated().items():
        for passage in passages:
            assert passage in text_of(page), f"{page.name} lacks this, as the results are now:\n{passage}"


def test_core_hours_of_a_million_runs_are_those_of_the_benchmark() -> None:
    text = text_of(ROOT / "docs" / "scaling.md")
    timed = {row["case"]: row["ms_per_run_step"] * row["processes"] for row in benchmark()}
    for case, name in {"msu": "`msu`", "decoder": "`power`'s decoder", "sum-2": "`pku`'s sums"}.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {name}")]
        _, milliseconds, steps, hours = (cell.strip() for cell in line.strip("| ").split("|"))
        assert float(milliseconds) == pytest.approx(timed[case], rel=0.02)
        a_million = timed[case] / 1e3 * int(re.sub(r"\(.*|\D", "", steps)) * 1e6 / 3600
        assert int(re.sub(r"\D", "", hours)) == pytest.approx(a_million, rel=0.02)


def test_the_generated_passages_change_with_the_results() -> None:
    rows, recorded, timed = claims(), recorded_runs(), benchmark()
    before = verdict_table(rows, kinds()), counts(rows, recorded), speed(timed), speed_table(timed)
    rows[0] |= {"verdict": "not settled", "run_ids": []}
    timed[0] |= {"job_speedup": 99.0}
    after = verdict_table(rows, kinds()), counts(rows, recorded | {"another"}), speed(timed), speed_table(timed)
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert "| confirmed | partly | refuted | not settled | runs |" in after[0] and "99.0 times" in after[2]


def test_no_other_number_stands_in_the_readme() -> None:
    """A number that nothing holds would grow old unnoticed."""
    text = prose(text_of(README))
    for passage in generated()[README]:
        text = text.replace(passage, "")
    text = re.sub(r"<!--.*?-->|<[^>\n]*>|\]\([^)\s]*\)|`[^`\n]*`", " ", text, flags=re.S)
    assert set(re.findall(r"(?<![\w.])\d+(?:\.\d+)*", text)) <= set(OTHER_NUMBERS)


def test_python_versions_are_those_of_the_project_and_of_the_workflow() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'requires-python = ">=3.11,<3.14"' in project and "Python 3.11 to 3.13" in text_of(README)
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert any(step.get("run") == "bash .ci/run" for step in workflow["jobs"]["test"]["steps"])


# Length.


def test_the_readme_is_short() -> None:
    text = text_of(README)
    assert words(first_screen(text)) <= MOST_WORDS_FIRST_SCREEN, words(first_screen(text))
    assert words(text) <= MOST_WORDS, words(text)


def test_words_are_those_that_are_read() -> None:
    assert words('<td width="50%">\n\n| two words |\n|---|--:|\n<!-- no\nno -->') == 2
    assert words("[one](docs/no.md) ![two](a.svg) * three 4") == 4


# Examples and commands.


def example() -> tuple[str, str]:
    """Return the example of the README's first screen, and what it says is printed."""
    screen = first_screen(text_of(README))
    (code,), printed = blocks(screen, "python"), blocks(screen, "")[-1]
    return code, printed


def ran(code: str, folder: Path) -> str:
    """Run an example with an empty cache in a folder of its own and return what it prints."""
    (folder / "example.py").write_text(code, encoding="utf-8")
    environment = {**os.environ, "GROKCORE_CACHE": str(folder / "cache"), "MPLBACKEND": "agg"}
    command = [sys.executable, "-W", "error", str(folder / "example.py")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def agree(printed: str, expected: str) -> bool:
    """Tell whether two printed tables have the same words, and numbers within a factor of two.

    The step at which a run generalises moves with the rounding of a processor, as it does with the seed.
    """
    one, other = printed.split(), expected.split()
    if len(one) != len(other):
        return False
    number = re.compile(r"\d+(\.\d+)?")
    for a, b in zip(one, other, strict=True):
        if number.fullmatch(a) and number.fullmatch(b):
            if not float(b) / 2 <= float(a) <= float(b) * 2:
                return False
        elif a != b:
            return False
    return True


def test_the_example_of_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    code, expected = example()
    assert len([line for line in code.splitlines() if line]) <= 8
    printed = ran(code, tmp_path)
    assert agree(printed, expected), printed
    assert (tmp_path / "accuracy.png").stat().st_size > 1000


def test_what_an_example_prints_is_compared() -> None:
    said = "   outcome  train\n0  GROKKED  362.0"
    assert agree(said, said) and agree(said.replace("362", "512"), said)
    wrong = [said.replace("GROKKED", "NOT_FITTED"), said.replace("362.0", "900.0"), said.replace("362.0", "nan"), ""]
    assert not any(agree(one, said) for one in wrong)


def test_the_example_of_a_network_of_ones_own_runs(tmp_path: Path) -> None:
    """With three steps."""
    (code,) = blocks(text_of(ROOT / "docs" / "own-networks.md"), "python")
    assert code.count("steps=2000") == 1
    assert ran(code.replace("steps=2000", "steps=3"), tmp_path) == ""
    assert len(list((tmp_path / "cache").glob("*.parquet"))) == 1


@each_page
def test_examples_are_python_and_import_what_there_is(page: Path) -> None:
    for code in blocks(text_of(page), "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("grokcore"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "gc":
                assert hasattr(importlib.import_module("grokcore"), node.attr), ast.unparse(node)


def commands(text: str) -> list[list[str]]:
    """Return the lines of a page's blocks that call grokcore, in words."""
    lines = [line.strip() for code in blocks(text, "") for line in code.splitlines()]
    calls = [line.removeprefix(".venv/bin/") for line in lines]
    return [shlex.split(line, comments=True)[1:] for line in calls if line.startswith("grokcore ")]


@each_page
def test_commands_are_ones_that_grokcore_takes(page: Path) -> None:
    for command in commands(text_of(page)):
        try:
            parser().parse_args(command)
        except SystemExit:
            pytest.fail(f"{page.name}: grokcore {shlex.join(command)}")


def test_commands_are_found() -> None:
    assert len([command for page in PAGES for command in commands(text_of(page))]) >= 15
    assert commands("```\n.venv/bin/grokcore plan   # both\nmake\n```") == [["plan"]]


@each_page
def test_targets_of_make_are_in_the_makefile(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    said = text_of(page)
    targets = {
        *re.findall(r"`make ([a-z][\w-]*)", said),
        *re.findall(r"^(?:.*&& )?make ([a-z][\w-]*)", said, flags=re.M),
    }
    missing = [target for target in sorted(targets) if not re.search(rf"^{target}:", makefile, flags=re.M)]
    assert not missing, f"{page.name} names targets that the Makefile lacks: {missing}"


# Links and names.


def broken_links(page: Path, text: str) -> list[str]:
    """Return the relative links of a page that lead to no file, or to no heading of one."""
    broken = []
    links = [*re.findall(r"\]\(([^)\s]+)\)", prose(text)), *re.findall(r'(?:src|href)="([^"]+)"', prose(text))]
    for link in links:
        if re.match(r"[a-z]+:", link) or link.startswith("../../actions/"):  # elsewhere; GitHub's page of the workflow
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        there = target.exists() and target.is_relative_to(ROOT)
        if there and anchor:
            there = target.suffix == ".md" and anchor in headings(text_of(target) if path else text)
        if not there:
            broken.append(link)
    return broken


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert broken_links(page, text_of(page)) == []


def test_broken_links_are_found() -> None:
    text = "# A `b`: c\n[no](docs/none.md) [no](docs/speed.md#none) ![no](none.svg) [no](#none) [yes](#a-b-c)"
    text += ' <img src="none.png"> [yes](docs/speed.md) [yes](https://example.org/none) [no](../outside.md)'
    found = ["docs/none.md", "docs/speed.md#none", "none.svg", "#none", "../outside.md", "none.png"]
    assert broken_links(README, text) == found


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    text = text_of(README)
    assert [page.name for page in DOCS if f"(docs/{page.name})" not in text] == []


@each_page
def test_files_and_modules_named_are_there(page: Path) -> None:
    """In a table of renames only the new name, in the second column, has to be there."""
    text = re.sub(r"^\| `[^|]*` \|", "|", text_of(page), flags=re.M) if page.name == "CHANGELOG.md" else text_of(page)
    paths = set(re.findall(r"(?<![\w./])(?:grokcore|tests|notebooks|benchmarks|data|docs)/[\w./-]*\w", text))
    allowed = ("data/cache", "notebooks/NAME", "notebooks/cpu/NAME", "notebooks/full/NAME", "data/records/NAME")
    assert [path for path in sorted(paths) if not (ROOT / path).exists() and not path.startswith(allowed)] == []
    for name in set(re.findall(r"`(grokcore(?:\.[a-z_]+)+)`", text)):
        pkgutil.resolve_name(name)


if __name__ == "__main__":
    for place, passages in generated().items():
        print(place.relative_to(ROOT), *passages, sep="\n\n", end="\n\n")
