"""Score prompts that somebody else wrote."""


def score(run: Run, examples: Path) -> list[float]:
    """P(like) of each line of a JSON-lines file, `{"prompt": "…"}`, in its order.

    Raises:
        DataError: a line is not an object with a prompt.
    """
    prompts = read_prompts(examples)
    space = Workspace(Recipe.build(run.record.recipe, place=str(run.path)))
    model = space.load(run)
    return [float(probability) for probability in model.score(model.encode_texts(prompts))]
