"""Writing result files: checked before the long work, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

from tensorcast.errors import InputError

STDOUT = "-"


def check_outputs(targets: Sequence[tuple[str, str | None]]) -> None:
    """Raise `InputError` for a (flag, file) that cannot be written, or for two flags with one file."""
    seen: dict[str, str] = {}
    for flag, path in targets:
        if path is None:
            continue
        place = path if path == STDOUT else os.path.realpath(path)
        if place in seen:
            raise InputError(f"{seen[place]} and {flag} both write to {path}; give them two files")
        seen[place] = flag
        check_writable(path, flag)


def check_writable(path: str, flag: str) -> None:
    """Raise `InputError` if `path` cannot be written; leaves nothing behind."""
    if path == STDOUT:
        if sys.stdout is None:
            raise InputError(f"{flag} -: standard output is closed; give a file")
        return
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise InputError(f"{flag} {path}: is a folder; give a file in it")
    if not os.path.isdir(folder):
        raise InputError(f"{flag} {path}: there is no folder {folder}; create it first")
    if os.path.exists(target) and not os.access(target, os.W_OK):
        raise InputError(f"{flag} {path}: not writable; choose another file")
    if not _is_special(target):
        try:
            handle, probe = tempfile.mkstemp(dir=folder, prefix=".tensorcast-")
        except OSError as error:
            raise InputError(f"{flag} {path}: cannot write there: {error.strerror}") from error
        os.close(handle)
        os.unlink(probe)


def write(path: str, text: str, flag: str) -> None:
    """Write `text` to `path` ("-" is standard output), whole or not at all; `InputError` when it cannot be."""
    if path == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        write_atomic(path, text)
    except OSError as error:
        raise InputError(f"{flag} {path}: cannot write: {error.strerror or error}") from error


def write_atomic(path: str, text: str) -> None:
    """Write through a temporary file in the same folder, so that readers see the old file or the new one."""
    with whole_file(path) as stream:
        stream.write(text.encode("utf-8"))


@contextmanager
def whole_file(path: str) -> Iterator[IO[bytes]]:
    """A stream whose content is at `path` when the block ends, and nothing of it when that raises; OSError."""
    target = os.path.realpath(path)
    if path == STDOUT or _is_special(target):
        # A device or pipe (/dev/null, a shell's >(…)) must be written to, never replaced.
        with tempfile.TemporaryFile() as stream:
            yield stream
            stream.seek(0)
            if path == STDOUT:
                for line in stream:
                    sys.stdout.write(line.decode("utf-8"))
                sys.stdout.flush()
                return
            with open(target, "wb") as special:
                shutil.copyfileobj(stream, special)
        return
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".tensorcast-")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _is_special(target: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(target).st_mode)
    except FileNotFoundError:
        return False


def _mode(target: str) -> int:
    """The permissions a plain open() would have left: the existing file's, else by the umask."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(os.stat(target).st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
