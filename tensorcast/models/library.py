"""Modules of transformers: an installation that does not work is one line, not the library's own long way round."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from tensorcast.errors import ModelError


def library(name: str) -> ModuleType:
    """The module; ModelError, saying what to reinstall, where it cannot be imported."""
    try:
        return import_module(name)
    except Exception as reason:
        raise ModelError(_said(name, reason)) from reason


def _said(name: str, reason: Exception) -> str:
    root: BaseException = reason
    while root.__cause__ is not None or root.__context__ is not None:
        root = root.__cause__ or root.__context__
    if "torchvision" in f"{reason} {root}":
        return "torchvision does not match the installed torch; uninstall it or install the matching version"
    why = " ".join(str(root).split())[:300] or type(root).__name__
    return f"{name} cannot be imported: {why}; reinstall torch and transformers"
