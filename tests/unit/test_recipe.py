from pathlib import Path

import pytest

from e2urec.core.errors import ConfigError
from e2urec.experiments.recipe import Recipe, method_of, parse_settings

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_of_the_repository_loads_and_its_method_builds(path):
    assert method_of(Recipe.load(path))


def test_recipe_round_trips_as_json():
    recipe = Recipe.build({"tuning": {"lora": {"rank": 4}}, "data": {"rows": 10}}, place="here")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"data": {"hstory": 3}},
            r"here: \[data\] has unknown key 'hstory'; did you mean 'history'",
        ),
        ({"dta": {}}, "here: has unknown key 'dta'; did you mean 'data'"),
        (
            {"tuning": {"lora": {"ranc": 3}}},
            r"here: \[tuning.lora\] has unknown key 'ranc'; did you mean 'rank'",
        ),
        (
            {"tuning": {"lora": {"rank": 10**6}}},
            "here: tuning.lora.rank = 1000000: input should be less",
        ),
        ({"data": {"history": 0}}, "here: data.history = 0: input should be greater"),
        ({"data": {"history": 10**30}}, "here: data.history = 10+: input should be less"),
        ({"request": {"ratio": 2}}, "here: request.ratio = 2"),
        ({"seed": "x"}, "here: seed = 'x'"),
    ],
)
def test_wrong_key_or_value_is_named_with_its_place(values, message):
    with pytest.raises(ConfigError, match=message):
        Recipe.build(values, place="here")


def test_settings_reach_nested_and_optional_parts():
    found = Recipe().updated(
        [
            "data.rows=30",
            "tuning.lora.rank=4",
            "method.alpha=2.5",
            "model.name=x/y",
            "data.rows=none",
        ]
    )
    assert found.data.rows is None
    assert found.tuning.lora is not None
    assert found.tuning.lora.rank == 4
    assert found.method.settings == {"alpha": 2.5}
    assert found.model.name == "x/y"
    assert parse_settings(["a=1", "lora.rank=2", "b=text"]) == {
        "a": 1,
        "lora": {"rank": 2},
        "b": "text",
    }


@pytest.mark.parametrize("setting", ["data.rows", "nothing.rows=3"])
def test_setting_that_leads_nowhere_is_refused(setting):
    with pytest.raises(ConfigError, match=f"--set {setting}"):
        Recipe().updated([setting])


def test_file_that_is_no_toml_is_refused(tmp_path):
    (tmp_path / "r.toml").write_text("[data\n")
    with pytest.raises(ConfigError, match=r"r\.toml"):
        Recipe.load(tmp_path / "r.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        Recipe.load(tmp_path / "none.toml")
