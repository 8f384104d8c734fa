"""The two configuration files of a hub repository. Weights are never fetched and nothing is ever asked on stdin.

`HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_HOME`, `HF_HUB_CACHE` and `HF_TOKEN` are read at each call.
"""

from __future__ import annotations

import os
from pathlib import Path

from tensorcast.errors import InputError, ModelError, UnknownNameError
from tensorcast.models import entries

CONFIG, SIDE_FILE = "config.json", "hf_quant_config.json"
ETAG_TIMEOUT = 10.0
"""Seconds to wait for the hub's first answer."""
LOCAL = "give the path of a folder with its config.json, or a name from `tensorcast list models`"


def fetch_config(hub_id: str, revision: str | None = None) -> tuple[Path, Path | None]:
    """Local paths of config.json and, where the repository has one, hf_quant_config.json."""
    config = _fetch(hub_id, CONFIG, revision)
    if config is None:
        raise ModelError(f"{hub_id}: the hub repository has no config.json, so it is no transformers model; {LOCAL}")
    return config, _fetch(hub_id, SIDE_FILE, revision)


def _fetch(hub_id: str, filename: str, revision: str | None) -> Path | None:
    """The local path of one file, or None when the repository does not have it."""
    try:
        from huggingface_hub import errors, hf_hub_download
        from huggingface_hub.utils import disable_progress_bars
    except ImportError:
        raise ModelError(f"{hub_id}: huggingface_hub is not installed, so nothing can be fetched; {LOCAL}") from None
    disable_progress_bars()
    endpoint, offline = os.environ.get("HF_ENDPOINT") or None, is_offline()
    try:
        return Path(
            hf_hub_download(
                hub_id, filename, revision=revision, endpoint=endpoint, cache_dir=cache_folder(),
                local_files_only=offline, etag_timeout=ETAG_TIMEOUT,
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
    except errors.LocalEntryNotFoundError:
        return _not_cached(hub_id, filename, revision, offline, endpoint)
    except errors.EntryNotFoundError:
        return None
    except errors.HFValidationError:
        raise InputError(f"{hub_id!r} is not a hub id; write org/name") from None
    except (errors.HfHubHTTPError, OSError, ConnectionError) as reason:
        status = getattr(getattr(reason, "response", None), "status_code", None)
        what = f"answered {status}" if status else f"cannot be used ({_one_line(reason)})"
        raise ModelError(f"{hub_id}: the hub at {endpoint or 'huggingface.co'} {what}; {LOCAL}") from None


def _not_cached(hub_id: str, filename: str, revision: str | None, offline: bool, endpoint: str | None) -> None:
    """Offline or unreachable. A side file may be missing where config.json was cached: its absence is then unknown."""
    if filename == SIDE_FILE and (offline or not _absence_unknown(hub_id, revision)):
        return None
    if offline:
        raise ModelError(f"{hub_id}: not in the local hub cache, and HF_HUB_OFFLINE is set; unset it, or {LOCAL}")
    raise ModelError(f"{hub_id}: the hub at {endpoint or 'huggingface.co'} cannot be reached; {LOCAL}")


def _absence_unknown(hub_id: str, revision: str | None) -> bool:
    """False when the cache remembers that the repository has no side file."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, SIDE_FILE, cache_dir=cache_folder(), revision=revision)
    return found is not _CACHED_NO_EXIST


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
