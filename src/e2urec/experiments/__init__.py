"""From a recipe to models and figures."""
