"""The exception for problems that the user can fix. It is shown as one line, never as a traceback."""

import errno
import functools
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

from hipgpt.base.terminal import one_line, printable

P = ParamSpec("P")
R = TypeVar("R")
MOST_CHARACTERS = 1600  # of a message
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# faults of the disk or of a path that was given, not of the code
SURROUNDINGS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EIO,
    *NO_ROOM,
)  # fmt: skip


class UserError(Exception):
    """A mistake outside the code: a config value, a missing tool, a damaged file.

    The message names where it is, the value found, the value expected, and the remedy. It is made one line of bounded
    length, because it may quote a file. details: further lines, such as those of a compiler.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(one_line(message, MOST_CHARACTERS) + (f"\n{printable(details)}" if details else ""))


def exit_on_user_error(main: Callable[P, R]) -> Callable[P, R]:
    """Make a script's main() exit with one line on stderr, and no traceback, if the user can fix the problem.

    The exit status is 1 after a UserError, too little memory, a full disk, a missing file or a missing permission. As
    in shells, it is 130 after Ctrl-C, and 141, without a line, if the reader of the output has gone (`| head`). Every
    other exception is a defect of HipGPT and keeps its traceback. If messages are logged, the line is logged too.
    """

    @functools.wraps(main)
    def guarded(*arguments: P.args, **keywords: P.kwargs) -> R:
        _write_whatever_the_terminal_shows()
        try:
            return main(*arguments, **keywords)
        except UserError as error:
            _leave(str(error))
        except MemoryError as error:
            _leave(f"out of memory ({error}); make the model, its context or training.batch_sequences smaller")
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would flush it at exit
            sys.exit(141)
        except OSError as error:
            if error.errno not in SURROUNDINGS:
                raise
            remedy = "; make room and run the same command again" if error.errno in NO_ROOM else ""
            _leave(f"{error.filename or 'writing'}: {error.strerror}{remedy}")
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return guarded


def _write_whatever_the_terminal_shows() -> None:
    """Write characters that the encoding of stdout or stderr lacks as escapes instead of ending in an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave(message: str) -> NoReturn:
    log = logging.getLogger("hipgpt")
    if not log.handlers:
        sys.exit(f"error: {message}")
    log.error("error: %s", message)
    sys.exit(1)
