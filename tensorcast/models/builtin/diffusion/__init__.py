"""Classes of diffusers whose arguments, sizes or defaults no general rule tells: one file a family."""

from __future__ import annotations

import importlib
import pkgutil

for _info in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_info.name}")
