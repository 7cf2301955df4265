"""The examples of the documentation, run as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.harness import PATIENCE, environment

TESTING = Path(__file__).parent.parent / "docs" / "testing.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TESTING.read_text(), re.DOTALL | re.MULTILINE)


def test_there_are_examples():
    assert len(BLOCKS) == 2
    assert BLOCKS[0].count("\n") <= 25


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_of_a_test_passes(block, tmp_path):
    calls = [f"{name}()\n" for name in re.findall(r"^def (test_\w+)", block, re.MULTILINE)]
    assert calls, "it would show nothing"
    script = tmp_path / "example.py"
    script.write_text("\n".join([block, *calls, "print('passed')"]))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "passed\n", "")
