"""The checkout, the wheel that is built from it, and the tools around it."""

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("envs", "policies", "hardware", "assets")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


def python(*arguments, **options):
    return run(sys.executable, *arguments, **options)


def git_files():
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def fake_program(folder, name, script):
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def find_python(folder, **environment):
    """Runs the finder where nothing but the programs in `folder` exists."""
    environment = {"PATH": str(folder), "HOME": str(folder), **environment}
    return run(str(ROOT / ".ci/find-python"), env=environment)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The opened wheel, built from the sdist that is built from a copy of the checkout."""
    copy = tmp_path_factory.mktemp("build") / "robolearn"
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "runs", "data")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    (copy / "assets" / "__pycache__").mkdir(exist_ok=True)
    (copy / "assets" / "__pycache__" / "stale.cpython-312.pyc").touch()
    built = python("-m", "build", "--no-isolation", cwd=copy)
    assert built.returncode == 0, built.stdout + built.stderr
    assert list((copy / "dist").glob("*.tar.gz"))
    with zipfile.ZipFile(*(copy / "dist").glob("*.whl")) as archive:
        yield archive


def test_wheel_holds_every_module_and_asset(wheel):
    folders = [ROOT / "robolearn", *(ROOT / "robolearn" / name for name in FOLDERS)]
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    expected = {str(p.relative_to(ROOT)) for p in files if "__pycache__" not in p.parts}
    assert {"robolearn/py.typed", "robolearn/assets/__init__.py"} <= expected
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == expected


def test_wheel_metadata(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    text = wheel.read(name).decode()
    assert "Requires-Python: >=3.12\n" in text
    assert "License-Expression: Apache-2.0\n" in text
    (licence,) = (name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_licence_is_apache_2():
    words = " ".join((ROOT / "LICENSE").read_text().split())
    assert words.startswith("Apache License Version 2.0, January 2004")
    assert "9. Accepting Warranty or Additional Liability." in words
    assert "END OF TERMS AND CONDITIONS" in words


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_is_linked_into_the_package(folder):
    link = ROOT / "robolearn" / folder
    assert link.is_symlink(), f"{link} is not a link; on Windows check out inside WSL"
    assert os.readlink(link) == f"../{folder}"
    assert (link / "__init__.py").is_file()


def test_package_version_is_the_project_version():
    import robolearn

    assert robolearn.__version__ == PROJECT["version"]


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_of_the_product_only_the_documents_tables_import_what_measures():
    """The command line names its modules and imports the one that runs."""
    for path in (
        path for folder in ("robolearn", *FOLDERS) for path in (ROOT / folder).glob("*.py")
    ):
        measuring = {name for name in imported_modules(path) if name.startswith("robolearn.bench")}
        assert not measuring or path.name == "docs.py", f"{path.name} imports {measuring}"


def test_everything_imported_is_declared():
    """What only comes along with a dependency may stop coming along."""
    extras = PROJECT["optional-dependencies"]
    declared = PROJECT["dependencies"] + extras["hardware"] + extras["ray"]
    names = {canonicalize_name(Requirement(text).name) for text in declared} | {"robolearn"}
    owners = metadata.packages_distributions()  # knows what is installed, so not every extra
    folders = ("robolearn", "robolearn/bench", *FOLDERS)
    for path in (path for folder in folders for path in (ROOT / folder).glob("*.py")):
        for module in imported_modules(path):
            top = module.partition(".")[0]
            found = {canonicalize_name(owner) for owner in owners.get(top, ())}
            assert not found or found & names, f"{path.name} imports {module}, of {found}"


def test_constraints_are_pins_inside_the_bounds_of_the_project():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)
    pins = dict(line.split("==") for line in lines)
    extras = PROJECT["optional-dependencies"]
    for text in PROJECT["dependencies"] + extras["hardware"] + extras["dev"]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:  # which names an extra of this project
            continue
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), f"{text}: {pin}"


def test_constraints_are_the_versions_under_test():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, found, pin = line.partition("==")
        if found:
            assert metadata.version(name).split("+")[0] == pin


def test_no_file_names_a_package_index():
    index = re.compile(
        r"https?://[^\s/]*(pypi|pythonhosted|mirror|anaconda)|(index|trusted)-(url|host)"
    )
    for path in git_files():
        if path.is_file() and not path.is_symlink():
            found = index.search(path.read_text(errors="ignore"))
            assert not found, f"{path.relative_to(ROOT)}: {found[0]}"


@pytest.mark.parametrize(
    "line", ["import envs.push", "from policies import flow", "import hardware"]
)
def test_lint_rejects_bare_imports(line):
    checked = python(
        *("-m", "ruff", "check", "--select", "TID251", "--stdin-filename", "envs/planted.py", "-"),
        input=line + "\n",
        cwd=ROOT,
    )
    assert checked.returncode == 1
    assert "TID251" in checked.stdout


@pytest.fixture
def session(tmp_path):
    """Runs one test in a session that has this project's conftest.py; returns the process."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "envs.py").touch()

    def run_test(body):
        (tmp_path / "test_it.py").write_text(f"def test_it():\n    {body}\n")
        return python("-m", "pytest", "-p", "no:cacheprovider", cwd=tmp_path)

    return run_test


def test_bare_import_fails_the_session(session):
    assert session("import json").returncode == 0
    planted = session("import envs")
    assert planted.returncode == 1
    assert "import these from robolearn: envs" in planted.stdout


def test_tests_have_no_network():
    with socket.socket() as client, pytest.raises(OSError, match="tests have no network"):
        client.connect(("192.0.2.1", 80))


def test_finder_says_in_one_line_how_to_get_python(tmp_path):
    for name in ("python3", "python3.11"):
        fake_program(tmp_path, name, "exit 1")  # as a Python that is too old answers
    fake_program(
        tmp_path, "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127"
    )
    found = find_python(tmp_path)
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1
    for word in ("Python >= 3.12", "apt-get", "brew", "pyenv", "uv"):
        assert word in found.stderr


def test_finder_rejects_an_old_python(tmp_path):
    """The version check itself, with an interpreter that claims to be 3.11."""
    claim = 'shift; exec "$REAL" -c "import sys; sys.version_info = (3, 11); $1"'
    fake_program(tmp_path, "python3", claim)
    assert find_python(tmp_path, REAL=sys.executable).returncode == 1


@pytest.mark.parametrize("place", ["python3.12", "python3.13", "python3", "pyenv", "uv"])
def test_finder_finds_python(tmp_path, place):
    """It names the Python beneath .venv: `venv --clear` would delete the one inside."""
    if place == "pyenv":
        folder, name = tmp_path / ".pyenv" / "versions" / "3.12.1" / "bin", "python3"
    else:
        folder, name = tmp_path, "hidden" if place == "uv" else place
    folder.mkdir(parents=True, exist_ok=True)
    fake_program(folder, name, f'exec {sys.executable} "$@"')
    if place == "uv":
        fake_program(tmp_path, "uv", f'test "$1 $2" = "python find" && echo {folder}/{name}')
    found = find_python(tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == sys._base_executable


def test_make_lists_its_targets():
    listed = run("make", "--no-print-directory", cwd=ROOT)
    targets = re.findall(r"^  make (\w+) ", listed.stdout, re.MULTILINE)
    wanted = ["setup", "demo", "test", "lint", "typecheck", "docs", "bench", "clean"]
    assert set(wanted) <= set(targets)


@pytest.fixture
def checkout(tmp_path):
    """A folder that `make setup` can run in, with a Python that only notes what it is asked."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", ".ci"):
        target = tmp_path / "checkout" / name
        target.parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, target)
    (tmp_path / "checkout" / "robolearn" / "envs").mkdir(parents=True)
    fake_program(
        tmp_path,
        "python3.12",
        f"""case "$*" in
*_base_executable*) echo {tmp_path}/python3.12 ;;
*venv*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
esac
echo "$*" >> {tmp_path}/calls""",
    )
    return tmp_path / "checkout"


def make_setup(checkout):
    path = f"{checkout.parent}:{os.environ['PATH']}"
    done = run("make", "setup", cwd=checkout, env={**os.environ, "PATH": path, "PYTHON": ""})
    calls = checkout.parent / "calls"
    noted = calls.read_text() if calls.exists() else ""
    calls.unlink(missing_ok=True)
    return done, noted


def test_setup_runs_once_until_the_dependencies_change(checkout):
    done, calls = make_setup(checkout)
    assert done.returncode == 0, done.stderr
    assert "-m venv --clear .venv" in calls
    assert "-m pip install -c constraints.txt -e .[dev]" in calls
    assert make_setup(checkout)[1] == ""
    os.utime(checkout / "constraints.txt", (2**31, 2**31))
    done, calls = make_setup(checkout)
    assert "pip install" in calls
    assert "-m venv" not in calls


def test_setup_names_wsl_where_links_were_checked_out_as_text(checkout):
    (checkout / "robolearn" / "envs").rmdir()
    (checkout / "robolearn" / "envs").write_text("../envs")
    done, calls = make_setup(checkout)
    assert done.returncode != 0
    assert "WSL" in done.stderr
    assert calls == ""


def test_missing_gl_names_the_command_and_goes_on(tmp_path):
    """As a user who may not install packages, on a machine where nothing loads."""
    fake_program(
        tmp_path, "python", 'case "$*" in *BACKENDS*) echo libone libtwo ;; *) exit 1 ;; esac'
    )
    fake_program(tmp_path, "id", "echo 1000")
    fake_program(tmp_path, "sudo", "exit 1")
    fake_program(tmp_path, "apt-get", f"touch {tmp_path}/installed")
    (tmp_path / "env").symlink_to(shutil.which("env"))
    tried = run(str(ROOT / ".ci/gl"), f"{tmp_path}/python", env={"PATH": str(tmp_path)})
    assert tried.returncode == 0
    assert tried.stderr.endswith("sudo apt-get install libone libtwo\n")
    assert not (tmp_path / "installed").exists()


def test_missing_gl_is_installed_where_that_is_allowed(tmp_path):
    fake_program(
        tmp_path,
        "python",
        f'case "$*" in *BACKENDS*) echo libone libtwo ;; *) test -f {tmp_path}/libone ;; esac',
    )
    fake_program(tmp_path, "id", "echo 0")
    fake_program(
        tmp_path,
        "apt-get",
        f'for name; do :; done; test "$name" != libtwo && : > {tmp_path}/"$name"',
    )
    (tmp_path / "env").symlink_to(shutil.which("env"))
    (tmp_path / "true").symlink_to(shutil.which("true"))
    tried = run(str(ROOT / ".ci/gl"), f"{tmp_path}/python", env={"PATH": str(tmp_path)})
    assert (tried.returncode, tried.stderr) == (0, "")
    assert (tmp_path / "libone").exists()
