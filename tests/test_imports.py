"""The floors of the package: a file imports lower floors only, and only some files may touch some packages."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "sentcore"
FLOORS = [
    {"_version", "_archs", "errors"},
    {"config", "model_files", "packed", "_extension", "word_cutters"},
    {"_kernels"},
    {"ops"},
    {"inputs", "layers", "outputs"},
    {"model"},
    {"checkpoint"},
    {"pipeline"},
    {"encode_options", "placement", "face"},
    {"sentence_encoder", "cross_encoder"},
    {"explain"},
    {"integrations"},
    {"search", "measure"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}
OPTIONAL = {"transformers", "sentence_transformers", "pyarrow", "ray", "peft", "faiss", "matplotlib", "jieba"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path):
    """(module, inside a function) for every import that runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    inside = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in checking:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "sentcore":
                for alias in node.names:
                    yield f"sentcore.{alias.name}", id(node) in inside
            else:
                yield node.module, id(node) in inside


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    here = room(path)
    if path == PACKAGE / "__init__.py":
        return
    assert here in LEVEL, f"{here} stands on no floor: give it one in FLOORS and docs/conventions.md"
    for module, inside in imports(path):
        top = module.split(".")[0]
        if top != "sentcore":
            optional = here in ("integrations", "cli", "word_cutters") or (here == "pipeline" and top == "pyarrow")
            assert top not in OPTIONAL or (inside and optional), f"{path} imports the optional package {module}"
            continue
        target = module.split(".")[1]
        if target.startswith("__"):
            continue
        if target == here or (target == "SentenceEncoder"):
            continue
        assert target in LEVEL, f"{path} imports {module}, which stands on no floor"
        assert LEVEL[target] < LEVEL[here], f"{path} ({here}) imports {module}: not a lower floor"
        assert not inside or here == "cli", f"{path} imports {module} inside a function"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("ops/*/*.py")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_op_rooms_stand_alone(path):
    for module, _ in imports(path):
        parts = module.split(".")
        if parts[:2] == ["sentcore", "ops"] and len(parts) > 2:
            assert parts[2] in (path.parent.name, "autocast", "checks", "register"), f"{path} imports {module}"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("ops/*/reference.py")), ids=lambda p: p.parent.name)
def test_references_import_torch_alone(path):
    for module, _ in imports(path):
        top = module.split(".")[0]
        assert top == "torch" or top in sys.stdlib_module_names, f"{path} imports {module}"


def test_only_register_touches_torch_library():
    for path in FILES:
        assert path.name == "register.py" or "torch.library" not in path.read_text(encoding="utf-8"), path


def test_files_stay_small():
    root = PACKAGE.parent
    long = {
        str(path.relative_to(root)): count
        for folder in ("build_support", "csrc", "sentcore", "tests", "bench")
        for path in (root / folder).rglob("*")
        if path.suffix in (".py", ".cpp", ".h", ".cu", ".cuh", ".inl", ".sh")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert not long, f"split by stage: {long}"
