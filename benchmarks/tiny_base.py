"""Make a base that is small enough to tune by the dozen and can recommend: a tiny Llama.

    python benchmarks/tiny_base.py --out FOLDER [--recipe recipes/table-goodreads-tiny.toml]

It is written as a Hugging Face model, and was tuned on the training rows of all users whom the
recipe leaves out; without `--recipe` those are MovieLens-100K's and `tiny.toml`'s. So it never saw
a user of an experiment with that recipe.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from common import option_parser
from e2urec.data.prompts import Catalogue
from e2urec.data.samples import Samples
from e2urec.experiments.packaged import read_source
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.training.loop import Phase, Schedule
from e2urec.training.supervised import Tuning, tune

RECIPE = Path(__file__).with_name("tiny.toml")
PRETRAINING = Schedule(epochs=3, learning_rate=2e-3, batch_size=32)
# Enough pieces for the titles of 1,682 films without one of them being spelt letter by letter.
VOCABULARY_SIZE = 3000


def write_base(recipe: Recipe, folder: Path) -> None:
    """Write the base of `recipe` into `folder`, tuned on everybody whom the recipe leaves out."""
    with tempfile.TemporaryDirectory() as scratch:
        items = Catalogue.of(read_source(recipe.data, recipe.columns)).labels()
        write_random_model(Path(scratch), items)
        space = Workspace(recipe.updated([f"model.name={scratch}"]))
        rows = space.encode(other_users_rows(space))
        phase = Phase("original", recipe.seed)
        # No validation rows: the last epoch counts, as nothing is chosen here.
        model, _ = tune(space.untuned(), Tuning(schedule=PRETRAINING), rows, None, phase)
        model.lm.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)


def write_random_model(folder: Path, items: Sequence[str]) -> None:
    """Write a random two-block Llama of 64 dimensions, and a tokenizer made from items' text."""
    tokenizer = train_tokenizer(items)
    # Transformers draws the weights from the global generator.
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
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
    tokenizer.save_pretrained(folder)


def train_tokenizer(items: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that knows the items and the words of the compact prompt."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    prompts = [
        f"Liked: {item}. Disliked: none. Will the user like {item}? Yes No" for item in items
    ]
    tokenizer.train_from_iterator(prompts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def other_users_rows(space: Workspace) -> Samples:
    """The training rows of all users of whom the recipe uses none."""
    everybody = space.recipe.updated(["data.rows=none", "data.per_user=none"])
    rows = Workspace(everybody).split.train
    used = np.isin(rows.users, space.split.train.users)
    return rows.take(~used)


def main() -> None:
    """Read the arguments; write the base."""
    parser = option_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="whose users are left out")
    arguments = parser.parse_args()
    write_base(Recipe.load(arguments.recipe), arguments.out)


if __name__ == "__main__":
    main()
