"""Families of language models, each as a tiny config with random weights: nothing is fetched.

`docs/generate.py` writes the table of families from this list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
)

from e2urec.models.backbone import Backbone
from e2urec.testing import toy_tokenizer

BLOCKS = 4
"""Blocks that read the prompt: adapters on the upper half leave two below them."""

Config = dict[str, Any]

DECODER: Config = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
GPT2: Config = {"n_embd": 32, "n_inner": 48, "n_layer": BLOCKS, "n_head": 4, "n_positions": 512}
BLOOM: Config = {"hidden_size": 32, "n_layer": BLOCKS, "n_head": 4}
FALCON = {name: value for name, value in DECODER.items() if name != "head_dim"}
T5: Config = {
    "d_model": 32,
    "d_ff": 48,
    "d_kv": 8,
    "num_layers": BLOCKS,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
BART: Config = {
    "d_model": 32,
    "encoder_layers": BLOCKS,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 512,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
}
EXPERTS: Config = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
SHARED_EXPERT: Config = EXPERTS | {"shared_expert_intermediate_size": 16}
DEEPSEEK: Config = EXPERTS | {
    # Enough blocks below and above the first adapted one that have shared experts.
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
    "num_key_value_heads": 4,
}
# Shorter than the prompts, so that sliding attention differs from full attention.
SLIDING: Config = {
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention"] * (BLOCKS // 2),
}
MAMBA: Config = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_chunk_size": 16,
}
PICTURES: Config = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
LAYER_INPUTS: Config = {"hidden_size_per_layer_input": 8, "global_head_dim": 8}


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        name: as people call it.
        model_type: as Transformers calls it.
        config: of a tiny model.
        attention: whether adapters can lie on query and value projections.
        replay: whether upper blocks need no more of the lower ones than their output.
        prefix: whether every text of the decoder's begins with a token of its own.
        ordinary: whether it is in the ordinary tests: one family for each way of being built.
    """

    name: str
    model_type: str
    config: Mapping[str, Any]
    attention: bool = True
    replay: bool = True
    prefix: bool = False
    ordinary: bool = False


def decoder(name: str, model_type: str, *parts: Config, **fields: bool) -> Family:
    """A family whose config is much like Llama's, but for `parts`."""
    config = dict(DECODER)
    for part in parts:
        config |= part
    return Family(name, model_type, config, **fields)


FAMILIES = [
    decoder("Llama", "llama", ordinary=True),
    decoder("Llama 4 (text)", "llama4_text", EXPERTS, {"attention_chunk_size": 64}),
    decoder("Mistral", "mistral", {"sliding_window": 6}),
    decoder("Mixtral", "mixtral", EXPERTS),
    decoder("Qwen 2", "qwen2"),
    decoder("Qwen 2 MoE", "qwen2_moe", SHARED_EXPERT),
    decoder("Qwen 3", "qwen3"),
    decoder("Qwen 3 MoE", "qwen3_moe", EXPERTS),
    decoder(
        "Qwen 3 Next",
        "qwen3_next",
        SHARED_EXPERT,
        {
            "layer_types": ["linear_attention", "full_attention"] * (BLOCKS // 2),
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
        ordinary=True,
    ),
    decoder("Gemma", "gemma"),
    decoder("Gemma 2", "gemma2", SLIDING, {"final_logit_softcapping": 0.5}, ordinary=True),
    decoder("Gemma 3 (1B)", "gemma3_text", SLIDING),
    Family(
        "Gemma 3 (from 4B)",
        "gemma3",
        {
            "text_config": DECODER | SLIDING,
            "vision_config": PICTURES,
            "mm_tokens_per_image": 4,
        },
        ordinary=True,
    ),
    decoder(
        "Gemma 3n (text)",
        "gemma3n_text",
        SLIDING,
        {
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 4,
            "num_kv_shared_layers": 2,
            "activation_sparsity_pattern": None,
        },
        replay=False,
    ),
    decoder("Gemma 4 (text)", "gemma4_text", SLIDING, LAYER_INPUTS, {"num_kv_shared_layers": 0}),
    decoder(
        "Gemma 4 (text, values shared by blocks)",
        "gemma4_text",
        SLIDING,
        LAYER_INPUTS,
        {"num_kv_shared_layers": 2},
        replay=False,
        ordinary=True,
    ),
    decoder("DeepSeek V2", "deepseek_v2", DEEPSEEK, {"topk_method": "greedy"}),
    decoder("DeepSeek V2 Lite", "deepseek_v2", DEEPSEEK, {"q_lora_rank": None}),
    decoder("DeepSeek V3", "deepseek_v3", DEEPSEEK, ordinary=True),
    decoder("gpt-oss", "gpt_oss", EXPERTS, SLIDING),
    Family("GPT-2", "gpt2", GPT2, ordinary=True),
    Family("GPT-J", "gptj", GPT2 | {"rotary_dim": 4}),
    decoder(
        "GPT-Neo",
        "gpt_neo",
        {
            "num_layers": BLOCKS,
            "num_heads": 4,
            "attention_types": [[["global", "local"], BLOCKS // 2]],
            "window_size": 6,
        },
    ),
    decoder("GPT-NeoX, Pythia", "gpt_neox"),
    decoder("Phi-1, Phi-2", "phi"),
    decoder("Phi-3, Phi-4", "phi3"),
    decoder("SmolLM3", "smollm3"),
    decoder("OLMo", "olmo"),
    decoder("OLMo 2", "olmo2"),
    decoder("GLM", "glm"),
    decoder("GLM-4", "glm4"),
    decoder("StableLM", "stablelm"),
    decoder("StarCoder2", "starcoder2"),
    decoder("Granite", "granite", {"logits_scaling": 8.0}, ordinary=True),
    decoder(
        "Granite 4 (hybrid)",
        "granitemoehybrid",
        EXPERTS,
        MAMBA,
        {
            "shared_intermediate_size": 16,
            "layer_types": ["mamba", "attention"] * (BLOCKS // 2),
        },
    ),
    decoder("Cohere, Command R", "cohere", {"logit_scale": 0.5}),
    decoder("Cohere 2, Command R7B", "cohere2", {"logit_scale": 0.25, "sliding_window": 6}),
    decoder("LFM2", "lfm2", {"layer_types": ["conv", "full_attention"] * (BLOCKS // 2)}),
    decoder("OPT", "opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    decoder(
        "OPT-350m",
        "opt",
        {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
        ordinary=True,
    ),
    Family("Falcon 7B", "falcon", FALCON, ordinary=True),
    Family("Falcon 40B", "falcon", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    Family("Falcon RW", "falcon", FALCON | {"alibi": True, "parallel_attn": False}),
    decoder("Falcon-H1", "falcon_h1", MAMBA, {"mamba_d_ssm": 64, "lm_head_multiplier": 0.5}),
    Family("BLOOM", "bloom", BLOOM),
    Family(
        "MPT",
        "mpt",
        {"d_model": 32, "n_heads": 4, "n_layers": BLOCKS, "expansion_ratio": 2, "max_seq_len": 512},
    ),
    Family(
        "Mamba",
        "mamba",
        {"hidden_size": 32, "num_hidden_layers": BLOCKS, "state_size": 8},
        attention=False,
    ),
    Family(
        "Mamba 2",
        "mamba2",
        {
            "hidden_size": 32,
            "num_hidden_layers": BLOCKS,
            "num_heads": 8,
            "head_dim": 8,
            "state_size": 8,
            "n_groups": 1,
            "expand": 2,
            "chunk_size": 16,
        },
        attention=False,
        ordinary=True,
    ),
    Family("T5", "t5", T5),
    Family(
        "Flan-T5",
        "t5",
        T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        ordinary=True,
    ),
    Family("mT5", "mt5", T5),
    Family("UMT5", "umt5", T5),
    Family("BART", "bart", BART, prefix=True, ordinary=True),
    Family("mBART-50", "mbart", BART, prefix=True),
    Family("Marian", "marian", BART),
    Family("Pegasus", "pegasus", BART),
]

SPECIAL_TOKENS: Config = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}


def build(family: Family) -> Backbone:
    """A tiny model of `family` with weights that are the same at every call, and a tokenizer.

    PyTorch's global generator is seeded for that.
    """
    config = AutoConfig.for_model(family.model_type, **_with_vocabulary(family))
    tokenizer = _tokenizer(closes=bool(config.is_encoder_decoder), prefix=family.prefix)
    loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(0)
    # As `load_backbone` does on a CPU, so that saving and loading changes no bit of a score.
    lm = loader.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            # Far enough from zero that nothing is lost in rounding: a state, a bias, an expert.
            # What is never trained, such as sines of positions, is not saved with a model.
            if parameter.requires_grad and (parameter.ndim > 1 or "bias" in name):
                parameter.normal_(std=0.15)
        for name, buffer in lm.named_buffers():
            if name == "final_logits_bias":
                buffer.normal_(std=0.15)
    return Backbone(lm.eval(), tokenizer, family.name)


def _with_vocabulary(family: Family) -> Config:
    tokenizer = _tokenizer(closes=False, prefix=family.prefix)
    config = dict(family.config) | SPECIAL_TOKENS
    vocabulary = {"vocab_size": len(tokenizer)}
    if "hidden_size_per_layer_input" in config:
        vocabulary["vocab_size_per_layer_input"] = len(tokenizer)
    if "text_config" in config:
        config["text_config"] = config["text_config"] | vocabulary | SPECIAL_TOKENS
        return config
    return config | vocabulary


def _tokenizer(*, closes: bool, prefix: bool) -> Any:
    tokenizer = toy_tokenizer(closes=closes)
    if prefix:
        tokenizer.add_special_tokens({"bos_token": "<s>"})
        start = tokenizer.bos_token_id
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", start), ("</s>", 1)]
        )
    return tokenizer
