"""Kernels of the mla op: in which phases the latent cache is expanded to keys and values.

Signature: mla(phase, sparse) -> bool, True = work on the latents themselves (absorbed).
"""

from __future__ import annotations

from tensorcast.kernels.registry import EAGER, KERNELS, KernelSpec


def _adaptive():
    return lambda phase, sparse: sparse or phase == "decode"


KERNELS.register(
    KernelSpec(
        "adaptive",
        "mla",
        _adaptive,
        description="expanded in prefill, absorbed in decode; absorbed throughout with sparse attention",
        default=True,
    )
)
KERNELS.register(
    KernelSpec("absorbed", "mla", lambda: lambda phase, sparse: True, description="attention over the latents")
)
for _name, _what in (
    ("expanded", "keys and values made from the latents"),
    (EAGER, "as expanded: what the model's own code does in every phase"),
):
    KERNELS.register(KernelSpec(_name, "mla", lambda: lambda phase, sparse: False, description=_what))
