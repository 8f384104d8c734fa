"""Writing result files: checked before the long work, written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import IO, Any

import click

from tensorcast.cli.progress import progress
from tensorcast.content import LONGEST
from tensorcast.errors import InputError

STDOUT = "-"
BINARY = ("--parquet", "--tables", "to_parquet", "to_tables")
"""Flags and methods whose files are no text."""
KEEP = "tensorcast.keep"
"""Of a command's `meta`: files that exist are kept."""


def check_outputs(targets: Sequence[tuple[str, str | None]]) -> None:
    """Raise `InputError` for a (flag, file) that cannot be written or is to be kept, or for two flags with one file."""
    seen: dict[str, str] = {}
    for flag, path in targets:
        if path is None:
            continue
        check_writable(path, flag)
        place = path if path == STDOUT else os.path.realpath(path)
        if place in seen:
            raise InputError(f"{seen[place]} and {flag} both write to {path}; give them two files")
        seen[place] = flag
        if keeping():
            check_new(path, flag)
        if flag == "--html":
            _check_template()


def _check_template() -> None:
    """Raise `InputError` for an error that can be seen in the page's template, which has the verb's name."""
    from tensorcast.report.pages.html import check

    check(f"{click.get_current_context().info_name}.html")


def keeping() -> bool:
    """Whether the command that runs was asked to keep files that exist (--keep, TENSORCAST_KEEP) and not to --force."""
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(KEEP, False)


def check_new(path: str, flag: str) -> None:
    """Raise `InputError` for a file that exists; what is no file (-, /dev/null, a pipe) holds nothing to keep."""
    if path != STDOUT and _is_file(path):
        raise InputError(f"{flag} {path}: exists; --force replaces it")


def check_writable(path: str, flag: str) -> None:
    """Raise `InputError` if `path` cannot be written; leaves nothing behind."""
    if path == STDOUT:
        if sys.stdout is None:
            raise InputError(f"{flag} -: standard output is closed; give a file")
        if flag in BINARY and (sys.stdout.isatty() or not hasattr(sys.stdout, "buffer")):
            raise InputError(f"{flag} -: is no text, and standard output is a terminal; give a file or a pipe")
        return
    check_name(path, flag)
    if os.path.isdir(path):
        raise InputError(f"{flag} {path}: is a folder; give a file in it")
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise InputError(f"{flag} {path}: not writable; choose another file")
    if _is_special(path):
        return
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise InputError(f"{flag} {path}: there is no folder {folder}; create it first")
    try:
        handle, probe = tempfile.mkstemp(dir=folder, prefix=".tensorcast-")
    except OSError as error:
        raise InputError(f"{flag} {path}: cannot write there: {error.strerror}") from error
    os.close(handle)
    os.unlink(probe)


def check_name(path: str, flag: str) -> None:
    """Raise `InputError` for a path that no file can have."""
    if "\0" in path or any(len(os.fsencode(part)) > LONGEST for part in path.split(os.sep)):
        raise InputError(f"{flag} {path[:20]!r}…: no file can have that name ({len(path):,} characters)")


def write(path: str, content: str | bytes, flag: str) -> None:
    """Write text or bytes to `path` ("-" is standard output), whole or not at all; `InputError` when they cannot be."""
    if path == STDOUT and isinstance(content, str):
        sys.stdout.write(content)
        sys.stdout.flush()
        return
    with written(path, flag) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


def write_files(verb: str, result: Any, files: Mapping[str, str | None], quiet: bool, **options: Any) -> None:
    """Write a verb's result as each file that is asked for: flag → path; `options` as `report.files.content`."""
    from tensorcast.report.files import content

    for flag, path in files.items():
        if path is not None:
            with writing(path, quiet):
                made = content(verb, flag.removeprefix("--"), result, **options)
            write(path, made, flag)


def writing(path: str, quiet: bool) -> AbstractContextManager[Any]:
    """A status line while the content of a file is made; standard output may share its screen."""
    return progress(quiet or path == STDOUT, f"writing {path}")


@contextmanager
def written(path: str, flag: str) -> Iterator[IO[bytes]]:
    """As `whole_file`, with an `InputError` that names the flag."""
    check_name(path, flag)
    try:
        with whole_file(path, binary=flag in BINARY) as stream:
            yield stream
    except OSError as error:
        if path == STDOUT and isinstance(error, BrokenPipeError):
            raise  # the reader (`| head`) has seen enough
        raise InputError(f"{flag} {path}: cannot write: {error.strerror or error}") from error


def write_atomic(path: str, text: str) -> None:
    """Write through a temporary file in the same folder, so that readers see the old file or the new one."""
    with whole_file(path) as stream:
        stream.write(text.encode("utf-8"))


@contextmanager
def whole_file(path: str, binary: bool = False) -> Iterator[IO[bytes]]:
    """A stream whose content is at `path` when the block ends, and nothing of it when that raises; OSError.

    `binary`: what goes to standard output is no text.
    """
    if path == STDOUT or _is_special(path):
        # A device or pipe (/dev/null, a shell's >(…)) must be written to, never replaced.
        with tempfile.TemporaryFile() as stream:
            yield stream
            stream.seek(0)
            if path == STDOUT:
                _to_stdout(stream, binary)
                return
            with open(path, "wb") as special:
                shutil.copyfileobj(stream, special)
        return
    target = os.path.realpath(path)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".tensorcast-")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if keeping() and os.path.exists(target):  # it was not there before the work
            raise FileExistsError(errno.EEXIST, "exists; --force replaces it")
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _to_stdout(stream: IO[bytes], binary: bool) -> None:
    if binary:
        sys.stdout.flush()
        shutil.copyfileobj(stream, sys.stdout.buffer)
    else:
        for line in stream:
            sys.stdout.write(line.decode("utf-8"))
    sys.stdout.flush()


def _is_special(path: str) -> bool:
    return os.path.exists(path) and not _is_file(path)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _mode(target: str) -> int:
    """The permissions a plain open() would have left: the existing file's, else by the umask."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(os.stat(target).st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
