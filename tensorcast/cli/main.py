"""The `tensorcast` command: finds the verb, runs it, and turns every error into one line and an exit code.

Exit codes: 0 done · 2 the request was wrong · 3 `--require-fit` and it does not fit · 1 a bug of ours ·
130 interrupted · 143, 129 ended by a signal (SIGTERM, SIGHUP)
Only click is imported here; a verb's module is imported when it is used.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

import click

from tensorcast import __version__
from tensorcast.errors import TensorcastError

# What the first screen shows under each title; a verb's module has a click command named `command`.
GROUPS = {
    "Ask": ("simulate", "sweep", "compare", "optimize", "ui"),
    "Look up": ("list", "show"),
    "Bring your own": ("new", "check"),
    "Measured kernels": ("accuracy", "calibrate", "measure"),
    "This program": ("cache", "completion"),
}
VERBS = {verb: f"tensorcast.cli.{verb}" for verbs in GROUPS.values() for verb in verbs}
EXAMPLES = (
    "tensorcast simulate --model qwen3-8b --hw h100",
    "tensorcast sweep --model deepseek-v3 --hw h200-sxm --tp 8,16 --batch 1:64:x2",
    "tensorcast optimize --model qwen3-32b --hw h100 --devices 8 --ttft 2s --tpot 50ms",
)
COMPLETE = "_TENSORCAST_COMPLETE"
"""Set by a shell that asks what could come next; see completion.py."""

HELP_HINT = "`--help` lists what can be given"
OK, BUG, WRONG_REQUEST, DOES_NOT_FIT, INTERRUPTED = 0, 1, 2, 3, 130
ENDING = ("SIGTERM", "SIGHUP")
"""Signals that end a program; not every system has both."""


class Ended(KeyboardInterrupt):
    """A signal asked the program to end. As after Ctrl-C, what is half written goes first."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


class Cli(click.Group):
    """A group whose verbs are imported on use and whose errors are one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return importlib.import_module(VERBS[name]).command if name in VERBS else None

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "VERB [OPTIONS]")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs in groups, examples, and the few options there are without a verb."""
        from tensorcast.cli.options import write_examples

        for title, verbs in GROUPS.items():
            with formatter.section(title):
                lines = [(verb, self.get_command(ctx, verb).get_short_help_str(limit=70)) for verb in verbs]
                formatter.write_dl(lines, col_spacing=12 - max(map(len, verbs)))
        with formatter.section("Examples"):
            write_examples(formatter, EXAMPLES)
        click.Command.format_options(self, ctx, formatter)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in VERBS:
            if args[0].startswith("-"):
                raise click.NoSuchOption(args[0], ctx=ctx)
            hint = did_you_mean(args[0], VERBS) or f"the verbs are {', '.join(VERBS)}"
            raise click.UsageError(f"no verb {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> Any:
        """As click's, but in standalone mode every error becomes one line on stderr and an exit code."""
        if not extra.pop("standalone_mode", True):
            return super().main(args, prog_name, *rest, standalone_mode=False, **extra)
        sys.exit(self.run(list(sys.argv[1:] if args is None else args), prog_name or "tensorcast"))

    def run(self, args: list[str], prog_name: str) -> int:
        """Run one command line and return its exit code."""
        debug = "--debug" in args
        args = args or ["--help"]
        try:
            with self.make_context(prog_name, args, obj=list(args)) as ctx:
                code = self.invoke(ctx)
            flush()
            return code if isinstance(code, int) else OK
        except click.exceptions.Exit as end:
            return end.exit_code
        except (KeyboardInterrupt, click.Abort) as end:
            say("interrupted")
            return end.code if isinstance(end, Ended) else INTERRUPTED
        except BrokenPipeError:
            # The reader (`| head`) has seen enough; nothing is wrong, and nothing more can be said to it.
            silence_stdout()
            return OK
        except Exception as error:
            message, code = describe(error)
            if debug:
                import traceback

                traceback.print_exc()
            elif code == BUG:
                message += " (a bug of ours: run with --debug for the traceback)"
            say(f"error: {message}")
            return code


def main() -> NoReturn:
    """The console entry point. Runs once and ends the process without tearing the interpreter down.

    Collecting garbage while heavy packages import, and unloading them at the end, would cost a third of the time.
    """
    gc.disable()
    _end_by_raising()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            # A terminal that cannot show a character must not turn an answer into an encoding error.
            stream.reconfigure(errors="backslashreplace")
    if "--debug" not in sys.argv:
        _quiet_libraries()
    if COMPLETE in os.environ:
        from tensorcast.cli.completion import answer

        code = answer(os.environ[COMPLETE])
    else:
        code = cli.run(sys.argv[1:], "tensorcast")
    try:
        flush()
    except OSError:
        silence_stdout()
    if sys.stderr is not None:
        try:
            sys.stderr.flush()
        except OSError:
            pass  # Nobody is left to tell.
    os._exit(code)


def describe(error: Exception) -> tuple[str, int]:
    """One line for an error, and its exit code."""
    if isinstance(error, (click.ClickException, TensorcastError)):
        text = usage(error) if isinstance(error, click.ClickException) else str(error)
        return " ".join(text.split()).removesuffix("."), WRONG_REQUEST
    if isinstance(error, OSError) and _is_stdout_full(error):
        silence_stdout()
        return f"cannot write to standard output: {error.strerror}", WRONG_REQUEST
    return " ".join(f"internal error: {type(error).__name__}: {error}".split()), BUG


def usage(error: click.ClickException) -> str:
    """What was wrong with the command line."""
    if isinstance(error, click.NoSuchOption):
        options = [name for param in error.ctx.command.params for name in param.opts] if error.ctx else []
        return f"no option {error.option_name}; {did_you_mean(error.option_name, options) or HELP_HINT}"
    if isinstance(error, click.MissingParameter):
        return f"{parameter_name(error)} is missing; {error.message or HELP_HINT}"
    if isinstance(error, click.BadParameter) and (error.param is not None or error.param_hint is not None):
        return f"{parameter_name(error)}: {error.message}"
    return error.message


def parameter_name(error: click.BadParameter) -> str:
    """The long name a user typed or could have typed."""
    if error.param is None:
        return str(error.param_hint)
    if isinstance(error.param, click.Argument):
        return error.param.human_readable_name
    return next((name for name in error.param.opts if name.startswith("--")), error.param.opts[0])


def did_you_mean(name: str, names: Sequence[str] | dict[str, str]) -> str:
    """The question "Did you mean …?", or nothing."""
    near = get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else ""


def say(line: str) -> None:
    """One line on stderr; a closed stderr is not an error of the request."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        pass


def flush() -> None:
    """Hand everything printed so far to the reader, so that a full disk is seen here and not lost at exit."""
    if sys.stdout is not None:
        sys.stdout.flush()


def silence_stdout() -> None:
    """Point standard output at nothing, so that what is still buffered cannot fail again at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        pass  # No real file behind it (tests): nothing to silence.


def _is_stdout_full(error: OSError) -> bool:
    """Whether a write to standard output failed: our own files report their errors as InputError."""
    import errno

    return error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EFBIG, errno.EDQUOT)


def _end_by_raising() -> None:
    """Where a signal would end the process on the spot, let it unwind; where somebody ignores it (nohup), so do we."""
    own = os.getpid()

    def end(number: int, frame: Any) -> NoReturn:
        if os.getpid() != own:  # a fork, which has nothing to take back
            os._exit(128 + number)
        raise Ended(number)

    for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name)):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)


def _quiet_libraries() -> None:
    """Keep third-party chatter off stderr, where only our one line belongs; `--debug` shows it."""
    import warnings

    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@click.command(
    cls=Cli,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 2 wrong request, 3 does not fit (--require-fit), 1 internal error.",
)
@click.version_option(__version__, "--version", message="tensorcast %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """How fast a model runs on a machine, whether it fits, and how best to deploy it, without having either.

    `tensorcast VERB --help` tells what a verb takes, with examples.
    """
