"""A tiny model in the form in which SmolLM2 is fetched: one GGUF file, tokenizer inside."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, TokenType

from e2urec.core.arrays import Floats

NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""GGUF's names of the layers of Llama."""


def write_gguf(lm: Any, tokenizer: Any, folder: Path) -> None:
    """Write a Llama whose head is tied to its embeddings, and a byte-level BPE tokenizer."""
    folder.mkdir()
    writer = GGUFWriter(folder / "toy.gguf", "llama")
    _add_config(writer, lm.config)
    _add_tokens(writer, tokenizer)
    heads = {
        "attn_q": lm.config.num_attention_heads,
        "attn_k": lm.config.num_key_value_heads,
    }
    for name, tensor in lm.model.state_dict().items():
        layer = name.removesuffix(".weight")
        block = ""
        if layer.startswith("layers."):
            _, number, layer = layer.split(".", 2)
            block = f"blk.{number}."
        key = NAMES[layer]
        weight = tensor.numpy()
        if key in heads:
            weight = _as_rotated(weight, heads[key])
        writer.add_tensor(f"{block}{key}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_config(writer: GGUFWriter, config: Any) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokens(writer: GGUFWriter, tokenizer: Any) -> None:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    special = tokenizer.all_special_tokens
    kinds = [TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    # All four have a name, so that no reader adds a token beyond the embeddings.
    writer.add_bos_token_id(tokenizer.eos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.pad_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)


def _as_rotated(weight: Floats, heads: int) -> Floats:
    """A projection (h·d, n) with the rows of each head in the order in which GGUF rotates them."""
    pairs = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, pairs, -1).swapaxes(1, 2).reshape(weight.shape)
