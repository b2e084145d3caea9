"""The log of the library, for the module logging."""

from __future__ import annotations

import logging

from ._abi import INTERFACE
from ._callbacks import report, text_at
from ._library import lib
from .enums import LogLevel
from .errors import check

# The levels of logging; TRACE is below DEBUG.
LEVELS = {
    LogLevel.ERROR: logging.ERROR,
    LogLevel.WARN: logging.WARNING,
    LogLevel.INFO: logging.INFO,
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.TRACE: 5,
}

_logger: logging.Logger | None = None


@INTERFACE.callbacks["seaprox_log_fn"]  # type: ignore[untyped-decorator, unused-ignore]
def _line(level: int, target: int, target_len: int, text: int, text_len: int, user: int) -> None:
    try:
        name = text_at(target, target_len).replace("::", ".")
        logger = _logger or logging.getLogger(name)
        logger.log(LEVELS[LogLevel(level)], "%s", text_at(text, text_len), extra={"target": name})
    except BaseException as error:
        report(error)


def log_to(logger: logging.Logger | None = None, level: LogLevel = LogLevel.INFO) -> None:
    """Hands the lines of the log of all loops up to a level to a logger; without one to the loggers that have the names of the
    parts of the library, all below "seaprox". INFO has a line for each connection, at its end. Any thread may log."""
    global _logger
    _logger = logger
    check(lib.seaprox_set_log(level, _line, None))


def log_off() -> None:
    """Ends the log."""
    check(lib.seaprox_set_log(LogLevel.OFF, INTERFACE.callbacks["seaprox_log_fn"](), None))
