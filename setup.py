"""Builds sentcore._C through CMake; what is built and why is decided in build_support/plan.py."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from build_support import kernel_choices, native, plan  # noqa: E402
from build_support.errors import BuildError  # noqa: E402

BUILDING = {"build", "build_ext", "bdist_wheel", "editable_wheel", "develop", "install"}
RECORD = "_build_record.json"


class CleanBuild(build):
    """Starts from an empty folder: setuptools would ship whatever an earlier build left there."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class BuildNative(build_ext):
    def build_extension(self, ext: Extension) -> None:
        module = native.build(PLAN, self.distribution.get_version())
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        # A new file, not new bytes in the old one: a running process may have that one mapped.
        target.unlink(missing_ok=True)
        shutil.copyfile(module, target)


class BuildPython(build_py):
    """Leaves a note beside the modules that says what was built and why not more, for `sentcore info`."""

    def run(self) -> None:
        super().run()
        folder = ROOT / "sentcore" if self.editable_mode else Path(self.build_lib) / "sentcore"
        folder.mkdir(parents=True, exist_ok=True)
        choices = kernel_choices.read() if PLAN.kind == "cuda" else []
        note = {"kind": PLAN.kind, "why_not_more": PLAN.why_not_more, "kernel_choices": choices}
        (folder / RECORD).write_text(json.dumps(note, indent=1) + "\n")
        if self.editable_mode and PLAN.kind == "none":
            for stale in folder.glob("_C.*.so"):
                stale.unlink()


try:
    if int(setuptools.__version__.split(".")[0]) < 77:
        raise BuildError(
            f"setuptools {setuptools.__version__} is older than 77; pip install 'setuptools>=77' "
            "or build with isolation (leave out --no-build-isolation)"
        )
    PLAN = plan.decide() if BUILDING & set(sys.argv) else plan.Plan("none")
    if BUILDING & set(sys.argv):
        print(PLAN.line, flush=True)
    setup(
        ext_modules=[] if PLAN.kind == "none" else [Extension("sentcore._C", sources=[])],
        cmdclass={"build": CleanBuild, "build_ext": BuildNative, "build_py": BuildPython},
    )
except BuildError as error:
    raise SystemExit(f"sentcore: {error}") from None
