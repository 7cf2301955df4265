"""Mutates the modules that decide, and runs their tests on each mutant: `python tests/mutation`.

mutmut does it, in a copy of the sources, as `[tool.mutmut]` in pyproject.toml says. Here its
results are summed up, and the survivors compared to those that survivors.toml explains. The
exit code is 1 if less than 95 % were killed, or a survivor is not explained.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
REQUIRED = 95.0
KILLED = {"killed", "timeout"}


def mutmut(where, *arguments):
    """Run mutmut, and return what it prints; show it only if it fails."""
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts"), "mutmut"), *arguments],
        cwd=where,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"mutmut {' '.join(arguments)} failed:\n{done.stdout[-5000:]}")
    return done.stdout


def place(name):
    """Return where a mutant is: ``_wing.module.Class.method`` or ``_wing.module.function``."""
    mangled = re.fullmatch(r"trio_dirty\.(.+)__mutmut_\d+", name)[1]
    return mangled.replace(".xǁ", ".").replace("ǁ", ".").replace(".x_", ".")


def change(diff):
    """Return the lines that a mutant changes, before and after."""
    lines = diff.splitlines()[3:]  # behind the names of the mutant and of the files
    return tuple(" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")


def explained():
    """Return the reasons of survivors by place, before and after."""
    return {
        (group["where"], group["before"], after): group["reason"]
        for group in tomllib.loads((HERE / "survivors.toml").read_text())["survivors"]
        for after in group["after"]
    }


def run():
    """Return the status of each mutant by name, and the changes of the survivors."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as copy:
        for name in "trio_dirty", "tests":
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / name, Path(copy, name), ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", copy)
        mutmut(copy, "run")
        lines = mutmut(copy, "results", "--all", "true").splitlines()
        statuses = dict(line.strip().split(": ") for line in lines)
        survivors = {
            name: change(mutmut(copy, "show", name))
            for name, status in statuses.items()
            if status not in KILLED
        }
    return statuses, survivors


def main():
    """Print the score of each module, and the survivors."""
    statuses, survivors = run()
    reasons = explained()
    for name, status in statuses.items():
        if status == "timeout":
            print(f"{name}: killed by a timeout")
    unexplained = 0
    for name, (before, after) in survivors.items():
        where = place(name)
        reason = reasons.pop((where, before, after), None)
        unexplained += reason is None
        print(f"{where}: {statuses[name]}; {reason or 'NOT EXPLAINED'}")
        print(f"  - {before}\n  + {after}")
    for where, before, after in reasons:
        print(f"{where}: explained, but does not survive\n  - {before}\n  + {after}")

    total, killed = Counter(), Counter()
    for name, status in statuses.items():
        for module in ".".join(name.split(".")[1:3]), "all":
            total[module] += 1
            killed[module] += status in KILLED
    for module in sorted(total, key=lambda module: (module == "all", module)):
        score = 100 * killed[module] / total[module]
        print(f"{module:20} {killed[module]:4} of {total[module]:4} killed, {score:5.1f} %")
    print(f"{unexplained} survivors are not explained")
    sys.exit(unexplained > 0 or 100 * killed["all"] < REQUIRED * total["all"])


main()
