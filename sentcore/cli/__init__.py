"""The `sentcore` command: encode, search, explain, info, parity, bench.

Results go to standard output, everything else to standard error. Exit status: 0 success, 1 failure (a model, a file, a
bad row), 2 bad use, 130 after Ctrl-C, 141 when the reader of standard output went away.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence

# torch and numpy are imported by the commands themselves, so that --help and a bad option answer at once.
from sentcore._version import __version__
from sentcore.cli import bench, encode, explain, info, parity, search
from sentcore.errors import ArgumentTypeError, ArgumentValueError, SentcoreError

_COMMANDS = {
    **{"encode": encode, "search": search, "explain": explain},
    **{"info": info, "parity": parity, "bench": bench},
}
_INTERRUPTED = 130
_BROKEN_PIPE = 141


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(
        prog="sentcore",
        description="Sentence features from BERT-family encoders.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sentcore {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = {}
    for name, command in _COMMANDS.items():
        summary = (command.__doc__ or "").splitlines()[0]
        named[name] = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        command.add_arguments(named[name])
    return parser, named


def _parse(argv: list[str]) -> argparse.Namespace:
    parser, named = _parsers()
    if argv and argv[0] in named:
        # TEXT may stand before, between and behind the options.
        args = named[argv[0]].parse_intermixed_args(argv[1:])
        args.command = argv[0]
        return args
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (None: the process's own) and returns the exit status."""
    # JSON is UTF-8 whatever the locale says, and Windows keeps \n.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    try:
        args = _parse(list(sys.argv[1:] if argv is None else argv))
        with _short_warnings():
            status = _COMMANDS[args.command].run(args)
        sys.stdout.flush()
        return status
    except SystemExit as stop:  # argparse has said why
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        return _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        _drop_stdout()
        return _BROKEN_PIPE
    except (ArgumentTypeError, ArgumentValueError) as error:
        return _fail(str(error), 2)
    except SentcoreError as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(_describe(error), 1)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and type(error).__name__ != "OutOfMemoryError":
            raise
        return _fail(
            f"out of memory ({error or 'no more to be had'}); batches get smaller by themselves, so lower --max-length",
            1,
        )


def _fail(message: str, status: int) -> int:
    print(f"sentcore: {message}", file=sys.stderr)
    return status


def _describe(error: OSError) -> str:
    if error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _drop_stdout() -> None:
    # Python flushes standard output once more as it exits; that must not complain again.
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Warnings as one line each, without the source line that raised them."""

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        print(f"sentcore: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
