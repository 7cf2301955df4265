"""The map of the house is true, and its walls stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import trio_dirty

PACKAGE = Path(trio_dirty.__file__).parent
WINGS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
MODULES_LIMIT = 16


def modules(wing):
    return {path.stem for path in (PACKAGE / wing).glob("*.py")} - {"__init__"}


def test_the_map_names_every_module_of_every_wing():
    found = {}
    for line in trio_dirty.__doc__.splitlines():
        if wing := re.match(r"(\w+)/: ", line):
            found[wing[1]] = set()
        elif module := re.match(r" {4}(\w+)  +\w", line):
            found[[*found][-1]].add(module[1])
    assert found == {wing: modules(wing) for wing in WINGS}


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_has_few_enough_modules_to_be_looked_through(wing):
    assert len(modules(wing)) <= MODULES_LIMIT


@pytest.mark.parametrize("wing", ["_common", "_rules", "_worker"])
def test_neither_what_decides_nor_what_runs_in_a_worker_imports_trio(wing):
    imports = "; ".join(f"import trio_dirty.{wing}.{module}" for module in sorted(modules(wing)))
    program = f"import sys; {imports}; sys.exit('trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
