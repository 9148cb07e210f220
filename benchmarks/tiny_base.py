"""Make a base that is small enough to tune by the dozen and can recommend: a tiny Llama, tuned on other users.

`python benchmarks/tiny_base.py --out FOLDER` writes it as a Hugging Face model. It is tuned on MovieLens-100K's
training rows of all users whom `tiny.toml` leaves out, so it never saw a user of an experiment with that recipe.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace, read_source
from e2urec.models.recommender import Recommender
from e2urec.training.loop import Phase, Schedule
from e2urec.training.supervised import Tuning, tune

RECIPE = Path(__file__).with_name("tiny.toml")
PRETRAINING = Schedule(epochs=3, learning_rate=2e-3, batch_size=32)


def tiny_model(folder: Path, titles: list[str]) -> None:
    """Write a random two-block Llama of 64 dimensions, and a tokenizer of 3,000 pieces made from the titles."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    prompts = (
        f"Liked: {title}. Disliked: none. Will the user like {title}? Yes No" for title in titles
    )
    tokenizer.train_from_iterator(prompts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def write_base(recipe: Recipe, folder: Path) -> None:
    """Write the base of `recipe` into `folder`, tuned on everybody whom the recipe leaves out."""
    with tempfile.TemporaryDirectory() as scratch:
        tiny_model(Path(scratch), read_source(recipe.data).titles)
        space = Workspace(recipe.updated([f"model.name={scratch}"]))
        others = Workspace(
            space.recipe.updated(["data.rows=none", "data.per_user=none"])
        ).split.train
        rows = space.encode(others.take(~np.isin(others.users, space.split.train.users)))
        untuned = Recommender(space.base, space.template)
        phase = Phase("original", recipe.seed)
        model, _ = tune(untuned, Tuning(schedule=PRETRAINING), rows, None, phase)
        model.lm.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    write_base(Recipe.load(RECIPE), parser.parse_args().out)


if __name__ == "__main__":
    main()
