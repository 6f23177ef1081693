"""Rules of the house that no linter knows."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_operator_is_a_source_root_and_never_a_package() -> None:
    loose = [path.name for path in (ROOT / "operator").glob("*.py")]
    assert loose == [], "a .py directly in operator/ shadows the standard library's `operator`"


def test_the_standard_library_works_from_the_root() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import collections, operator; operator.itemgetter"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def test_the_operator_does_not_load_the_inference_dependencies() -> None:
    code = "import sys, modelrollout.app; print({'torch', 'diffusers'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "set()"
