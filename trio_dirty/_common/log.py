"""The library's one logger, silent unless the program configures logging."""

from __future__ import annotations

import logging

logger = logging.getLogger("trio_dirty")
logger.addHandler(logging.NullHandler())
