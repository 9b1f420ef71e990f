"""The report, built from tiny notebooks: planned, trained, executed, rendered, published."""

import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers.notebooks import write_notebook
from helpers.without_torch import run

from grokcore import __version__, claims
from grokcore.engine.train import train
from grokcore.records.record import make_record
from grokcore.records.store import Store, repository
from grokcore.report import build, manifest, missing_runs, plan, sources
from grokcore.report.evidence import evidence
from grokcore.report.front_page import FrontPage, front_page
from grokcore.report.notebook_files import NotebookError
from grokcore.report.options import ReportOptions
from grokcore.report.plan import PlannedNotebook
from grokcore.spec.presets import msu
from grokcore.sweeps import comparison
from grokcore.sweeps.sweep import MissingRuns, missing

RUN = "import grokcore as gc\nspecs = [gc.msu(p=5, d_model=8, d_mlp=8, n_heads=2, steps=steps, batch_size=8)]"
SPEC = msu(p=5, d_model=8, d_mlp=8, n_heads=2, steps=4, batch_size=8)
FIGURE = """from matplotlib.figure import Figure
from grokcore import plots
fig = Figure()
fig.add_subplot().plot([1, 2], [3, 4])
plots.show(fig, alt='A line that rises')"""
PROSE = """# 1. A *good* `x*y`

Formula $\\alpha = 0.4$; [next](02_bad.ipynb#why), [again](../notebooks/02_bad.ipynb), [gone](09_gone.ipynb),
[paper](https://arxiv.org/abs/2201.02177).

## What came out

| claim | result |
|---|---|
| msu-1 | It groks. |
| msu-1 | Again. |

### In detail"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> build.Report:
    """A report of one notebook that trains a run and one that fails, without a browser on the PATH."""
    folder = tmp_path_factory.mktemp("report")
    notebooks = [
        write_notebook(folder, "01_good", [FIGURE, "len(gc.sweep(specs, train=False))"], specs=RUN, prose=[PROSE]),
        write_notebook(folder, "02_bad", ["kept = 1", "import math\nmath.sqrt(-kept)", "print('unreached')"]),
    ]
    options = ReportOptions(
        notebooks=[str(path) for path in notebooks],
        scale="smoke",
        settings={"steps": 4},
        device="cpu",
        train=True,
        out=folder / "out",
    )
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder))
        report = build.build_report(options, store=Store(folder / "cache", folder / "records"), say=lines.append)
    (folder / "printed").write_text("\n".join(lines))
    return report


def page(built: build.Report, name: str) -> str:
    return (built.folder / f"{name}.html").read_text(encoding="utf-8")


def test_other_pages_are_written_when_one_notebook_fails(built: build.Report) -> None:
    names = {path.name for path in built.folder.iterdir()}
    assert names == {"01_good.html", "02_bad.html", "index.html", "assets", "claims.json", "manifest.json"}
    assert [notebook.source.stem for notebook in built.failed] == ["02_bad"]
    assert manifest.read_manifest(built.folder)["failed"] == ["02_bad"]


def test_failure_names_cell_and_cause_without_frames_of_papermill(built: build.Report) -> None:
    (failed,) = built.failed
    assert str(failed.failure) == "failed in cell 5 of 6 (`import math`): ValueError: math domain error"
    text = page(built, "02_bad")
    assert "This notebook failed" in text and "cell 5 of 6" in text and "ValueError: math domain error" in text
    assert "math.sqrt(-kept)" in text and "papermill" not in text and "unreached" not in text


def test_run_that_is_missing_is_trained_before_and_only_loaded_in_the_notebook(built: build.Report) -> None:
    lines = (built.folder.parent / "printed").read_text().splitlines()
    assert lines[0].startswith("training 1 runs, about ") and lines[1] == "executing 2 notebooks"
    assert Store(built.folder.parent / "cache", built.folder.parent / "records").ids() == [SPEC.id]
    assert re.search(r'<pre class="printed">\d+</pre>', page(built, "01_good"))


def test_browser_that_is_missing_costs_the_pdf_alone(built: build.Report) -> None:
    printed = (built.folder.parent / "printed").read_text()
    assert not built.pdf and "neither Chromium nor Chrome" in printed and "apt install chromium" in printed
    assert "grokking.pdf" not in page(built, "index")


class Loads(HTMLParser):
    """Collects what a page loads, as against what it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag != "a":
            self.loaded += [
                values[name] for name in ("src", "href", "srcset", "data", "poster", "action") if name in values
            ]
        self.loaded += re.findall(r"url\(([^)]*)\)", values.get("style", ""))


@pytest.mark.parametrize("name", ["index", "01_good", "02_bad"])
def test_page_loads_nothing_but_what_lies_beside_it(built: build.Report, name: str) -> None:
    loads = Loads()
    loads.feed(page(built, name))
    files = [link for link in loads.loaded if link[0] != "#"]
    assert sorted(files) == ["assets/mathjax/tex-svg-full.js", "assets/report.css", "assets/report.js"]
    assert all((built.folder / file).is_file() for file in files)
    policy = html.unescape(re.findall(r'Policy" content="([^"]*)"', page(built, name))[0])
    assert policy.startswith("default-src 'none';") and "http" not in policy


def test_styles_load_nothing(built: build.Report) -> None:
    css = (built.folder / "assets" / "report.css").read_text()
    assert "@import" not in css and "url(" not in css and "http" not in css


def test_vendored_mathjax_has_its_licence(built: build.Report) -> None:
    assets = built.folder / "assets" / "mathjax"
    assert "Apache License" in (assets / "LICENSE").read_text() and "3.2.2" in (assets / "README.md").read_text()
    assert (assets / "tex-svg-full.js").stat().st_size > 2_000_000


def test_links_to_notebooks_lead_to_their_pages(built: build.Report) -> None:
    text = page(built, "01_good")
    assert 'href="02_bad.html#why"' in text and 'href="02_bad.html">again' in text
    assert ".ipynb" not in text.split('class="colophon"')[0] and 'class="absent">gone' in text
    assert 'href="https://arxiv.org/abs/2201.02177"' in text


def test_every_link_within_the_site_leads_somewhere(built: build.Report) -> None:
    for name in ("index", "01_good", "02_bad"):
        for file, fragment in re.findall(r'href="(?!https?:)([^"#]*)(#[^"]*)?"', page(built, name)):
            target = built.folder / (file or f"{name}.html")
            assert target.is_file(), (name, file)
            if fragment and fragment != "#why":
                assert f'id="{fragment[1:]}"' in target.read_text(encoding="utf-8"), (name, file, fragment)


def test_navigation_has_all_pages_their_contents_and_neighbours(built: build.Report) -> None:
    text = page(built, "01_good")
    assert re.findall(r'<a href="(\w+\.html)"', text.split("<main")[0]) == [
        "index.html",
        "index.html",
        "01_good.html",
        "02_bad.html",
    ]
    assert 'aria-current="page">1. A good x*y</a>' in text
    assert re.findall(r'class="level-(\d)"><a href="#([^"]+)"', text) == [("2", "What-came-out"), ("3", "In-detail")]
    assert 'rel="prev" href="index.html"' in text and 'rel="next" href="02_bad.html"' in text
    assert 'rel="prev"' not in page(built, "index") and 'rel="next"' not in page(built, "02_bad")


def test_code_is_folded_and_figures_are_inline_with_their_words(built: build.Report) -> None:
    text = page(built, "01_good")
    assert text.count('<details class="code">') == 5 and "<details open" not in text and 'id="show-code"' in text
    assert (
        'aria-label="A line that rises"' in text and "<title>A line that rises</title>" in text and 'role="img"' in text
    )
    assert "<img" not in text and "<?xml" not in text


def test_colophon_says_parameters_runs_and_version(built: build.Report) -> None:
    foot = page(built, "01_good").split('class="colophon"')[1]
    assert "<code>steps = 4</code>" in foot and f"<code>{SPEC.id}</code>" in foot and f"grokcore {__version__}" in foot


def test_front_page_has_a_verdict_in_words_for_every_claim(built: build.Report) -> None:
    text = page(built, "index")
    rows = re.findall(r'<tr id="([^"]+)">(.*?)</tr>', text, flags=re.S)
    assert [name for name, _ in rows] == list(claims.load())
    for name, row in rows:
        assert re.search(
            r'<span class="mark" aria-hidden="true">[✓✗◐○]</span>(confirmed|refuted|partly|not settled)', row
        ), name
    assert "<dd>1</dd>" in text and "<dd>4</dd>" in text  # the runs and the steps of the store
    assert "Исследование эффекта гроккинга" in text and "机器学习数学导引" in text
    assert 'href="01_good.html">msu-1' not in text  # that claim's own notebook is not in this report
    tally = re.search(r'<table class="tally">(.*?)</table>', text, flags=re.S)
    assert tally is not None and sum(map(int, re.findall(r"<td>(\d+)</td>", tally[1]))) == len(claims.load()) == 44
    for name in claims.load():
        assert text.count(f'href="#{name}-in-full"') >= 1 and text.count(f'id="{name}-in-full"') == 1
    disagreements = re.search(r'<table class="disagreements">(.*?)</table>', text, flags=re.S)
    assert disagreements is not None
    assert {"pku-6", "pku-10"} < set(re.findall(r'href="#([a-z]+-\d+)-in-full"', disagreements[1]))
    figures = re.search(r'<table class="figures">(.*?)</table>', text, flags=re.S)
    assert figures is not None and set(re.findall(r'href="#([a-z]+-\d+)"', figures[1])) == set(claims.load())


def test_a_disagreement_names_claims_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cited = sources.load()
    wrong = cited.disagreements[0].model_copy(update={"claims": ["msu-1", "msu-100"]})
    monkeypatch.setattr(sources, "load", lambda: cited.model_copy(update={"disagreements": [wrong]}))
    no_runs = evidence(Store(tmp_path / "cache", tmp_path / "records"), [])
    with pytest.raises(claims.ClaimsError, match="names 'msu-100'; did you mean 'msu-10'"):
        front_page(FrontPage(no_runs, pages=[], waiting=[], figure=None, audit=None, version="0"))


def test_claim_is_found_where_its_notebook_first_names_it(built: build.Report) -> None:
    text = page(built, "01_good")
    assert '<td class="claim-id" id="msu-1">msu-1</td>\n<td>It groks.</td>' in text
    assert '<td class="claim-id">msu-1</td>\n<td>Again.</td>' in text


def test_runs_trained_for_a_notebook_keep_the_weights_that_it_wants(tmp_path: Path) -> None:
    store, other = Store(tmp_path / "cache", tmp_path / "records"), SPEC.model_copy(update={"seed": 1})
    plans = [PlannedNotebook(tmp_path, {}, [SPEC], kept=[0, 4]), PlannedNotebook(tmp_path, {}, [SPEC, other], kept=[])]
    lines: list[str] = []
    options = ReportOptions(device="cpu", jobs=1, train=True)
    missing_runs.train_missing(plans, store, options, say=lines.append)
    assert list(store.weights(SPEC.id)) == [0, 4] and not store.has_weights(other.id)
    assert not missing([SPEC, other], store) and lines[0].startswith("training 2 runs")


def test_nothing_half_written_is_left(built: build.Report) -> None:
    names = {path.name for path in built.folder.parent.iterdir()}
    assert names == {"01_good.ipynb", "02_bad.ipynb", "out", "cache", "printed"}
    assert not [path for path in built.folder.rglob("*") if path.name.startswith(".")]


def test_missing_runs_are_counted_and_nothing_is_written(tmp_path: Path, store: Store) -> None:
    path = write_notebook(tmp_path, "n", specs=RUN.replace("]", ", gc.msu()]"))
    with pytest.raises(MissingRuns, match="2 runs are not recorded.*hours.*--train") as error:
        build.build_report(ReportOptions(notebooks=[path], scale="smoke", out=tmp_path / "out"), store=store)
    assert [spec.task.p for spec in error.value.specs] == [5, 97] and not (tmp_path / "out").exists()


def test_a_notebook_whose_runs_are_missing_waits_if_none_is_named(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = RUN.replace("]", ", gc.msu()]")
    paths = [write_notebook(tmp_path, name, specs=specs) for name, specs in (("a", RUN), ("b", more))]
    monkeypatch.setattr(plan.notebook_files, "find", lambda names: paths)
    (run,) = train([SPEC])
    store.save(make_record(run.spec, run.curve, run.status, {"seconds": 1.0}))
    lines: list[str] = []
    options = ReportOptions(scale="smoke", settings={"steps": 4}, out=tmp_path / "out")
    report = build.build_report(options, store=store, say=lines.append)
    assert [notebook.source.stem for notebook in report.notebooks] == ["a"]
    assert any(line.startswith("b: left out, 1 of its runs are not recorded") for line in lines)
    assert manifest.read_manifest(report.folder)["waiting"] == ["b"]
    cached = "<code>b</code>: not run yet at this scale (0 of 2 runs are recorded; the others take about "
    assert cached in page(report, "index")  # whatever the cache of the machine that made it holds
    store.pack("a", [SPEC.id])
    report = build.build_report(options, store=store, say=lines.append)
    assert cached.replace("0 of 2", "1 of 2") in page(report, "index")


@pytest.mark.parametrize("seed", [0, 1], ids=["honest", "forged"])
def test_recorded_runs_are_audited_and_the_front_page_shows_it(tmp_path: Path, store: Store, seed: int) -> None:
    """A record made with another seed than it says differs; twice the same report has the same front page."""
    path = write_notebook(tmp_path, "n", specs=RUN)
    (run,) = train([SPEC.model_copy(update={"seed": seed})])
    store.save(make_record(SPEC, run.curve, run.status, {"seconds": 1.0}))
    store.pack("n", [SPEC.id])
    lines: list[str] = []
    options = ReportOptions(notebooks=[path], scale="smoke", settings={"steps": 4}, out=tmp_path / "out")
    report = [build.build_report(options, store=store, say=lines.append) for _ in range(2 - seed)][-1]
    assert report.audit is not None and bool(report.audit.disagreeing) == bool(seed)
    assert sum("recorded runs again" in line for line in lines) == 1
    assert any(f"run {SPEC.id}, trained again, {'DIFFERS' if seed else 'agrees'}" in line for line in lines)
    text = page(report, "index")
    top, section = text.split('<h2 id="verdicts">')[0], text.split('<h2 id="audit">')[1].split("<h2")[0]
    assert ("Not reproduced:" in top and 'href="#audit"' in top) == bool(seed)  # what agrees is no news
    row = re.findall(r"<td>(.*?)</td>", section, flags=re.S)
    assert row[:4] == [f"<code>{SPEC.id}</code>", comparison.description(SPEC), "4", str(report.audit.runs[0].n_values)]
    assert report.audit.runs[0].largest in row[4] and ("differs" if seed else "agrees") in row[5]
    assert f"grokcore audit -n 1 --seed {report.audit.seed}" in section and report.audit.date[:10] in section
    assert html.escape(comparison.tolerance_sentence()) in section
    assert ("1 of 1 did not give what was recorded" in section) == bool(seed)


def test_without_recorded_runs_nothing_is_audited(built: build.Report) -> None:
    assert built.audit is None and 'id="audit"' not in page(built, "index") and "#audit" not in page(built, "index")


def test_missing_kernel_is_named_before_anything_is_trained(tmp_path: Path, store: Store) -> None:
    path = write_notebook(tmp_path, "n", specs=RUN)
    with pytest.raises(
        NotebookError, match=r"kernel 'no-such-kernel' is not installed \(there is: .*pip install ipykernel"
    ):
        options = ReportOptions([path], scale="smoke", train=True, out=tmp_path / "out", kernel="no-such-kernel")
        build.build_report(options, store=store)
    assert not store.ids() and not (tmp_path / "out").exists()


def test_wrong_parameter_is_refused_in_every_notebook_named(tmp_path: Path, store: Store) -> None:
    paths = [write_notebook(tmp_path, "a"), write_notebook(tmp_path, "b", parameters="other: int = 1")]
    with pytest.raises(NotebookError, match="b.ipynb has no parameter 'steps'"):
        options = ReportOptions(paths, scale="smoke", settings={"steps": 3}, out=tmp_path / "out")
        build.build_report(options, store=store)


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    )


def listen_to_interrupts() -> None:
    """Undo what a shell does to its background jobs, which ignore Ctrl-C and hand that down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupt_ends_the_kernels_and_leaves_nothing(tmp_path: Path) -> None:
    cell = "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(300)"
    path = write_notebook(tmp_path, "n", [cell])
    command = [
        sys.executable,
        "-m",
        "grokcore.cli.main",
        "report",
        str(path),
        "--scale",
        "smoke",
        "--out",
        str(tmp_path / "out"),
    ]
    environment = {**os.environ, "GROKCORE_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_interrupts
    ) as process:
        try:
            wait_for(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text() != "")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130 and "interrupted" in errors and "Traceback" not in errors
    wait_for(lambda: not alive(int((tmp_path / "pid").read_text())), 60)
    assert {path.name for path in tmp_path.iterdir()} == {"n.ipynb", "pid"}


def test_published_report_was_made_from_the_records_beside_it(recorded: dict[str, Any]) -> None:
    content = manifest.read_manifest(repository() / "reports")
    assert manifest.differences(repository() / "reports") == []
    assert content["scale"] == "cpu" and not content["settings"]
    names = sorted(path.stem for path in (repository() / "notebooks").glob("*.ipynb"))
    assert sorted([*content["notebooks"], *content["waiting"]]) == names
    assert content["waiting"] == recorded["waiting"]
    assert {"index.html", "grokking.pdf", "grokking.svg", "claims.json"} <= content["files"].keys()


JUDGED = """
import json
from grokcore.records.store import Store
from grokcore.report import sources
from grokcore.report.evidence import claims_json, evidence
from grokcore.report.front_figure import grokking_figure
from grokcore.report.front_page import FrontPage, front_page
from grokcore.report.missing_runs import ready_and_waiting
from grokcore.report.plan import planned_notebooks
from grokcore.sweeps.sweep import sweep
store = Store(cache="no-cache")
plans, waiting = ready_and_waiting(planned_notebooks(), store, None, str)
sweep(plans[0].specs, store=store, train=False)
judged = evidence(store, list(store.recorded()))
figure = grokking_figure(judged.curves)
page = front_page(FrontPage(judged, pages=[], waiting=[], figure=figure, audit=None, version="0"))
print(json.dumps({
    "planned": [spec.id for plan in plans for spec in plan.specs],
    "waiting": [notebook.name for notebook in waiting],
    "page": page.body,
    "claims": json.loads(claims_json(judged, "cpu")),
    "findings": [short for short, _, _ in sources.findings(sources.load(), judged.verdicts)],
}))
"""


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """All that is recorded, planned and judged once, in a process that cannot load torch."""
    return json.loads(run(JUDGED))


def test_report_is_planned_loaded_and_judged_without_torch(recorded: dict[str, Any]) -> None:
    assert set(recorded["planned"]) <= set(Store().recorded())
    assert "<svg" in recorded["page"] and recorded["page"].count('<tr id="') == 44


def test_every_finding_rests_on_the_verdicts_of_the_records(recorded: dict[str, Any]) -> None:
    """One that does not any more would silently be left out of the front page."""
    assert recorded["findings"] == [finding.short for finding in sources.load().findings]


def test_published_verdicts_are_those_of_the_records(recorded: dict[str, Any]) -> None:
    published = json.loads((repository() / "reports" / "claims.json").read_text())
    assert published == recorded["claims"] and [row["id"] for row in published] == list(claims.load())
    by_id, runs = claims.load(), set(Store().recorded())
    for row in published:
        claim = by_id[row["id"]]
        assert row["rule_sha256"] == claim.rule_sha256 and row["n_runs"] == len(row["run_ids"])
        assert set(row["run_ids"]) <= runs
        holds = re.search(r"holds on (\d+)", row["reason"])  # counted over the seeds, whatever the verdict
        parts = re.findall(r": (\d+) of (\d+)[;)]", row["reason"])
        enough = row["n_seeds"] >= claim.min_seeds
        open_ = not enough or (
            all(yes == judged for yes, judged in parts) and int(holds[1] if holds else 0) < row["n_seeds"]
        )
        assert (row["verdict"] == "not settled") == open_, row["id"]


def test_published_report_is_where_the_recorded_one_goes_and_others_are_drafts() -> None:
    committed, elsewhere = Store(records=repository() / "data" / "records"), Store(records=repository() / "other")
    assert build.output_folder(ReportOptions(), committed) == repository() / "reports"
    assert build.output_folder(ReportOptions(out=Path("elsewhere")), committed) == Path("elsewhere")
    for options, store in (
        (ReportOptions(notebooks=["a"]), committed),
        (ReportOptions(scale="smoke"), committed),
        (ReportOptions(settings={"p": 3}), committed),
        (ReportOptions(), elsewhere),
    ):
        assert build.output_folder(options, store) == repository() / "drafts"


def test_manifest_json_is_readable(built: build.Report) -> None:
    content = json.loads((built.folder / "manifest.json").read_text())
    assert content["settings"] == {"steps": 4} and content["scale"] == "smoke"
    assert "data/claims.yaml" in content["inputs"]
