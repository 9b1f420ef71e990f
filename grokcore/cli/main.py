"""The command `grokcore`: parse the arguments, do what they say, and end with an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from grokcore.cli.arguments import parser
from grokcore.cli.commands import COMMANDS
from grokcore.spec.base import GrokcoreError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: What follows `grokcore` on the command line (default: `sys.argv`).

    Returns:
        The exit code: 0, 1 if something went wrong, 2 for wrong use, 130 if interrupted.

    Raises:
        SystemExit: The arguments are none of the command's (with code 2), or ask for help (0).
    """
    options = parser().parse_args(arguments)
    try:
        code = COMMANDS[options.run](options)
        sys.stdout.flush()
        return code
    except GrokcoreError as error:
        print(f"grokcore {options.command}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader has gone, as in `grokcore runs list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as error:
        message = ["interrupted", *getattr(error, "__notes__", [])]
        if options.command in ("train", "report"):
            message.append("--fresh begins anew" if options.fresh else "the same command goes on from there")
        print("\n" + "; ".join(message), file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
