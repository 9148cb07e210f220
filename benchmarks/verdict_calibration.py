"""How often the verdict errs: judge models of which the truth is known, on MovieLens-100K and a tiny Llama.

Further retrained models have forgotten: none may FAIL, most should PASS. Further originals have not: none may PASS.
Both are judged by retrained models and, as in production, by shadows and unseen users alone. Prints a JSON object after
each model judged; the last one counts.

The base can recommend before it sees a user of the experiment: it was tuned on everybody else's rows. So test AUC
differs little from seed to seed, as it does for a large language model, and what the verdict is asked about is memory.
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from e2urec.evaluation.evaluate import Answers, evaluate
from e2urec.models.backbone import Backbone
from e2urec.pipeline import Workspace, outsiders_of, read_source
from e2urec.recipe import Recipe
from e2urec.seeding import derive
from e2urec.training import Schedule
from e2urec.tuning import Tuning, tune

RECIPE: dict[str, Any] = {
    "data": {"history": 2, "rows": 6000, "per_user": 60, "test_rows": 10000, "held_rows": 1500},
    "tuning": {"schedule": {"epochs": 4, "learning_rate": 1e-3, "batch_size": 32}},
}
PRETRAINING = Schedule(epochs=3, learning_rate=2e-3, batch_size=32)


def tiny_model(folder: Path, titles: list[str]) -> None:
    """Write a random two-block Llama of 64 dimensions, and a tokenizer of 3,000 pieces made from the titles."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=3000, special_tokens=["<pad>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    prompts = (f"Liked: {title}. Disliked: none. Will the user like {title}? Yes No" for title in titles)
    tokenizer.train_from_iterator(prompts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def pretrained(space: Workspace) -> Backbone:
    """The base, tuned on the training rows of all users whom `space` leaves out."""
    others = Workspace(space.recipe.updated(["data.rows=none", "data.per_user=none"])).split.train
    rows = space.encode(others.take(~np.isin(others.users, space.split.train.users)))
    model, _ = tune(space.base, space.template, Tuning(schedule=PRETRAINING), rows, None, seed=space.recipe.seed)
    return Backbone(model.lm, space.base.tokenizer, space.base.name)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=20, help="models of either kind to judge")
    parser.add_argument("--references", type=int, default=5, help="retrained models that are R")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the recipe")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tiny_model(Path(folder), read_source("movielens-100k").titles)
        recipe = Recipe.build(RECIPE, place="calibration").updated([f"model.name={folder}", *asked.set])
        calibrate(recipe, asked.models, asked.references)


def calibrate(recipe: Recipe, models: int, references: int) -> None:
    """Train `references` models that are R, then judge `models` of either kind."""
    space = Workspace(recipe)
    rows = space.rows(space.resolve(space.request()))
    sets, train = rows.evaluation, space.encode(space.split.train)
    space.base = pretrained(space)

    def answers(forgotten: bool, number: int) -> Answers:
        data = rows.retain if forgotten else train
        seed = derive(recipe.seed, "calibration", "retrained" if forgotten else "original", number)
        model, _ = tune(space.base, space.template, recipe.tuning, data, None, window=recipe.model.window, seed=seed)
        return sets.ask(model, precision=recipe.tuning.schedule.precision)

    original = answers(False, 0)
    retrained = [answers(True, k) for k in range(references)]
    outside = outsiders_of(space, rows)
    told: dict[str, Any] = {"rows": rows.counts()}
    for kind in ("retrained", "original"):
        verdicts: dict[str, list[str]] = {"retrained": [], "shadows": []}
        memory, drops = [], []
        for k in range(models):
            judged = {"judged": answers(kind == "retrained", 100 + k)}
            for basis, against in (("retrained", retrained), ("shadows", [])):
                found = evaluate(original, against, judged, seed=recipe.seed, outside=outside, margins=recipe.margins)
                verdict = found.verdict["judged"]
                verdicts[basis].append(verdict.outcome)
                if against:
                    memory.append([verdict.memory.value, verdict.memory.low, verdict.memory.high])
                    drops.append([verdict.auc_drop.value, verdict.auc_drop.high])
                    told["headroom"] = found.headroom["auc"].as_dict()
            told[kind] = {basis: _counted(each) for basis, each in verdicts.items()}
            same = sum(a == b for a, b in zip(*verdicts.values(), strict=True))
            told[kind]["agreement"] = _share(same, k + 1)
            told[kind]["memory"], told[kind]["auc_drop"] = memory, drops
            print(json.dumps(told), flush=True)


def _counted(verdicts: list[str]) -> dict[str, Any]:
    return {outcome: _share(count, len(verdicts)) for outcome, count in Counter(verdicts).items()}


def _share(count: int, of: int) -> list[float]:
    """The count, its share of `of`, and Clopper–Pearson 95% limits."""
    limits = binomtest(count, of).proportion_ci(method="exact")
    return [count, count / of, limits.low, limits.high]


if __name__ == "__main__":
    main()
