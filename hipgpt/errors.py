"""The one exception that means "the user can mend this": shown as one line, never as a traceback."""

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
SURROUNDINGS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)  # the disk's faults, not the code's


class UserError(Exception):
    """A mistake outside the code: a config value, a missing tool, a damaged file.

    The message says where, what was got, what was expected and what to do.
    """


def exit_on_user_error(main: Callable[P, R]) -> Callable[P, R]:
    """Make a script's main() leave with a line on stderr, and no traceback, where the user can mend what went wrong.

    Exit status 1 after a UserError, a full disk or a missing permission; as shells do, 130 after Ctrl-C, and 141,
    without a line, after the reader of our output has gone (`| head`). Every other exception is a defect of ours and
    keeps its traceback.
    """

    @functools.wraps(main)
    def guarded(*arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            return main(*arguments, **keywords)
        except UserError as error:
            sys.exit(f"error: {error}")
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try to flush at exit
            sys.exit(141)
        except OSError as error:
            if error.errno not in SURROUNDINGS:
                raise
            sys.exit(f"error: {error.filename or 'writing'}: {error.strerror}")
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return guarded
