"""Time the boot of a pool, in a program whose ``__main__`` imports no trio.

Workers import the ``__main__`` of the program again, so what it imports at its top is in
every one of them.
"""

from __future__ import annotations

if __name__ == "__main__":
    from .booting import main

    main()
