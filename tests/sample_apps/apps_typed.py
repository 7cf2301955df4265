"""An app that says by annotations what it is, and so imports the contracts in the worker."""

import sys

from trio_dirty.abc import AppLike


class Typed:
    def init(self) -> None:
        self.like: type[AppLike] = type(self)

    def imported_trio(self) -> bool:
        return "trio" in sys.modules

    def __call__(self, action, /, *args, **kwargs):
        return getattr(self, action)(*args, **kwargs)

    def close(self) -> None:
        pass
