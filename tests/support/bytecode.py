"""Has a function called before each bytecode of some code, in one thread.

By a trace function on Python 3.11. Later versions give one that asks for opcodes in the ``call``
event none of them on a function's first run: there it is `sys.monitoring`, which is told
beforehand what to watch.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

TOOL = 4
"""Of the six that `sys.monitoring` has; debuggers, coverage and profilers have others."""


def codes_of(*modules: ModuleType) -> set[CodeType]:
    """Return all code of the functions and classes that modules define."""
    found: set[CodeType] = set()

    def add(code: CodeType) -> None:
        found.add(code)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                add(constant)

    def functions(values: Iterable[Any], module: str) -> Iterator[FunctionType]:
        for value in values:
            value = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
            if getattr(value, "__module__", None) != module:
                continue
            if isinstance(value, FunctionType):
                yield value
            elif isinstance(value, type):
                yield from functions(vars(value).values(), module)

    for module in modules:
        for function in functions([*vars(module).values()], module.__name__):
            add(function.__code__)
    return found


class BeforeEachBytecode:
    """A block in which a function is called before each bytecode of this thread.

    What it raises is raised where the bytecode is.

    Args:
        codes: those that are watched.
        call: gets the frame.
    """

    def __init__(self, codes: set[CodeType], call: Callable[[FrameType], object]) -> None:
        self._codes = codes
        self._call = call
        self._thread = threading.get_ident()

    if sys.version_info >= (3, 12):

        def __enter__(self) -> None:
            monitoring = sys.monitoring
            monitoring.use_tool_id(TOOL, "before each bytecode")
            instruction = monitoring.events.INSTRUCTION
            for code in self._codes:
                monitoring.set_local_events(TOOL, code, instruction)
            monitoring.register_callback(TOOL, instruction, self._instruction)

        def __exit__(self, *_: object) -> None:
            monitoring = sys.monitoring
            monitoring.register_callback(TOOL, monitoring.events.INSTRUCTION, None)
            for code in self._codes:
                monitoring.set_local_events(TOOL, code, 0)
            monitoring.free_tool_id(TOOL)

        def _instruction(self, code: CodeType, offset: int) -> None:
            if threading.get_ident() == self._thread:
                self._call(sys._getframe(1))

    else:

        def __enter__(self) -> None:
            self._former = sys.gettrace()
            sys.settrace(self._trace)

        def __exit__(self, *_: object) -> None:
            sys.settrace(self._former)

        def _trace(self, frame: FrameType, event: str, _: object) -> Any:
            if event == "call":
                if frame.f_code not in self._codes:
                    return None
                frame.f_trace_opcodes, frame.f_trace_lines = True, False
            elif event == "opcode":
                self._call(frame)
            return self._trace
