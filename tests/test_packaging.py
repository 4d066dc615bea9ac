"""One place for metadata, one source for the code, imports that point one way."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import tokenize
from configparser import ConfigParser
from pathlib import Path

import nbformat
import pytest
from series import NAMES, NOTEBOOKS, README, ROOT

PACKAGE = ROOT / "revtrans"
# Arrows point one way: a module imports only from ranks before its own.
RANKS = [
    {"errors"},
    {"data"},
    {"attention"},
    {"positions"},
    {"model", "recurrent"},
    {"packed"},
    {"devices"},
    {"training"},
    {"decoding"},
    {"plotting", "schemes", "by_hand", "pairs", "files"},
    {"proof"},
    {"exercises", "page"},
    {"cli"},
]
MODULES = {name: PACKAGE / f"{name}.py" for rank in RANKS for name in sorted(rank - {"exercises"})}
for path in (PACKAGE / "exercises").glob("*.py"):
    MODULES[f"exercises.{path.stem}"] = path


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def imports(path: Path) -> tuple[set[str], set[str]]:
    """The modules of revtrans that a file imports when it is read, and packages from elsewhere."""
    own, other = set(), set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            names = [name.removeprefix("revtrans.") for name in names]
            is_own = node.level or node.module.startswith("revtrans.")
            (own if is_own else other).update(name.split(".")[0] for name in names)
        elif isinstance(node, ast.Import):
            other |= {alias.name.split(".")[0] for alias in node.names}
    return own - {"__version__"}, other - sys.stdlib_module_names


def test_setup_py_hands_the_settings_to_pip(settings, monkeypatch):
    handed = {}
    monkeypatch.setattr("setuptools.setup", lambda **options: handed.update(options))
    runpy.run_path(str(ROOT / "setup.py"))
    assert (handed["name"], handed["version"]) == (settings["lib_name"], settings["version"])
    assert handed["python_requires"] == f">={settings['min_python']}"
    assert handed["install_requires"] == settings["requirements"].split()
    assert handed["extras_require"]["dev"] == settings["dev_requirements"].split()
    assert handed["entry_points"]["console_scripts"] == ["revtrans=revtrans.cli:main"]
    assert imports(ROOT / "setup.py")[1] == {"setuptools"}, "and no pkg_resources"


def test_the_requirements_are_what_the_library_imports(settings):
    required = {line.split(">=")[0] for line in settings["requirements"].split()}
    assert set.union(*(imports(path)[1] for path in MODULES.values())) == required


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_modules_before_it(name):
    (rank,) = [i for i, names in enumerate(RANKS) if name.split(".")[0] in names]
    within = {"mistakes"} if name == "exercises.__init__" else set()
    assert imports(MODULES[name])[0] <= set().union(within, *RANKS[:rank])


def test_every_module_of_the_series_has_its_rank():
    cells = [cell.source for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells]
    exported = re.findall(r"(?m)^#\| default_exp ([\w.]+)$", "\n".join(cells))
    assert {name.split(".")[0] for name in exported} == set.union(*RANKS)


def test_a_notebook_beside_the_series_is_exported_and_disturbs_no_test(tmp_path):
    """What README says under "A notebook of your own"."""
    said = re.search(r"\*\*A notebook of your own\*\* .*", README)[0]
    _, path, first, marker, export, module, _ = re.findall("`(.+?)`", said)
    for name in ("nbs", "revtrans"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "tests").mkdir()
    for name in ("settings.ini", "README.md", "tests/series.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    code = [first, f"{marker}\ndef double(x: int) -> int:\n    return 2 * x"]
    mine = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(part) for part in code])
    nbformat.write(mine, tmp_path / path)
    settings = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(tmp_path)}}
    export = Path(sys.executable).with_name(export)
    subprocess.run([export], check=True, capture_output=True, **settings)
    use = f"from {module} import double; assert double(2) == 4"
    subprocess.run([sys.executable, "-c", use], check=True, **settings)
    assert runpy.run_path(str(tmp_path / "tests" / "series.py"))["NAMES"] == NAMES


def test_a_star_import_replaces_nothing_and_types_are_marked():
    code = "import revtrans.training; model = 1; from revtrans import *; print(model)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "1\n", done.stderr
    assert (PACKAGE / "py.typed").is_file() and "py.typed" in (ROOT / "setup.py").read_text()


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, revtrans; print({'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_documented_briefly_and_files_are_short(name):
    text = MODULES[name].read_text(encoding="utf-8")
    assert text.count("\n") <= (900 if name == "exercises.mistakes" else 500), "that one is a table"
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if not any(ast.unparse(one) == "overload" for one in node.decorator_list)
    ]
    assert public
    for node in public:
        lines = (ast.get_docstring(node) or "").splitlines()
        assert 1 <= len(lines) <= 15, node.name


MOST = {
    "attention": 50,
    "model": 120,
    "training": 135,
    "decoding": 140,
    "data": 120,
    "positions": 20,
}


@pytest.mark.parametrize("name", MOST)
def test_a_module_of_the_core_has_no_more_lines_of_code_than_its_idea_needs(name):
    left_out = set()
    for node in ast.walk(ast.parse(MODULES[name].read_bytes())):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets) == "__all__"
        if is_text or is_all or isinstance(node, ast.Import | ast.ImportFrom):
            left_out |= set(range(node.lineno, node.end_lineno + 1))
    code = {tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING}
    with MODULES[name].open("rb") as file:
        lines = {token.start[0] for token in tokenize.tokenize(file.readline) if token.type in code}
    assert len(lines - left_out) <= MOST[name]


def test_a_python_that_is_too_old_is_named_before_pip_looks_for_packages(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 12))
    with pytest.raises(SystemExit, match=r"^revtrans needs Python 3.11 or newer$"):
        runpy.run_path(str(ROOT / "setup.py"))
