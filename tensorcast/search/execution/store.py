"""The rows of a sweep on disk: a Parquet file for each finished shard, so that a sweep goes on after any kind of end.

A folder holds `part-000042.parquet` for shard 42, written under another name and renamed when it is whole, and
`_sweep.json`, which says whose parts these are: the space, and the code and files that its figures come from. Other
programs read the folder as one dataset (names with a leading `_` or `.` are no part of it).
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tensorcast.errors import InputError
from tensorcast.search.execution.origin import difference, environment, inputs_of

if TYPE_CHECKING:
    import pyarrow.dataset

    from tensorcast.search.axes.space import Shard, Space

FORMAT = 1
MANIFEST, LOCK, PART = "_sweep.json", "_sweep.lock", "part-{:06d}.parquet"
LEFT_OVER = ".tensorcast-"
"""Begins the names of files that are being written."""
OWNER = b"tensorcast.sweep"
"""Metadata of a part: the digest of the space it belongs to."""
PATIENCE = 5.0  # seconds that the workers of a killed sweep have to end, which hold its lock


class Store:
    """A sweep's folder, of this process alone while it is open. Use it in a `with`, or `close` it.

    `notes`: what was found wrong and will be computed again, a line each.
    """

    def __init__(self, folder: str | os.PathLike, space: Space, resume: bool = False) -> None:
        """Begin a sweep in an empty or new folder, or with `resume` go on with the same sweep where there is one.

        InputError: the folder holds anything else, another process works in it, it cannot be written. Nothing in it
        has changed then.
        """
        self.folder, self.space, self.notes = Path(folder), space, list[str]()
        said = self._said()
        self._check(said, resume)
        with self._errors("cannot be written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
        try:
            self._check(said, resume)  # again, now that nobody else can change it
            with self._errors("cannot be written"):
                for left in self.folder.glob(f"{LEFT_OVER}*"):
                    left.unlink()
                if not (self.folder / MANIFEST).exists():
                    text = json.dumps(said, indent=1, sort_keys=True)
                    _write(self.folder / MANIFEST, lambda file: file.write(text.encode() + b"\n"))
            self._done = {index: rows for index, rows in self._parts()}
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes have the folder."""
        if not self._lock.closed:
            (self.folder / LOCK).unlink(missing_ok=True)
            self._lock.close()

    # -- parts ---------------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """Rows of all finished shards."""
        return sum(self._done.values())

    def done(self, shard: Shard) -> bool:
        """Whether the rows of the shard are here; a part that does not have them all is not."""
        return self._done.get(shard.index) == len(shard)

    def write(self, shard: Shard, table: pa.Table) -> None:
        """Keep the rows of a shard: all of them or, with an InputError when the disk is full, none."""
        if len(table) != len(shard):
            raise ValueError(f"shard {shard.index} has {len(shard)} configurations, not {len(table)}")
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), OWNER: self.space.digest.encode()})
        path = self._path(shard.index)
        kept = f"{len(self._done)} shards are kept: make room and go on with --resume"
        with self._errors(f"{path.name} could not be written ({{}}); {kept}"):
            _write(path, lambda file: pq.write_table(table, file, compression="zstd", write_page_checksum=True))
        self._done[shard.index] = len(table)

    def dataset(self) -> pyarrow.dataset.Dataset:
        """All rows so far as a pyarrow dataset, which reads them piece by piece, in the order of the shards."""
        from pyarrow import dataset

        return dataset.dataset([str(self._path(index)) for index in sorted(self._done)], format="parquet")

    def table(self) -> pa.Table:
        """All rows so far in memory, in the order of the shards."""
        return self.dataset().to_table().unify_dictionaries()

    def _path(self, index: int) -> Path:
        return self.folder / PART.format(index)

    def _parts(self) -> Iterator[tuple[int, int]]:
        """(number, rows) of every part that can be read."""
        for path in sorted(self.folder.glob(PART.replace("{:06d}", "*"))):
            try:
                index = int(path.stem.removeprefix("part-"))
                with pq.ParquetFile(path, page_checksum_verification=True) as part:
                    if (part.metadata.metadata or {}).get(OWNER) != self.space.digest.encode():
                        raise ValueError("of another sweep")
                    rows = sum(map(len, part.iter_batches()))
                    if rows != part.metadata.num_rows:
                        raise ValueError("rows are missing")
                yield index, rows
            except (OSError, ValueError) as error:
                self.notes.append(f"{path.name} is damaged and will be computed again ({_first_line(error)})")

    # -- the folder ----------------------------------------------------------------------------------------------------

    def _said(self) -> dict[str, Any]:
        """The manifest of this sweep."""
        return {
            "format": FORMAT,
            "space": self.space.digest,
            "configurations": len(self.space),
            "shards": sum(1 for _ in self.space.shards()),
            "environment": environment(),
            "inputs": inputs_of(self.space.products),
        }

    def _check(self, said: dict[str, Any], resume: bool) -> None:
        """InputError unless the folder is new, empty, or holds this sweep and `resume`."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"--out {self.folder}: is a file; give a folder")
        with self._errors("cannot be read"):
            there = sorted(path.name for path in self.folder.glob("*")) if self.folder.is_dir() else []
        others = [name for name in there if name != LOCK and not name.startswith(LEFT_OVER)]
        if not others:
            return
        if MANIFEST not in others:
            raise InputError(f"--out {self.folder}: holds {others[0]} and no sweep; give an empty folder")
        begun = self._manifest()
        if not resume:
            count = sum(name.startswith("part-") for name in others)
            raise InputError(
                f"--out {self.folder}: holds a sweep ({count} of {begun.get('shards')} shards); "
                "go on with --resume, or give an empty folder"
            )
        if any(begun.get(name) != said[name] for name in ("format", "space", "configurations", "shards")):
            raise InputError(f"--resume {self.folder}: holds another sweep; give the options it began with")
        for name in ("environment", "inputs"):
            if changed := difference(said[name], begun.get(name, {})):
                raise InputError(
                    f"--resume {self.folder}: the sweep began otherwise, and its rows would not match: {changed}; "
                    "begin again in an empty folder"
                )

    def _manifest(self) -> dict[str, Any]:
        try:
            begun = json.loads((self.folder / MANIFEST).read_text("utf-8"))
            if not isinstance(begun, dict):
                raise ValueError("no mapping")
            return begun
        except (OSError, ValueError) as error:
            raise InputError(
                f"--out {self.folder}: {MANIFEST} is damaged ({_first_line(error)}); give an empty folder"
            ) from None

    def _locked(self) -> IO[str]:
        """The open lock file, which holds our process id; the system takes the lock back when we end, however."""
        path, until = self.folder / LOCK, time.monotonic() + PATIENCE
        while True:
            file = open(path, "a+", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break  # else the one before us has just removed it
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip()
                if _runs(holder) or time.monotonic() > until:
                    file.close()
                    raise InputError(f"--out {self.folder}: process {holder} works in it; wait for it") from None
                time.sleep(0.05)
            file.close()
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return file

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """An error of the system as an InputError; `what` may have a place for its text."""
        try:
            yield
        except OSError as error:
            why = _first_line(error)
            text = what.format(why) if "{}" in what else f"{what} ({why})"
            raise InputError(f"--out {self.folder}: {text}") from None


def _write(path: Path, content: Callable[[IO[bytes]], Any]) -> None:
    """Make `path` of what `content` writes to a file: whole and on the disk, or not there."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=LEFT_OVER)
    try:
        with os.fdopen(handle, "wb") as file:
            content(file)
            file.flush()
            os.fsync(handle)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _runs(process: str) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True  # somebody else's
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    return True


def _first_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__
