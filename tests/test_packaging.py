"""One place for metadata, one source for the code, imports that point one way."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import entry_points
from pathlib import Path

import nbformat
import pytest
from series import NOTEBOOKS, ROOT

import revtrans

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


def test_settings_ini_is_the_only_place_for_metadata(settings):
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert not re.search(r"^\[project\b", pyproject, re.M)
    nbdev = re.search(r"^\[tool\.nbdev\]\n((?:\w.*\n)*)", pyproject, re.M)[1]
    assert nbdev == f'lib_path = "{settings["lib_path"]}"\n'
    for name in ("setup.py", "pyproject.toml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert settings["version"] not in text and "torch>=" not in text
    assert revtrans.__version__ == settings["version"]


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


def test_the_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="revtrans")
    assert command.value == "revtrans.cli:main"


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
    """What README says under "A notebook of your own", beside an empty notebook that lies about."""
    said = re.search(r"\*\*A notebook of your own\*\* .*", (ROOT / "README.md").read_text("utf-8"))[
        0
    ]
    _, path, first, marker, export, module, _ = re.findall("`(.+?)`", said)
    for name in ("nbs", "revtrans", "tests", "benchmarks"):
        without = shutil.ignore_patterns("__pycache__", "Untitled*")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=without)
    for name in ("README.md", "LICENSE", "settings.ini", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    code = [first, f"{marker}\ndef double(x: int) -> int:\n    return 2 * x"]
    mine = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(part) for part in code])
    nbformat.write(mine, tmp_path / path)
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "nbs" / "Untitled.ipynb")
    settings = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(tmp_path)}}
    export = Path(sys.executable).with_name(export)
    subprocess.run([export], check=True, capture_output=True, **settings)
    use = f"from {module} import double; assert double(2) == 4"
    subprocess.run([sys.executable, "-c", use], check=True, **settings)
    names = ["readme", "prose", "teaching", "packaging", "check_notebooks", "exercises"]
    files = [f"tests/test_{name}.py" for name in names]
    chosen = "every or each or module or rank or exported or notebook_states"
    chosen = f"({chosen}) and not beside_the_series"
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", *files]
    done = subprocess.run([*command, "-k", chosen], capture_output=True, text=True, **settings)
    assert done.returncode == 0, done.stdout


def test_the_library_is_what_the_notebooks_export(tmp_path):
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs")
    shutil.copy(ROOT / "settings.ini", tmp_path)
    command = Path(sys.executable).with_name("nbdev_export")
    subprocess.run([command], cwd=tmp_path, check=True, capture_output=True)
    exported, ours = (
        {path.relative_to(folder): path.read_text("utf-8") for path in folder.rglob("*.py")}
        for folder in (tmp_path / "revtrans", ROOT / "revtrans")
    )
    assert exported.keys() | {Path("__main__.py")} == ours.keys(), (
        "python -m needs a file of its own"
    )
    exported[Path("__init__.py")] += '__all__ = ["__version__"]\n'  # nbdev leaves it there
    differing = [name for name in exported if exported[name] != ours[name]]
    assert not differing, "run nbdev_export"


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


def test_the_code_of_every_module_is_formatted(tmp_path):
    """nbdev spaces the cells of a module in its own way; each cell by itself must be formatted."""
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        cells = re.findall(r"^# %% (?:\.\./)+nbs/.*\n((?:(?!# %% ).*\n)+)", text, re.MULTILINE)
        assert cells
        for number, cell in enumerate(cells):
            (tmp_path / f"{name}{number}.py").write_text(cell.strip("\n") + "\n", encoding="utf-8")
    config = str(ROOT / "pyproject.toml")
    command = [sys.executable, "-m", "ruff", "format", "--check", "--config", config, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert re.search(r"[1-9]\d+ files already formatted", done.stdout), "they were looked at"
