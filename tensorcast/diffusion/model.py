"""A denoiser of diffusers taken through the same nine steps as a language model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from tensorcast.diffusion.canvas import Canvas
from tensorcast.errors import DeploymentError
from tensorcast.transformer_model import TransformerModel


class DiffusersTransformerModel(TransformerModel):
    """As TransformerModel; one forward is one denoising step of `canvas`, and plans are those of the class itself."""

    @property
    def canvas(self) -> Canvas:
        return self.deployment.canvas

    @property
    def probe(self) -> tuple[int, int, int]:
        return 2, self.canvas.text_tokens, 0

    @property
    def config_tp_plan(self) -> Mapping[str, str]:
        """The class's own plan, its objects under the words that transformers has for them.

        Without one, the table by names speaks (layers.tp_rules), and blocks whose attention and feed-forward share
        their last product are cut as the two would be. Convolutions are not cut, nor is attention that pools a prompt.
        """
        plan = getattr(self.module, "_tp_plan", None) or {}
        if self.plan.tp > 1 and not plan:
            if not self.tp_rules and _mostly_convolutions(self.module):
                raise DeploymentError(
                    f"--tp {self.plan.tp}: no tensor-parallel plan for {self.architecture}, which is mostly "
                    f"convolutions; use --dp{self._sequence_hint}, or give one as tp_plan of a ModelProfile"
                )
            plan = _shared_last_products(self.module) | _pools(self.module)
        return {pattern: style if isinstance(style, str) else _word(style) for pattern, style in plan.items()}

    @property
    def _sequence_hint(self) -> str:
        return " or --sp" if getattr(self.module, "_cp_plan", None) else ""


def _mostly_convolutions(module: nn.Module) -> bool:
    """Whether convolutions between feature maps hold more weights than products do."""
    kinds = {nn.Linear: 0, nn.modules.conv._ConvNd: 0}
    for part in module.modules():
        for kind in kinds:
            if isinstance(part, kind):
                kinds[kind] += part.weight.numel()
    products, convolutions = kinds.values()
    return convolutions > products


def _shared_last_products(module: nn.Module) -> dict[str, str]:
    """Rules for blocks `proj_out(cat([attention, act(proj_mlp(x))]))`, whose attention has no product behind it."""
    return {
        f"{path}.{name}": style
        for path, block in module.named_modules()
        if all(isinstance(getattr(block, name, None), nn.Linear) for name in ("proj_mlp", "proj_out"))
        for name, style in (("proj_mlp", "colwise"), ("proj_out", "packed_rowwise"))
    }


def _pools(module: nn.Module) -> dict[str, str]:
    """Rules for attention that makes one row of a prompt: some of its products are read without being called."""
    pools = [path for path, part in module.named_modules() if path.endswith("pooler") and any(part.children())]
    return {f"{path}.*": "replicate" for path in pools}


def _word(style: object) -> str:
    """`PackedRowwiseParallel()` → packed_rowwise."""
    name = type(style).__name__.removesuffix("Parallel")
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
