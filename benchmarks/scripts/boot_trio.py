"""Time the boot of a pool, in a program that imports trio at its top, as most do."""

from __future__ import annotations

import trio  # noqa: F401  what it costs each worker is what is measured

if __name__ == "__main__":
    from .booting import main

    main()
