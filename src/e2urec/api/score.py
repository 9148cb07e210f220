"""Score prompts that somebody else wrote."""

from pathlib import Path

from ..data.prompts import read_prompts
from ..experiments.recipe import Recipe
from ..experiments.workspace import Workspace
from ..runs.folder import Run


def score(run: Run, examples: Path) -> list[float]:
    """P(like) of each line of a JSON-lines file, `{"prompt": "…"}`, in its order.

    Raises:
        DataError: a line is not an object with a prompt.
    """
    prompts = read_prompts(examples)
    recipe = Recipe.build(run.record.recipe, place=str(run.path))
    model = Workspace(recipe, record=run.record).load(run)
    # Elsewhere a prompt ends where the answer begins, which brings its own space.
    if not model.template.verbatim:
        prompts = [prompt.rstrip() for prompt in prompts]
    rows = model.encode_texts(prompts)
    return [float(probability) for probability in model.score(rows)]
