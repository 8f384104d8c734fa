"""Names, formats and shapes of a checkpoint's tensors, from the headers of its safetensors files. No torch.

A file starts with eight bytes, the length of the JSON object behind them: tensor name → dtype, shape and place.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tensorcast.errors import ModelError
from tensorcast.models.check import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MOST_BYTES = 100_000_000  # longest header that the format allows


@dataclass(frozen=True)
class Header:
    """One tensor: `dtype` in the format's own words (BF16, F8_E4M3 …), and the file that holds it."""

    dtype: str
    shape: tuple[int, ...]
    file: str


def has_checkpoint(folder: Path | None) -> bool:
    return folder is not None and bool(files_of(folder))


def files_of(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: those its index names, model.safetensors, else every one there is."""
    if (folder / INDEX).is_file():
        placed = read_json(folder / INDEX).get("weight_map")
        if not isinstance(placed, Mapping) or not all(isinstance(name, str) for name in placed.values()):
            raise ModelError(f"{folder / INDEX}: no weight_map of tensor names to files; download it again")
        return [folder / name for name in sorted({*placed.values()})]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    return sorted(folder.glob("*.safetensors"))


def read_headers(folder: Path) -> dict[str, Header]:
    """Every tensor of the checkpoint in `folder`. ModelError when there is none, or a file that is no safetensors."""
    files = files_of(folder)
    if not files:
        raise ModelError(f"{folder}: no *.safetensors file; weights in another form cannot be read")
    found: dict[str, Header] = {}
    for file in files:
        for name, header in _read(file).items():
            if name in found:
                raise ModelError(f"{file}: tensor {name} is in {found[name].file} too; remove one of the files")
            found[name] = header
    return found


def _read(file: Path) -> dict[str, Header]:
    try:
        with file.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            text = stream.read(length) if 1 < length <= MOST_BYTES else b""
    except OSError as reason:
        raise ModelError(f"{file}: cannot be read ({reason.strerror}); download the checkpoint again") from None
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        return {n: Header(str(e["dtype"]), tuple(map(int, e["shape"])), file.name) for n, e in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ModelError(f"{file}: not a safetensors file, or cut short; download it again") from None
