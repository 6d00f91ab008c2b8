"""What a release ships: types of the compiled part, a whole sdist, and a wheel built of it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from sentcore import _extension, _version

ROOT = Path(__file__).resolve().parents[2]
STUB = ROOT / "sentcore" / "_C.pyi"
JUNK = re.compile(r"\.(so|o|pyc|whl)$|__pycache__|^build/|_build_record|\.pytest_cache|\.hypothesis")
SNIPPET = """
import numpy as np
import sentcore
from sentcore import _C

model = sentcore.SentenceEncoder("minilm")
rows: int = model.max_seq_length
order, offsets = _C.plan_batches(np.zeros(3, dtype=np.int64), 4096)
_C.plan_batches(np.zeros(3, dtype=np.int64), "many")  # wrong
sentcore.Encodr  # wrong
info: str = _C.build_info()["cpu"]  # wrong
"""
BACKEND = "import sys; sys.path.insert(0, '.'); from build_support import backend; print(backend.{call}({out!r}))"


def test_the_stub_names_what_the_extension_has():
    native = _extension.extension()
    if native is None:
        pytest.skip(_extension.WHY_ABSENT)
    body = ast.parse(STUB.read_text()).body
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    enums = {
        node.name: {line.targets[0].id: ast.literal_eval(line.value) for line in node.body}
        for node in body
        if isinstance(node, ast.ClassDef) and [base.id for base in node.bases] == ["Enum"]
    }
    there = {name for name in vars(native) if not name.startswith("_")}
    with_cuda = {*enums, "choose_kernels", "takes_sm90a", "add_kernel_choice"}
    assert there == {*functions, *enums} - (set() if native.build_info()["cuda"] else with_cuda)
    for name in enums.keys() & there:
        assert {key: value.value for key, value in getattr(native, name).__members__.items()} == enums[name]
    for name in functions.keys() & there:
        node = functions[name]
        signature = getattr(native, name).__doc__.splitlines()[0]
        found = re.findall(r"[(,] ?(\w+):", re.sub(r"\[[^()]*?\](?=[,)| ])", "", signature))
        assert found == [argument.arg for argument in node.args.args], signature


def test_a_type_checker_sees_the_types(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "snippet.py").write_text(SNIPPET)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--no-site-packages",
            "--ignore-missing-imports",
            "--follow-imports=silent",
            "snippet.py",
        ],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    wrong = [index for index, line in enumerate(SNIPPET.splitlines(), 1) if line.endswith("# wrong")]
    assert [int(line.split(":")[1]) for line in done.stdout.splitlines() if " error: " in line] == wrong, done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    _backend(ROOT, "build_sdist", folder)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"sentcore-{_version.__version__}"


def _backend(tree: Path, call: str, out: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BACKEND.format(call=call, out=str(out))],
        cwd=tree,
        env={k: v for k, v in os.environ.items() if k != "SENTCORE_CUDA_ARCHS"} | {"SENTCORE_BUILD": "none"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_sdist_holds_every_source_and_no_more(sdist):
    held = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    assert [name for name in sorted(held) if JUNK.search(name)] == []
    for room in (".ci", "bench", "build_support", "csrc", "docs", "examples", "sentcore", "tests"):
        here = {path.relative_to(ROOT).as_posix() for path in (ROOT / room).rglob("*") if path.is_file()}
        assert {name for name in here if not JUNK.search(name)} <= held
    assert {
        "CMakeLists.txt",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "mkdocs.yml",
        "pyproject.toml",
    } <= held


@pytest.mark.slow
def test_a_wheel_of_the_sdist_holds_the_package_with_its_types_alone(sdist, tmp_path):
    _backend(sdist, "build_wheel", tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = [*(ROOT / "sentcore").rglob("*.py*"), *(ROOT / "sentcore" / "explain" / "page").iterdir()]
    here = {path.relative_to(ROOT).as_posix() for path in files}
    assert held == {name for name in here if not JUNK.search(name)} | {
        "sentcore/_build_record.json",
        "sentcore/py.typed",
    }


def test_one_version_is_stated():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {_version.__version__}\n" in citation
    assert f"\n## {_version.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
