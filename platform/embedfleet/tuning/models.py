"""The model that is trained: Hugging Face's own layers, run so that nothing needless is computed.

Sequences are padded on the right and no mask is made: attention is causal, so what follows a
sequence's last token cannot reach it. Only that token's state is used, so the last layer computes
queries, output and MLP of that one only. Both are exact; a test holds them to the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from embedfleet.checkpoint import Checkpoint, open_checkpoint, resolve
from embedfleet.checkpoint.layout import LM_HEAD, needs_lm_head
from embedfleet.errors import InvalidRequest
from embedfleet.messages import Role
from embedfleet.tokenization import Tokenizer
from embedfleet.tuning.sections import Lora
from embedfleet.tuning.settings import TuneSettings

__all__ = ["TrainedModel", "load_model", "merged_state"]


class TrainedModel(nn.Module):
    """Token ids to the last token's state, or to a reranker's log-odds of a yes.

    Attributes:
        body: transformers' Qwen3Model, or the same with adapters in its layers.
        head: A reranker's output head where it is not the embedding table.
        checkpointing: Layers are computed again for their gradients instead of kept.
        whole_layers: Run the last layer for every token, as a sharded one has to be.
    """

    def __init__(self, body: Any, head: nn.Linear | None, answers: tuple[int, int] | None) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.checkpointing = False
        self.whole_layers = False
        self._answers = answers

    def forward(self, token_ids: Tensor, last: Tensor) -> Tensor:
        """Compute what is learnt from.

        Args:
            token_ids: (b, t) int64, padded on the right with any id.
            last: (b,) int64: place of each sequence's last token.

        Returns:
            (b, hidden) states after the final norm, or (b,) log-odds in float32.
        """
        body = self.body
        hidden = body.embed_tokens(token_ids)
        places = torch.arange(token_ids.shape[1], device=token_ids.device)[None]
        rotary = body.rotary_emb(hidden, places)
        layers = list(body.layers)
        for layer in layers if self.whole_layers else layers[:-1]:
            hidden = self._run(_layer, layer, hidden, rotary, places)
        if self.whole_layers:
            hidden = hidden[torch.arange(len(last), device=last.device), last]
        else:
            hidden = self._run(_last_layer, layers[-1], hidden, rotary, last)
        state: Tensor = body.norm(hidden)
        if self._answers is None:
            return state
        yes, no = self._answers
        table = body.embed_tokens.weight if self.head is None else self.head.weight
        return functional.linear(state.float(), (table[yes] - table[no]).float()[None])[:, 0]

    def _run(self, run: Callable[..., Tensor], *given: object) -> Tensor:
        """Run a layer, to be run again for its gradients if memory is to be saved."""
        if not (self.checkpointing and torch.is_grad_enabled()):
            return run(*given)
        output: Tensor = checkpoint(run, *given, use_reentrant=False)
        return output


def load_model(settings: TuneSettings, role: Role) -> tuple[TrainedModel, Tokenizer, Checkpoint]:
    """Load what training starts from, in float32 on the CPU, adapters included if asked for.

    Raises:
        CheckpointError: Its files are not what they should be, or do not fit one another.
        InvalidRequest: `freeze` names no weight, or leaves none to train.
    """
    opened = open_checkpoint(resolve(settings.model.source, settings.model.revision), role)
    tokenizer = opened.load_tokenizer()
    answers = tokenizer.yes_no_ids() if role is Role.RERANKER else None
    body = _empty_body(opened.folder)
    head = None
    if needs_lm_head(opened.config, role):
        head = nn.Linear(opened.config.hidden_size, opened.config.vocab_size, bias=False)
    own: dict[str, Tensor] = dict(body.named_parameters())
    if head is not None:
        own[LM_HEAD] = head.weight
    with torch.no_grad():
        for name, tensor in opened.tensors():
            own[name].copy_(tensor)
    _freeze(body, head, settings.freeze)
    model = TrainedModel(body, head, answers)
    if settings.lora is not None:
        _add_adapters(model, settings.lora)
    model.checkpointing = settings.gradient_checkpointing
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InvalidRequest("freeze leaves nothing to train. Take a name out of it.")
    return model.train(), tokenizer, opened


def merged_state(model: TrainedModel, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a model as they are served: adapters merged, names with `model.`.

    Args:
        model: Tells which layers have adapters, and their scale.
        state: All of the model's weights, gathered, by the model's own names.
    """
    scales = {
        name: module.scaling["default"]
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        stem, _, last = name.rpartition(".")
        layer = stem.removesuffix(".base_layer")
        if layer in scales and last == "weight":
            up = state[f"{layer}.lora_B.default.weight"].float()
            down = state[f"{layer}.lora_A.default.weight"].float()
            tensor = tensor.float() + scales[layer] * (up @ down)
        if name == "head.weight":
            yield LM_HEAD, tensor
        else:
            yield f"model.{layer.removeprefix('body.')}.{last}", tensor


def _empty_body(folder: Path) -> Any:
    """Make transformers' model of a checkpoint's shape; weights come later."""
    # Here, because transformers takes seconds to import.
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config.from_pretrained(folder)
    config.use_cache = False
    # Dropout is nowhere in these models, and right padding relies on causal attention without it.
    config.attention_dropout = 0.0
    config._attn_implementation = "sdpa"
    return Qwen3Model._from_config(config, dtype=torch.float32)


def _freeze(body: nn.Module, head: nn.Linear | None, starts: tuple[str, ...]) -> None:
    named: dict[str, Tensor] = dict(body.named_parameters())
    if head is not None:
        named[LM_HEAD] = head.weight
    for index, start in enumerate(starts):
        matching = [name for name in named if name.startswith(start)]
        if not matching:
            raise InvalidRequest(
                f"freeze[{index}] is {start}: no weight's name begins with it. Names are such as "
                f"{', '.join(list(named)[:3])}, {list(named)[-1]}.",
                field=f"freeze[{index}]",
            )
        for name in matching:
            named[name].requires_grad_(False)


def _add_adapters(model: TrainedModel, lora: Lora) -> None:
    """Put adapters into the body's linear layers; all else stays as it is."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        bias="none",
    )
    inject_adapter_in_model(config, model.body)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)


def _layer(layer: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor], places: Tensor) -> Tensor:
    """Run a decoder layer for every token."""
    done: Tensor = layer(
        hidden, attention_mask=None, position_embeddings=rotary, position_ids=places
    )
    return done


def _last_layer(layer: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor], last: Tensor) -> Tensor:
    """Run a decoder layer for the last token of each sequence: (b, t, hidden) to (b, hidden)."""
    attention, rows = layer.self_attn, torch.arange(len(last), device=last.device)
    normed = layer.input_layernorm(hidden)
    shape = (*normed.shape[:2], -1, attention.head_dim)
    key = attention.k_norm(attention.k_proj(normed).view(shape)).transpose(1, 2)
    value = attention.v_proj(normed).view(shape).transpose(1, 2)
    own = normed[rows, last][:, None]
    query = attention.q_norm(attention.q_proj(own).view(len(last), 1, -1, attention.head_dim))
    query = query.transpose(1, 2)
    cos, sin = rotary
    key = _rotated(key, cos[:, None], sin[:, None])
    query = _rotated(query, cos[0, last][:, None, None], sin[0, last][:, None, None])
    before = torch.arange(hidden.shape[1], device=last.device)[None] <= last[:, None]
    mixed = _attend_once(query, key, value, before)
    state = hidden[rows, last] + attention.o_proj(mixed)
    done: Tensor = state + layer.mlp(layer.post_attention_layernorm(state))
    return done


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = states.chunk(2, dim=-1)
    turned: Tensor = states * cos + torch.cat((-right, left), dim=-1) * sin
    return turned


def _attend_once(query: Tensor, key: Tensor, value: Tensor, before: Tensor) -> Tensor:
    """Attend with one query a sequence: (b, heads, 1, d), (b, kv, t, d) twice to (b, heads * d)."""
    size, kv_heads, _, width = key.shape
    # Heads that share keys become rows of one product: nothing is repeated.
    grouped = query.view(size, kv_heads, -1, width)
    weights = grouped @ key.transpose(-1, -2) * width**-0.5
    weights = weights.masked_fill(~before[:, None, None], float("-inf"))
    mixed: Tensor = weights.float().softmax(-1).to(value.dtype) @ value
    return mixed.reshape(size, -1)
