"""Benchmark scripts: each one starts, and benchmarks/README.md names it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nnunetv2_mip

BENCHMARKS = Path(nnunetv2_mip.__file__).parent.parent / "benchmarks"
# Others are modules that scripts of the same folder share.
SCRIPTS = sorted(
    path.relative_to(BENCHMARKS).as_posix()
    for path in BENCHMARKS.glob("*/*.py")
    if '__name__ == "__main__"' in path.read_text("utf-8")
)

pytestmark = pytest.mark.skipif(
    not SCRIPTS, reason="not an editable installation: there are no benchmarks"
)


def test_the_readme_names_every_script():
    text = (BENCHMARKS / "README.md").read_text("utf-8")
    scripts = [*SCRIPTS, *(path.name for path in BENCHMARKS.glob("*/*.sh"))]
    assert [script for script in scripts if script not in text] == []


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_starts(script, tmp_path):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")
