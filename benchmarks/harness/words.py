"""Numbers and errors as tables and records have them. Imports nothing else of the benchmark."""

from __future__ import annotations


def number_in_words(value: float, digits: int) -> str:
    """Return a number of so many digits, but whole from a thousand on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def error_in_words(error: BaseException) -> str:
    """Return the name of an error and its text; of a group, those of its first error."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
