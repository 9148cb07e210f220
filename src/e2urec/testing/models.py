"""Toy language models of real architectures, with a tokenizer that is trained on the spot."""

from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from ..data.prompts import TEMPLATES
from ..models.backbone import Backbone
from ..models.devices import seed_streams
from ..models.recommender import Recommender

Kind = Literal["causal", "seq2seq"]
"""Llama's architecture, or T5's: the two kinds of model that a method must serve."""

# The words that prompts are made of, so that they become tokens and a prompt stays short.
WORDS = [
    "Liked:",
    "Disliked:",
    "none",
    "Will the user like",
    "Yes",
    "No",
    "Movie",
    "Toy Story (1995)",
]

# The 256 bytes, 2 special tokens, and room for merges that cover the words above.
VOCABULARY_SIZE = 420


def toy_tokenizer(*, closes: bool) -> Any:
    """Train a byte-level BPE tokenizer that knows the words of prompts.

    Args:
        closes: whether it ends every text with `</s>`, as T5's does.

    Returns:
        A `PreTrainedTokenizerFast`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [f"{first} {second}? Yes {second} No" for first in WORDS for second in WORDS]
    # BPE merges only what it has seen more than once.
    tokenizer.train_from_iterator(texts * 4, trainer)
    if closes:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def toy_backbone(kind: Kind) -> Backbone:
    """Make an untrained model of two blocks, with its tokenizer.

    The weights are the same at every call. PyTorch's global generator is seeded for that.

    Raises:
        ValueError: `kind` is neither "causal" nor "seq2seq".
    """
    if kind not in ("causal", "seq2seq"):
        raise ValueError(f"kind {kind!r}: must be 'causal' or 'seq2seq'")
    seed_streams(0, torch.device("cpu"))
    tokenizer = toy_tokenizer(closes=kind == "seq2seq")
    lm = _llama(len(tokenizer)) if kind == "causal" else _t5(len(tokenizer))
    # As `load_backbone` does on a CPU, so that saving and loading changes no bit of a score.
    lm.set_attn_implementation("eager")
    return Backbone(lm.eval(), tokenizer, f"toy-{kind}")


def toy_recommender(kind: Kind) -> Recommender:
    """Make an untuned recommender on `toy_backbone(kind)`, with the template "compact"."""
    return Recommender(toy_backbone(kind), TEMPLATES["compact"])


def _llama(vocabulary_size: int) -> Any:
    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        # Fewer than attention heads, as in most models today.
        num_key_value_heads=2,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        max_position_embeddings=512,
    )
    return LlamaForCausalLM(config)


def _t5(vocabulary_size: int) -> Any:
    config = T5Config(
        vocab_size=vocabulary_size,
        d_model=32,
        d_ff=64,
        d_kv=8,
        num_layers=2,
        num_heads=4,
        # Not 0: a method that forgets to switch dropout off is caught.
        dropout_rate=0.1,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config)
