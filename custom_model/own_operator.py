"""A kernel of your own, with an operator of your own: an rms_norm that reads its input twice.

    tensorcast simulate --model qwen3-8b --hw h100 --custom custom_model/own_operator.py --kernel rms_norm=two_pass

The operator says what a call returns and what it takes; the kernel says which op it can fill. Nothing here imports
torch, so a cached answer does not either: `meta` only calls methods of what it is given, and the factory runs when the
kernel is chosen.
"""

import tensorcast as tc


@tc.operator("two_pass_rms_norm(Tensor x, Tensor? w) -> Tensor", family="norm")
class TwoPassRmsNorm:
    """x · rsqrt(mean(x²) + eps) · w: one pass over x for the mean, another for the result."""

    def meta(x, w):
        return x.new_empty(x.shape)

    def dims(x, w):
        # Sizes must be polynomials of batch, new tokens and context: numbers of elements always are.
        return {"elements": x.numel(), "width": x.shape[-1], "attrs": {"bytes": x.element_size()}}

    def work(d, a):
        passes = 2
        return tc.Work(
            vector_flops=4 * d["elements"],
            read_bytes=(passes * d["elements"] + d["width"]) * a["bytes"],
            write_bytes=d["elements"] * a["bytes"],
        )


def two_pass():
    """The factory: gives a function with the signature of the op, rms_norm(x, weight)."""
    import torch

    return torch.ops.tensorcast.two_pass_rms_norm


# `variant` says which norms it may stand in for: this one multiplies by the weight, not by 1 + weight.
# Where a kernel needs a certain machine: hardware=tc.HardwareRequirement("gpu", min_compute_capability=90).
tc.KERNELS.register(
    tc.KernelSpec("two_pass", "rms_norm", two_pass, description="reads its input twice, as two_pass_rms_norm")
)
