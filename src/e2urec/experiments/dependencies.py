"""What a result depends on beside its recipe, by content: a name may come to mean another."""

from typing import Any

from ..data.templating import JinjaTemplate
from .workspace import Workspace


def dependencies(space: Workspace) -> dict[str, Any]:
    """Recipe, data, base and template of a model that is yet to be trained, as JSON."""
    # Loaded first, so that its files are there.
    space.untuned()
    template = space.template
    return {
        "recipe": space.recipe.model_dump(mode="json"),
        "data": space.data.fingerprint(),
        "base": space.base_record().files,
        "template": template.source if isinstance(template, JinjaTemplate) else template.name,
    }
