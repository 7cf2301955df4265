"""The examples of the documentation, run as they stand there."""

import re
import subprocess
import sys

import pytest
from scripts.harness import PATIENCE, ROOT, environment

DOCS = ROOT / "docs"


def blocks(name):
    text = (DOCS / name).read_text()
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


BLOCKS = blocks("testing.md")
PRINTED = ["upon 1\n", "the best so far\nFalse sleep\n"]
OPERATIONS = ["trio: found [(0,)]\ntrio: found [(0,)]\n"]


def test_there_are_examples():
    assert len(BLOCKS) == 2
    assert BLOCKS[0].count("\n") <= 40


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_of_a_test_passes(block, tmp_path):
    calls = [f"{name}()\n" for name in re.findall(r"^def (test_\w+)", block, re.MULTILINE)]
    assert calls, "it would show nothing"
    assert run("\n".join([block, *calls, "print('passed')"]), tmp_path) == "passed\n"


@pytest.mark.parametrize(
    ("block", "printed"),
    [
        *zip(blocks("requests.md"), PRINTED, strict=True),
        *zip(blocks("operations.md"), OPERATIONS, strict=True),
    ],
    ids=["stream", "limits", "operations"],
)
def test_an_example_prints_what_it_should(block, printed, tmp_path):
    assert run(block, tmp_path) == printed


def run(program, tmp_path):
    script = tmp_path / "example.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
