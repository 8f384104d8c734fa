"""Rotary embedding: cos and sin become one table lookup a forward, and rotating becomes one operator."""

from __future__ import annotations

import inspect
import re

from tensorcast.errors import KernelError
from tensorcast.layers.patching import GlobalPatch
from tensorcast.layers.state import install, original_forward, state_of
from tensorcast.trace.context import current
from tensorcast.trace.library import call

_MODULE = re.compile(r"Rotary(Positional)?Emb(edding)?$")
_FUNCTION = re.compile(r"^apply_(multimodal_|interleaved_)?rotary(_pos)?_emb")


def install_rotary(model) -> int:
    """A lookup for every rotary module, and a rotary slot for the model's rotate functions. Returns how many."""
    count = 0
    for path, module in model.module.named_modules():
        if _MODULE.search(type(module).__name__) and not any(module.children()):
            install(module, path, lookup_forward).slots["rotary"] = model.kernels.fill("rotary", path)
            count += 1
    if count:
        _check_alike(model)
        model.patches.append(GlobalPatch(_FUNCTION, rotating))
    return count


def _check_alike(model) -> None:
    """Model code rotates through plain functions, which do not know their module: one kernel serves the whole model."""
    names = {slot.name: slot.path for slot in model.kernels.slots if slot.op == "rotary"}
    if len(names) > 1:
        told = ", ".join(f"{name} at {path}" for name, path in names.items())
        raise KernelError(f"rotary kernels cannot differ within a model: {told}; ask for one without @GLOB")


def lookup_forward(module, *args, **kwargs):
    """forward of a rotary module: the shapes its own code works out, at the price of a lookup."""
    if state_of(module).slots["rotary"].kernel is None:
        return original_forward(module, *args, **kwargs)
    with current().suspended():
        tables = original_forward(module, *args, **kwargs)
    pair = isinstance(tables, tuple)
    looked_up = call.rotary_lookup(tables[0] if pair else tables)
    looked_up._rotated = _rotated_width(module)
    return (looked_up, *tables[1:]) if pair else looked_up


def _rotated_width(module) -> int:
    """Elements of a head that turn: two for every frequency. 0 when the module has no one number of frequencies."""
    widths = {2 * b.shape[-1] for name, b in module.named_buffers() if "inv_freq" in name and "original" not in name}
    return widths.pop() if len(widths) == 1 else 0


def rotating(original, module_name=""):
    """`original`, through the model's kernel.

    It rotates (q, k, cos, sin), (q, k, freqs), (x, cos, sin) or (x, (cos, sin)).
    """

    signature = inspect.signature(original)

    def rotate(*args, **kwargs):
        kernel = current().model.rotary_kernel
        if kernel is None:
            return original(*args, **kwargs)
        q, k, *rest = signature.bind(*args, **kwargs).arguments.values()
        if getattr(k, "dim", lambda: 0)() == getattr(q, "dim", lambda: 0)() and rest:
            width = getattr(rest[0], "_rotated", 0)
            if 0 < width < q.shape[-1]:  # only part of a head turns: done in place, the rest is not touched
                kernel(q[..., :width], k[..., :width], rest[0])
                return q, k
            return kernel(q, k, rest[0])  # (q, k, cos, sin) or (q, k, freqs)
        table = k[0] if isinstance(k, tuple) else k
        return kernel(q, q[..., :0], table)[0]  # (x, cos, sin) or (x, (cos, sin))

    return rotate
