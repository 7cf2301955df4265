"""The seed of the suite's searches."""

import zlib
from pathlib import Path


def seed_of_sources() -> int:
    """Return a number of the library and its tests.

    So a commit has one verdict, and each one searches where the one before has not.
    """
    tests = Path(__file__).parent.parent
    files = sorted([*tests.parent.glob("trio_dirty/**/*.py"), *tests.glob("**/*.py")])
    return zlib.crc32(b"".join(path.read_bytes() for path in files))
