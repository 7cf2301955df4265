"""Whole messages, for `pytest.raises(match=...)`."""

import re


def whole(message):
    """Return the pattern that only this message matches."""
    return rf"^{re.escape(message)}\Z"
