"""A denoiser of diffusers taken through the same nine steps as a language model."""

from __future__ import annotations

from collections.abc import Mapping

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
        """The class's own plan, its objects under the words that transformers has for them."""
        plan = getattr(self.module, "_tp_plan", None) or {}
        if not plan and not self.tp_rules and self.plan.tp > 1:
            raise DeploymentError(
                f"--tp {self.plan.tp}: no tensor-parallel plan for {self.architecture}; use --dp{self._sequence_hint}, "
                "or give one as tp_plan of a ModelProfile"
            )
        return {pattern: style if isinstance(style, str) else _word(style) for pattern, style in plan.items()}

    @property
    def _sequence_hint(self) -> str:
        return " or --sp" if getattr(self.module, "_cp_plan", None) else ""


def _word(style: object) -> str:
    """`PackedRowwiseParallel()` → packed_rowwise."""
    name = type(style).__name__.removesuffix("Parallel")
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
