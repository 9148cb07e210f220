"""What vLLM takes of an adapter, as far as the adapter's own files can say.

Read from `config/lora.py` and `lora/peft_helper.py` of vLLM 0.32.0. Which families it takes
adapters of is not listed here: a server says so itself when an adapter is loaded.
"""

from collections.abc import Mapping
from typing import Any

SERVER_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's --max-lora-rank may be; 16 by default."""
USUAL_SERVER_RANK = 16
MAX_LOGPROBS = 20
"""Tokens, at most, whose log-probabilities come with a generated one (`--max-logprobs`)."""
FIELDS = {
    "modules_to_save": "weights that are tuned as a whole (modules_to_save)",
    "use_dora": "DoRA",
    "lora_bias": "a bias of its own (lora_bias)",
}
"""Fields of PEFT's configuration that vLLM refuses."""


def unserved_parts(config: Mapping[str, Any]) -> list[str]:
    """What an adapter has that vLLM does not serve; empty: nothing.

    Args:
        config: of the adapter, as in its `adapter_config.json`.
    """
    parts = [words for name, words in FIELDS.items() if config.get(name)]
    bias = config.get("bias", "none")
    if bias != "none":
        parts.append(f"biases (bias = {bias})")
    if config.get("task_type") == "SEQ_2_SEQ_LM":
        parts.append("an encoder-decoder as its base")
    if config.get("r", 0) > SERVER_RANKS[-1]:
        parts.append(f"a rank of {config['r']}, where {SERVER_RANKS[-1]} is the highest")
    return parts


def limit_sentences(config: Mapping[str, Any]) -> list[str]:
    """The same as sentences, for whoever is given an adapter."""
    parts = unserved_parts(config)
    if parts:
        return [f"vLLM does not serve it: it has {', '.join(parts)}; use --merged, or PEFT"]
    return rank_sentences(config["r"])


def rank_sentences(rank: int) -> list[str]:
    """What whoever serves an adapter of this rank, of 512 at most, should know."""
    if rank <= USUAL_SERVER_RANK:
        return []
    size = next(size for size in SERVER_RANKS if size >= rank)
    return [f"rank {rank}: vLLM serves it with --max-lora-rank {size}, and not by default"]
