"""Checks of values, which a model on the meta device has not got: left out while it is traced."""

from __future__ import annotations

import re

from tensorcast.layers.patching import GlobalPatch

_METHODS = ("warn_if_padding_and_no_attention_mask",)
_FUNCTIONS = re.compile(r"^torch_compilable_check$")


def skip_value_checks(model) -> None:
    """Methods and functions of transformers' models that look at token ids or masks only to warn or refuse."""
    for module in model.module.modules():
        for name in _METHODS:
            if hasattr(module, name):
                module.__dict__[name] = _nothing
    model.patches.append(GlobalPatch(_FUNCTIONS, lambda original, module_name: _nothing))


def _nothing(*args, **kwargs) -> None:
    return None
