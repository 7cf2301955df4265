"""The map of the house is true, and its walls stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks.chaos
import benchmarks.held
import trio_dirty

PACKAGE = Path(trio_dirty.__file__).parent
BENCHMARKS = Path(benchmarks.__file__).parent
MODULES_LIMIT = 16


def wings(package):
    return sorted(path.name for path in package.iterdir() if (path / "__init__.py").exists())


def modules(wing, package=PACKAGE):
    return {path.stem for path in (package / wing).glob("*.py")} - {"__init__"}


def read_map(text):
    """Return the modules that a map names, by the folder in which it says that they are."""
    found = {"": set()}
    for line in text.splitlines():
        if wing := re.match(r"(\w+)/: ", line):
            found[wing[1]] = set()
        elif module := re.match(r"(\w+)\.py: ", line):
            found[""].add(module[1])
        elif module := re.match(r" {4}(\w+) +\w", line):
            found[[*found][-1]].add(module[1])
    return found


def test_the_map_names_every_module_of_every_wing():
    found = read_map(trio_dirty.__doc__)
    assert found.pop("") == modules("") - {"_version"}
    assert found == {wing: modules(wing) for wing in wings(PACKAGE)}


def test_the_map_of_the_benchmark_names_every_module():
    assert read_map(benchmarks.chaos.__doc__) == {"": modules("chaos", BENCHMARKS)}
    assert read_map(benchmarks.held.__doc__) == {"": modules("held", BENCHMARKS)}
    expected = {wing: modules(wing, BENCHMARKS) for wing in wings(BENCHMARKS)}
    # The first two have a map of their own; the programs say themselves what they are.
    expected |= {"chaos": set(), "held": set(), "scripts": set()}
    assert read_map(benchmarks.__doc__) == {"": modules("", BENCHMARKS) - {"__main__"}, **expected}


@pytest.mark.parametrize(
    ("package", "wing"),
    [(package, wing) for package in (PACKAGE, BENCHMARKS) for wing in ["", *wings(package)]],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_folder_has_few_enough_modules_to_be_looked_through(package, wing):
    assert len(modules(wing, package)) <= MODULES_LIMIT


@pytest.mark.parametrize("wing", ["_common", "_rules", "_worker"])
def test_neither_what_decides_nor_what_runs_in_a_worker_imports_trio(wing):
    imports = "; ".join(f"import trio_dirty.{wing}.{module}" for module in sorted(modules(wing)))
    program = f"import sys; {imports}; sys.exit('trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
