"""A recommender that somebody made without e2urec."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import foreign_models as foreign


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, a base, an adapter of it, and what its makers' own code says of the rows."""
    folder = tmp_path_factory.mktemp("made elsewhere")
    rows, _ = foreign.write_rows(folder)
    base = foreign.write_base(folder / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    lm = AutoModelForCausalLM.from_pretrained(base)
    adapted = foreign.tune_adapter(lm, tokenizer, rows, folder / "adapter")
    scores = foreign.score(adapted, tokenizer, foreign.prompts_of(rows))
    np.save(folder / "scores.npy", np.array(scores))
    (folder / "form.j2").write_text(foreign.FORM, encoding="utf-8")
    return folder
