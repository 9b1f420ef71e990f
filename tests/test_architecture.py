"""What the top of the package holds, the sizes of its files, and what must work without torch.

Which subpackage imports from which is checked by import-linter (pyproject.toml, `make test`).
"""

import ast
import json
import re
from pathlib import Path

import pytest
from helpers.without_torch import run

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "grokcore"
# Never load torch, not by a detour either: a report is made from records without it.
WITHOUT_TORCH = ("spec", "plots", "records", "claims", "report", "cli")
ALSO_WITHOUT_TORCH = ("analysis.stats", "analysis.curves", "sweeps.sweep", "sweeps.audit")
OWN = sorted(PACKAGE.rglob("*.py"))
FILES = [*OWN, *sorted((ROOT / "tests").rglob("*.py"))]


def named(path: Path) -> str:
    """Return the path of a file in the repository, as the id of a test."""
    return path.relative_to(ROOT).as_posix()


def test_the_top_of_the_package_holds_its_face_and_folders() -> None:
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__init__.pyi", "py.typed"}


def test_the_layout_page_lists_every_module_once_beside_its_folder() -> None:
    picture = re.findall(r"```\n(cli/.*?)```", (ROOT / "docs" / "layout.md").read_text(encoding="utf-8"), flags=re.S)[0]
    listed = {
        folder: sorted(re.findall(r"\b\w+\b", re.sub(r"\(.*?\)|\w+/:?", "", "".join(lines))))
        for folder, lines in re.findall(r"^(\w+)/ .*\n((?: .*\n)+)", picture, flags=re.M)
    }
    folders = sorted(path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__")
    modules = {folder.name: sorted(path.stem for path in folder.rglob("*.py")) for folder in folders}
    assert listed == {name: [stem for stem in stems if stem != "__init__"] for name, stems in modules.items()}


@pytest.mark.parametrize("path", OWN, ids=named)
def test_file_has_at_most_300_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


def n_lines(node: ast.stmt) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function's docstring, 0 if it has none."""
    return n_lines(node.body[0]) if ast.get_docstring(node, clean=False) is not None else 0


@pytest.mark.parametrize("path", FILES, ids=named)
def test_functions_have_at_most_50_lines(path: Path) -> None:
    """Their docstrings are not counted."""
    functions = [
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    assert not {node.name: size for node in functions if (size := n_lines(node) - docstring_lines(node)) > 50}


def test_modules_need_no_torch() -> None:
    paths = [path for name in WITHOUT_TORCH for path in sorted((PACKAGE / name).rglob("*.py"))]
    modules = [path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".") for path in paths]
    assert len(modules) > 50
    run("\n".join(f"import grokcore.{module}" for module in [*modules, *ALSO_WITHOUT_TORCH]))


def test_every_error_has_an_exit_code() -> None:
    """The command line ends with it; any other error would be a traceback."""
    classes = [node for path in OWN for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    bases = {node.name: {ast.unparse(base) for base in node.bases} for node in classes if node.name[0] != "_"}
    errors = {name for name, of in bases.items() if of & {"RuntimeError", "ValueError", "TypeError", "OSError"}}
    assert {name for name in errors if "GrokcoreError" not in bases[name]} == set()
    assert {"SpecError", "RecordError", "NotebookError", "MissingRuns"} <= errors


# What takes longest to load, and what no help needs.
HEAVY = {"torch", "pandas", "numpy", "scipy", "matplotlib", "pyarrow", "nbconvert", "papermill", "loky", "tqdm"}
HELP = """
import contextlib, io, sys
from grokcore.cli.main import main
for command in [], ["train"], ["report"], ["plan"], ["runs"], ["runs", "export"], ["audit"], ["bench"]:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main([*command, "--help"])
print(" ".join({name.split(".")[0] for name in sys.modules}))
"""
LIST = """
import sys
from grokcore.cli.main import main
main(["runs", "list"])
print("loaded", *{name.split(".")[0] for name in sys.modules})
"""


def test_no_help_loads_a_heavy_library() -> None:
    """`benchmarks/startup.py` prints how long it takes."""
    loaded = set(run(HELP).split())
    assert "grokcore" in loaded and "pydantic" in loaded and not loaded & HEAVY


def test_the_list_of_runs_is_printed_without_what_trains_or_draws() -> None:
    loaded = set(run(LIST).rpartition("loaded ")[2].split())
    assert "pyarrow" in loaded and not loaded & {"torch", "scipy", "matplotlib", "nbconvert", "papermill", "loky"}


# Calls that execute what a file or a text says; numbers, specifications and settings are read as data alone.
UNPICKLING = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
LOADING = {"read_pickle", "Unpickler", "unsafe_load", "full_load", "UnsafeLoader", "FullLoader", "load_pickle"}
ALLOWED = {("parameters.py", "eval"), ("plan.py", "exec")}  # checked annotations, and the user's own cells


def executing(source: str, name: str) -> list[str]:
    """Return what in a source loads a pickle, or executes a text where that is not allowed."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names]
            found += [module for module in modules if {*module.split(".")} & (UNPICKLING | LOADING)]
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        last = called.rpartition(".")[2]
        torch_or_numpy = last == "load" and called.split(".")[0] in ("torch", "np", "numpy", "yaml", "pickle")
        allows = [key for key in node.keywords if key.arg == "allow_pickle"] if isinstance(node, ast.Call) else []
        runs = called in ("eval", "exec", "__import__", "os.system", "os.popen") and (name, called) not in ALLOWED
        shell = isinstance(node, ast.Call) and any(key.arg == "shell" for key in node.keywords)
        if last in LOADING or torch_or_numpy or allows or runs or shell:
            found.append(called)
    return found


def test_no_file_is_unpickled_or_executed() -> None:
    """In the package, in the benchmark, in the cells of the notebooks. (loky sends pickles between its processes.)"""
    sources = {path: path.read_text() for path in [*OWN, *(ROOT / "benchmarks").glob("*.py")]}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources[path] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert len(sources) > 60
    assert {named(path): bad for path, text in sources.items() if (bad := executing(text, path.name))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import a, cloudpickle",
        "from pandas import read_pickle",
        "torch.load(f)",
        "torch.load(f, weights_only=True)",
        "np.load(f, allow_pickle=True)",
        "pd.read_pickle(f)",
        "yaml.load(f, Loader=yaml.Loader)",
        "yaml.unsafe_load(f)",
        "eval('1')",
        "exec('1')",
        "os.system('x')",
        "subprocess.run('x', shell=True)",
        "def f():\n    __import__('x')",
    ],
)
def test_a_source_that_unpickles_or_executes_is_seen(source: str) -> None:
    assert executing(source, "store.py") and not executing("json.loads(x)\nspec.evaluate(x)\nclaims.load()", "store.py")
