"""The two configuration files of a hub repository. Weights are never fetched and nothing is ever asked on stdin.

`HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_HOME`, `HF_HUB_CACHE` and `HF_TOKEN` are read at each call.
"""

from __future__ import annotations

import os
from pathlib import Path

from tensorcast.errors import InputError, ModelError, UnknownNameError
from tensorcast.models import entries

CONFIG, SIDE_FILE = "config.json", "hf_quant_config.json"
TIMEOUT = 10.0
"""Seconds to wait for the hub's first answer."""
LOCAL = "give the path of a folder with its config.json, or a name from `tensorcast list models`"


class _Absent(Exception):
    """The repository does not have the file."""


class _Unreachable(Exception):
    """The hub did not answer and the local cache does not have the file. Its text says why."""


def fetch_config(hub_id: str, revision: str | None = None) -> tuple[Path, Path | None, str]:
    """Local paths of config.json and of hf_quant_config.json where there is one, and a note ("" when all is known)."""
    try:
        config = _fetch(hub_id, CONFIG, revision)
    except _Absent:
        raise ModelError(f"{hub_id}: the hub repository has no config.json, so it is no transformers model") from None
    except _Unreachable as reason:
        raise ModelError(f"{hub_id}: {reason}; {LOCAL}") from None
    try:
        return config, _fetch(hub_id, SIDE_FILE, revision), ""
    except _Absent:
        return config, None, ""
    except _Unreachable as reason:
        return config, None, f"whether the repository has a {SIDE_FILE} is not known: {reason}"


def _fetch(hub_id: str, filename: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import errors, hf_hub_download
        from huggingface_hub.utils import disable_progress_bars
    except ImportError:
        raise ModelError(f"{hub_id}: huggingface_hub is not installed, so nothing can be fetched; {LOCAL}") from None
    disable_progress_bars()
    endpoint, offline = os.environ.get("HF_ENDPOINT") or None, is_offline()
    why = "HF_HUB_OFFLINE is set and the local hub cache does not have it" if offline else ""
    try:
        why = why or _unreachable(hub_id, filename, revision, endpoint)
        return Path(
            hf_hub_download(
                hub_id, filename, revision=revision, endpoint=endpoint, cache_dir=cache_folder(),
                local_files_only=bool(why), etag_timeout=TIMEOUT,
            )
        )  # fmt: skip
    except errors.GatedRepoError:
        raise ModelError(
            f"{hub_id}: a gated model; accept its licence on the hub and set HF_TOKEN, or {LOCAL}"
        ) from None
    except errors.RepositoryNotFoundError:
        how = f"check the spelling, set HF_TOKEN if it is private, or {LOCAL}"
        raise UnknownNameError("hub repository", hub_id, entries.known_names(), how) from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{hub_id}: there is no revision {revision!r}; give a branch, a tag or a commit") from None
    except errors.HFValidationError:
        raise InputError(f"{hub_id!r} is not a hub id; write org/name") from None
    except errors.LocalEntryNotFoundError as reason:
        if _known_absent(hub_id, filename, revision):
            raise _Absent from None
        raise _Unreachable(why or _one_line(reason)) from None
    except errors.EntryNotFoundError:
        raise _Absent from None
    except (errors.HTTPError, OSError) as reason:
        raise ModelError(f"{hub_id}: {_failure(reason, endpoint)}; {LOCAL}") from None


def _unreachable(hub_id: str, filename: str, revision: str | None, endpoint: str | None) -> str:
    """Why the hub cannot be used, or "": asked once, where a download would retry for half a minute."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    try:
        url = hf_hub_url(hub_id, filename, revision=revision, endpoint=endpoint)
        get_hf_file_metadata(url, timeout=TIMEOUT, endpoint=endpoint)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise
    except errors.EntryNotFoundError:
        return ""  # hf_hub_download remembers the absence in its cache
    except (errors.HTTPError, OSError) as reason:
        return _failure(reason, endpoint)
    return ""


def _failure(reason: BaseException, endpoint: str | None) -> str:
    status = getattr(getattr(reason, "response", None), "status_code", None)
    what = f"answered {status}" if status else f"cannot be reached ({_one_line(reason)})"
    return f"the hub at {endpoint or 'https://huggingface.co'} {what}"


def _known_absent(hub_id: str, filename: str, revision: str | None) -> bool:
    """Whether the local cache remembers that the repository does not have the file."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    return try_to_load_from_cache(hub_id, filename, cache_dir=cache_folder(), revision=revision) is _CACHED_NO_EXIST


def is_offline() -> bool:
    """Whether the environment forbids the network."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").strip().upper() in ("1", "ON", "YES", "TRUE") for name in names)


def cache_folder() -> Path | None:
    """The hub cache the environment names, or None for huggingface_hub's own default."""
    if folder := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(folder).expanduser()
    home = os.environ.get("HF_HOME")
    return Path(home).expanduser() / "hub" if home else None


def _one_line(reason: BaseException) -> str:
    return " ".join(str(reason).split())[:200] or type(reason).__name__
