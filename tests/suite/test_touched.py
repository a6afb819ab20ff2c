"""Which operators a change can have changed: never one too few."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import cases
from benchmarks.touched import Tree, code_of, touched, touched_models

ROOT = Path(__file__).parents[2]
OPS = ("softmax", "linear", "glu", "gelu")
FILES = {
    "kernl/__init__.py": "from kernl.ops import ALL",
    "kernl/launch.py": "def launch(): ...",
    "kernl/errors.py": "class Error(Exception): ...",
    "kernl/rewrite/patterns.py": "from kernl.ops.linear import linear",
    "kernl/ops/__init__.py": "from kernl.ops.linear import LINEAR",
    "kernl/ops/softmax.py": "from kernl.launch import launch\nSOFTMAX = Op(name='softmax')",
    "kernl/ops/tile.py": "import kernl.errors",
    "kernl/ops/linear.py": "from kernl.ops import tile\nLINEAR = Op(name='linear')",
    "kernl/ops/gated.py": "NAMES = ('gelu', 'glu')\ndef f():\n    from kernl.ops.linear import x",
    "kernl/tuned/softmax.csv": "1,2",
    "kernl/tuned/linear.csv": "3,4",
}


def tree(**changes: str | None) -> Tree:
    """FILES but for `changes`, whose names have `__` in the place of `/`, and no `.py`."""
    files: dict[str, str | None] = dict(FILES)
    for name, text in changes.items():
        path = f"kernl/{name.replace('__', '/')}"
        files[path if path in FILES or ".csv" in path else f"{path}.py"] = text
    return Tree({path: text.encode() for path, text in files.items() if text is not None})


USED = {"one": ("softmax",), "two": ("glu",), "both": ("linear",)}


def test_an_operator_needs_what_its_modules_import_and_its_tables() -> None:
    assert tree().needed_by("softmax") == {
        "kernl/ops/softmax.py",
        "kernl/launch.py",
        "kernl/tuned/softmax.csv",
    }
    linear = {"kernl/ops/linear.py", "kernl/ops/tile.py", "kernl/errors.py"}
    assert tree().needed_by("linear") == linear | {"kernl/tuned/linear.csv"}
    assert tree().needed_by("glu") == tree().needed_by("linear") | {"kernl/ops/gated.py"}
    assert tree().needed_by("unheard of") == set()


@pytest.mark.parametrize(
    ("changed", "text", "ops"),
    [
        ("ops__tile", "import kernl.errors\nROWS = 4", {"linear", "glu", "gelu"}),
        ("errors", "class Error(ValueError): ...", {"linear", "glu", "gelu"}),
        ("launch", "def launch(): return 1", {"softmax"}),
        ("ops__gated", "NAMES = ('gelu',)", {"glu", "gelu"}),
        ("rewrite__patterns", "pass", set()),
        ("ops____init__", "from kernl.ops.linear import LINEAR\nX = 1", set()),
        ("ops__unused", "X = 1", set()),
        ("ops__tile", None, {"linear", "glu", "gelu"}),
    ],
)
def test_a_change_reaches_who_depends_on_it(changed: str, text: str | None, ops: set[str]) -> None:
    assert touched(tree(), tree(**{changed: text}), OPS) == ops
    assert touched(tree(**{changed: text}), tree(), OPS) == ops


@pytest.mark.parametrize(
    ("changed", "text", "models"),
    [
        ("ops__softmax", "from kernl.launch import launch\nX = Op(name='softmax')", {"one"}),
        ("tuned__softmax_csv", "1,3", {"one"}),
        ("ops__gated", "NAMES = ('gelu', 'glu')", {"two"}),
        ("ops__tile", "import kernl.errors\nROWS = 4", {"two", "both"}),
        ("rewrite__patterns", "pass", {"one", "two", "both"}),
        ("runtime__graphs", "pass", {"one", "two", "both"}),
        ("ops__unused", "pass", {"one", "two", "both"}),
        ("ops__tile", "import kernl.errors  # as before", set()),
    ],
)
def test_a_change_reaches_the_models_that_use_it(changed: str, text: str, models: set[str]) -> None:
    after = tree(**{changed.replace("_csv", ".csv"): text})
    assert touched_models(tree(), after, USED, OPS) == models
    assert touched_models(after, tree(), USED, OPS) == models


def test_a_module_that_operators_no_longer_need_may_change_every_model() -> None:
    """It counts as one of what joins operators then: rather one too many."""
    after = tree(ops__tile="ROWS = 4")  # nobody imports kernl.errors any more
    assert touched(tree(), after, OPS) == {"linear", "glu", "gelu"}
    assert touched_models(tree(), after, USED, OPS) == set(USED)


def test_an_operator_of_no_model_reaches_none() -> None:
    after = tree(ops__softmax="from kernl.launch import launch\nX = Op(name='softmax')")
    assert touched_models(tree(), after, {"two": ("glu",)}, OPS) == set()


def test_comments_and_docstrings_change_nothing() -> None:
    said = '"""Tiles."""\nimport kernl.errors  # all of them\n'
    assert touched(tree(), tree(ops__tile=said), OPS) == set()
    assert touched(tree(), tree(), OPS) == set()


def test_a_table_reaches_who_names_it() -> None:
    other = Tree({**tree().files, "kernl/tuned/linear.csv": b"5,6"})
    assert touched(tree(), other, OPS) == {"linear", "glu", "gelu"}


@pytest.mark.parametrize(
    "extra",
    [{"kernl/ops/linear.cu": b"code"}, {"kernl/ops/tile.py": b"def (", "kernl/kernels.so": b"1"}],
)
def test_what_is_no_module_and_no_table_may_change_everything(extra: dict[str, bytes]) -> None:
    after = Tree({**tree().files, **extra})
    assert touched(tree(), after, OPS) == set(OPS)
    assert touched_models(tree(), after, USED, OPS) == set(USED)


def test_a_module_that_cannot_be_parsed_has_changed() -> None:
    broken = Tree({**tree().files, "kernl/ops/tile.py": b"def (\x00"})
    assert touched(tree(), broken, OPS) == {"linear", "glu", "gelu"}
    assert touched(broken, broken, OPS) == set()


def test_an_operator_that_a_commit_does_not_have_has_no_code() -> None:
    assert "unheard of" not in code_of(tree(), USED, [*OPS, "unheard of"]).ops


def test_files_are_those_of_the_commit(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True)

    git("init", "-q")
    for text in ("one", "", "two\n\nlines"):
        (tmp_path / "kernl").mkdir(exist_ok=True)
        (tmp_path / "kernl" / "odd näme.py").write_text(text)
        (tmp_path / "kernl" / "b.py").write_text(f"{text!r}")
        git("add", "-A")
        git("commit", "-q", "-m", "a commit")
    for name, text in (("HEAD^^", "one"), ("HEAD^", ""), ("HEAD", "two\n\nlines")):
        files = Tree.of(tmp_path, name).files
        assert files == {
            "kernl/odd näme.py": text.encode(),
            "kernl/b.py": repr(text).encode(),
        }
    git("rm", "-q", "-r", "kernl")
    git("commit", "-q", "--allow-empty", "-m", "nothing left")
    with pytest.raises(ValueError, match="has no kernl/"):
        Tree.of(tmp_path, "HEAD")
    with pytest.raises(ValueError, match="git ls-tree failed"):
        Tree.of(tmp_path, "no-such-commit")


def test_every_operator_is_found_in_kernl_itself() -> None:
    files = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in (ROOT / "kernl").rglob("*")
        if path.suffix in (".py", ".csv")
    }
    here = Tree(files)
    frozen = cases.load()
    for op in frozen.ops:
        needed = here.needed_by(op)
        assert {"kernl/launch.py", "kernl/op.py", "kernl/shapes.py"} <= needed, op
        if f"kernl/tuned/{op}.csv" in files:
            assert f"kernl/tuned/{op}.csv" in needed
        assert "kernl/optimize/engine.py" not in needed
    assert "kernl/tuned/linear.csv" in here.needed_by("linear_glu")
    assert "kernl/ops/softmax.py" not in here.needed_by("rotary")
