"""How many positions a model has: the states of a longer prompt would lie past a table's end.

Most families compute positions of any number. Some look them up in a table, learned or not, and
fail where it ends.
"""

from typing import Any

from torch import nn

from ..core.errors import ModelError
from .batches import COLUMN_MULTIPLE

TABLES = ("wpe", "embed_positions", "position_embeddings", "positions_embed")
"""What families call their tables: GPT-2 and GPT-Neo, OPT and BART, BERT, GPT."""


def check_window(lm: Any, name: str, window: int) -> None:
    """Raise ModelError if the longest prompt, padded as in a batch, has more than all positions.

    Args:
        lm: the language model.
        name: of its backbone.
        window: longest prompt in tokens.
    """
    positions = position_count(lm)
    if positions is None:
        return
    longest = positions // COLUMN_MULTIPLE * COLUMN_MULTIPLE
    if window > longest:
        raise ModelError(
            f"model '{name}': has {positions} positions, and model.window is {window}; set it to "
            f"{longest} or less"
        )


def position_count(lm: Any) -> int | None:
    """Positions in the shortest table of `lm`; None: it has none, and computes them."""
    sizes = []
    for name, module in lm.named_modules():
        if isinstance(module, nn.Embedding) and _is_table(name):
            # OPT and BART leave the first rows of theirs unused.
            sizes.append(module.num_embeddings - getattr(module, "offset", 0))
    # GPT-J's sines are no module.
    sizes += [len(buffer) for name, buffer in lm.named_buffers() if _is_table(name)]
    # MPT makes a table of distances at each step, as long as its config says.
    if lm.config.model_type == "mpt":
        sizes.append(lm.config.max_seq_len)
    return min(sizes, default=None)


def _is_table(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in TABLES
