"""Habits that hold for the whole tree: its names, its sizes, its commands, what stays out of it."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import kernl

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {
    *(".ci", ".gitattributes", ".github", ".gitignore", ".pre-commit-config.yaml"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md"),
    *("Makefile", "asv.conf.json", "constraints.txt", "pyproject.toml"),
    *("benchmarks", "dashboards", "kernl", "tests", "tutorials"),
}
KERNEL_LINES = 200
FILE_LINES = 400
# Somebody's own folders, by their roots; written so that this file does not name one itself.
PERSONAL = re.compile(r"(?<![\w.])/(?:home|root|Users|work|workspace)/\w")
PACKAGE_INDEX = re.compile(r"https?://[\w.-]*(?:pypi|pythonhosted|npmjs|pytorch\.org/whl)")


def tracked() -> list[Path]:
    """The files that belong to the project: committed, or new and not ignored."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listing.split("\0") if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    """A file's text; nothing for a picture or a font."""
    data = (ROOT / path).read_bytes()
    return "" if b"\0" in data[:4096] else data.decode("utf-8", errors="replace")


def is_kernel(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(item).startswith("triton.jit") for item in node.decorator_list)


def functions(source: str) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]


def kernel_lines(source: str) -> int:
    """How many lines the @triton.jit functions of a file take, decorators included."""
    total = 0
    for node in filter(is_kernel, functions(source)):
        start = min(item.lineno for item in node.decorator_list)
        total += (node.end_lineno or start) - start + 1
    return total


def unannotated(source: str) -> list[str]:
    """Functions that are no kernels and lack an annotation; mypy cannot tell the two apart."""
    found = []
    for node in functions(source):
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        named = [item for item in parameters if item.arg not in ("self", "cls")]
        whole = node.returns is not None and all(item.annotation for item in named)
        if not whole and not is_kernel(node):
            found.append(node.name)
    return found


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z_-]*):", (ROOT / "Makefile").read_text(), re.M))


def test_top_level_names_are_the_agreed_ones() -> None:
    assert {path.parts[0] for path in tracked()} <= TOP_LEVEL


def files_with_kernels() -> list[Path]:
    """All operators, and what else in kernl holds a kernel."""
    found = sorted((ROOT / "kernl").rglob("*.py"))
    return [path for path in found if "ops" in path.parts or "@triton.jit" in path.read_text()]


def test_kernels_stay_short() -> None:
    sizes = {str(path): kernel_lines(path.read_text()) for path in files_with_kernels()}
    assert max(sizes.values()) > 0
    assert {name: size for name, size in sizes.items() if size >= KERNEL_LINES} == {}


def test_kernel_lines_are_counted() -> None:
    source = (
        "@triton.jit\ndef a():\n    pass\n\n\n@triton.jit(debug=True)\ndef b(): ...\ndef c(): ..."
    )
    assert kernel_lines(source) == 5


def test_functions_beside_kernels_are_annotated() -> None:
    for path in files_with_kernels():
        assert unannotated(path.read_text()) == [], path
    planted = "def a(x): ...\ndef b() -> None: ...\n@triton.jit\ndef c(x): ...\n"
    assert unannotated(planted) == ["a"]


def test_files_stay_readable() -> None:
    python = [path for path in tracked() if path.suffix == ".py"]
    sizes = {str(path): len(text_of(path).splitlines()) for path in python}
    assert {name: size for name, size in sizes.items() if size > FILE_LINES} == {}


def test_nobodys_own_folders_are_named() -> None:
    leaks = []
    for path in tracked():
        for number, line in enumerate(text_of(path).splitlines(), start=1):
            if PERSONAL.search(line):
                leaks.append(f"{path}:{number}")
    assert leaks == []


def test_a_planted_folder_is_found() -> None:
    for root in ("home", "root", "Users"):
        assert PERSONAL.search(f'"/{root}/somebody/kernl"')
    assert not PERSONAL.search("see tests/home/page")


def test_no_package_index_is_named() -> None:
    """Which one pip asks is the user's setting, not the project's."""
    assert PACKAGE_INDEX.search("see https://download.pytorch.org/whl/cpu")
    assert [str(path) for path in tracked() if _names_an_index(path)] == []


def _names_an_index(path: Path) -> bool:
    text = text_of(path)
    return path != Path("tests/test_repository.py") and PACKAGE_INDEX.search(text) is not None


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == kernl.__version__
    assert "## [Unreleased]" in text_of(Path("CHANGELOG.md"))


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    pins = set()
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            assert version, line
            pins.add(name)
    names = {re.split(r"[\[<>=! ;]", item)[0].replace("_", "-").lower() for item in wanted}
    assert names - {"kernl"} <= pins


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_commands_that_pages_name_exist(page: str) -> None:
    named = set(re.findall(r"(?:^|`|\$ )make ([a-z][a-z_-]*)", text_of(Path(page)), re.M))
    named |= set(re.findall(r'" make ([a-z][a-z_-]*)', text_of(Path(page))))
    assert named
    assert named <= make_targets()


def test_make_lists_every_command() -> None:
    command = ["make", "--no-print-directory", "help"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = set(re.findall(r"^  ([a-z_-]+)", answer, re.M))
    assert listed == make_targets()


def test_both_workflows_run_what_developers_run() -> None:
    folder = ROOT / ".github" / "workflows"
    assert "run: .ci/run" in (folder / "ci.yml").read_text()
    commands = re.findall(
        r"^ +(?:- )?(?:run: )?make ([a-z-]+)", (folder / "gpu.yml").read_text(), re.M
    )
    assert {"environment", "test-gpu", "bench", "gate-gpu"} <= set(commands) <= make_targets()


@pytest.mark.parametrize("name", ["ci.yml", "gpu.yml"])
def test_workflows_may_read_alone_and_use_what_a_commit_names(name: str) -> None:
    text = (ROOT / ".github" / "workflows" / name).read_text()
    used = re.findall(r"uses: *(\S+)", text)
    assert used
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", one) for one in used), used
    assert re.findall(r"^ *permissions:\n((?: +\S+: \S+\n)+)", text, re.M) == ["  contents: read\n"]
    assert "pull_request_target" not in text
    assert "secrets." not in text


def test_a_pull_request_reaches_the_gpu_by_a_label_alone() -> None:
    text = (ROOT / ".github" / "workflows" / "gpu.yml").read_text()
    assert re.search(r"^  pull_request:\n    types: \[labeled\]\n", text, re.M)
    jobs = text.split("jobs:\n")[1]
    asked = "if: github.event_name != 'pull_request' || github.event.label.name == 'measure'"
    assert jobs.count("runs-on:") == jobs.count(asked) == 1
