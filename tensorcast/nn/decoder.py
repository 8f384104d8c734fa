"""The frame of a packed language model: layer, decoder, head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import nn

from tensorcast.errors import ModelError
from tensorcast.nn.basic import LMHead
from tensorcast.nn.metadata import AttentionMetadata, C, ModelConfig

M = TypeVar("M", bound=nn.Module)


def check_inputs(input_ids, inputs_embeds) -> None:
    """ValueError unless exactly one of the two is given."""
    if (input_ids is None) == (inputs_embeds is None):
        how = "both" if input_ids is not None else "neither"
        raise ValueError(f"{how} of input_ids and inputs_embeds given; give exactly one")


class DecoderLayer(nn.Module):
    """A layer with `input_layernorm`, `self_attn`, `post_attention_layernorm` and `mlp`, each before its sum.

    Layers of another shape override forward(position_ids, hidden_states, attn_metadata, **kwargs).
    """

    def forward(
        self, position_ids: torch.Tensor | None, hidden_states: torch.Tensor, attn_metadata: AttentionMetadata, **kwargs
    ) -> torch.Tensor:
        attended = self.self_attn(
            position_ids=position_ids,
            hidden_states=self.input_layernorm(hidden_states),
            attn_metadata=attn_metadata,
            **kwargs,
        )
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class DecoderModel(nn.Module):
    """`embed_tokens`, `layers` and `norm`, run one after the other over packed tokens."""

    def __init__(self, model_config: ModelConfig | None = None) -> None:
        super().__init__()
        self.model_config = model_config

    def embed(self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        """[tokens, hidden] from whichever of the two is given."""
        check_inputs(input_ids, inputs_embeds)
        return self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds

    def forward(
        self,
        attn_metadata: AttentionMetadata,
        input_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        hidden_states = self.embed(input_ids, inputs_embeds)
        for layer in self.layers:
            hidden_states = layer(
                position_ids=position_ids, hidden_states=hidden_states, attn_metadata=attn_metadata, **kwargs
            )
        return self.norm(hidden_states)


class DecoderModelForCausalLM(nn.Module, Generic[M, C]):
    """A decoder and its head: packed token ids in, logits out, of the last token of every sequence in prefill and of
    every token in decode.

    A subclass takes a ModelConfig and hands on `model`, `config` (that ModelConfig), `hidden_size` (what the head
    reads) and `vocab_size`. Where the configuration ties word embeddings, head and `model.embed_tokens` are one.
    """

    def __init__(self, model: M, *, config: ModelConfig[C], hidden_size: int, vocab_size: int) -> None:
        super().__init__()
        self.model, self.model_config = model, config
        self.config = config.pretrained_config
        self.lm_head = LMHead(vocab_size, hidden_size, dtype=config.dtype)
        if getattr(self.config, "tie_word_embeddings", False):
            self._tie()

    def _tie(self) -> None:
        token = self.get_input_embeddings()
        if token is None or token.weight.shape != self.lm_head.weight.shape:
            have = "no embed_tokens" if token is None else f"embed_tokens {list(token.weight.shape)}"
            wanted = list(self.lm_head.weight.shape)
            raise ModelError(f"tie_word_embeddings is set, but the model has {have} for a head of {wanted}")
        self.lm_head.weight = token.weight

    def get_input_embeddings(self) -> nn.Embedding | None:
        return getattr(self.model, "embed_tokens", None)

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def get_decoder(self) -> M:
        return self.model

    def forward(
        self,
        attn_metadata: AttentionMetadata,
        input_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        check_inputs(input_ids, inputs_embeds)
        hidden_states = self.model(
            attn_metadata=attn_metadata,
            input_ids=input_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        return self.lm_head(asked_tokens(hidden_states, attn_metadata))

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Match a checkpoint's tensors, which have shapes only, with the parameters; nothing is copied.

        Override it where names or layouts differ, and hand what is renamed on to this one. ModelError names every
        parameter without a tensor, tensor without a parameter and shape that does not fit, unless
        `tensorcast check --weights` asks, which collects them.
        """
        from tensorcast.models.weights import match_weights

        match_weights(self, weights)


def asked_tokens(hidden_states: torch.Tensor, attn_metadata: AttentionMetadata) -> torch.Tensor:
    """The packed hidden states that logits are wanted of: the last of a sequence in prefill, all that are decoded."""
    if attn_metadata.num_contexts == 0:
        return hidden_states
    lengths = attn_metadata.seq_lens
    if attn_metadata.num_generations == 0 and len({*lengths}) == 1:
        return hidden_states.unflatten(0, (len(lengths), lengths[0]))[:, -1]
    ends = [sum(lengths[: n + 1]) - 1 for n in range(attn_metadata.num_contexts)]
    decoded = range(attn_metadata.num_ctx_tokens, attn_metadata.num_tokens)
    return hidden_states[torch.tensor([*ends, *decoded], device=hidden_states.device)]
