"""The user's own templates: fields are shown, everything else is refused in one line."""

import numpy as np
import polars as pl
import pytest

from e2urec.core.errors import DataError
from e2urec.data.interactions import Interactions
from e2urec.data.samples import Samples
from e2urec.data.templating import JinjaTemplate, find_template
from e2urec.models.recommender import Recommender
from e2urec.testing import toy_backbone

GOOD = """Reader of {{ user.age|default('unknown') }}:
{% for past in history %}
- {{ past.title }} by {{ past.author }}: {{ past.rating }} stars
{% endfor %}
{{ liked|length }} liked. Would they like {{ item.title|upper }} by {{ item.author }}?
"""


def samples() -> Samples:
    ratings = pl.DataFrame(
        {"user": ["x"] * 3, "item": [1, 2, 3], "rating": [5.0, 2.0, 4.5], "time": [1, 2, 3]}
    )
    items = pl.DataFrame(
        {"item": [1, 2, 3], "title": ["A", "B", "C"], "author": ["Ann", None, "Bo"]}
    )
    users = pl.DataFrame({"user": ["x"], "age": ["33"]})
    return Samples(Interactions.from_tables(ratings, items, users, place="t"), np.array([2]), 5)


def test_template_shows_history_user_and_target_with_details():
    (prompt,) = JinjaTemplate("own.j2", GOOD).render(samples())
    assert prompt == (
        "Reader of 33:\n- A by Ann: 5 stars\n- B by : 2 stars\n1 liked. Would they like C by Bo?"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{{ movie.title }}",
            "has unknown field 'movie'; it may show user, history, liked, disliked, item",
        ),
        ("{{ item.titel }}", "unknown field 'titel'; there are author, title"),
        ("{{ item.rating }}", "unknown field 'rating'"),
        ("{{ user.name }}", "unknown field 'name'; there are age"),
        ("{{ item.title", "line 1: unexpected end"),
        ("{{ item.title.format(item) }}", "line 1: Call may not stand"),
        ("{{ ''.__class__.__mro__ }}", "unknown field '__class__' of what has no fields"),
        ("{{ item.__init__ }}", "unknown field '__init__'; there are author, title"),
        ("{% include '/etc/passwd' %}", "Include may not stand"),
        ("{% import 'os' as os %}{{ os }}", "Import may not stand"),
        ("{{ 'a' * 10000000000 }}", "operator * is for numbers up to 1e+09 alone"),
        ("{{ 9 ** 9 ** 9 }}", "Pow may not stand"),
        ("{{ item.title|center(100000000) }}", "No filter named 'center'"),
        ("{% for k in range(9) %}{{ k }}{% endfor %}", "Call may not stand"),
        ("{{ item.title.upper }}", "unknown field 'upper' of what has no fields"),
        ("{{ item.keys }}", "unknown field 'keys'; there are author, title"),
        ("{{ item['titel'] }}", "unknown field 'titel'"),
        ("{{ 9e999|int }}", "line 1: a number is too large"),
        ("{{ liked|map }}", "No filter named 'map'. There are capitalize, default"),
        ("{% set s = item.title|join(item.title) %}{{ s }}", "join is for lists alone"),
        ("{% set s = [item.title * 2] %}{{ s|join }}", "operator * is for numbers"),
        ("{{ history|join }}", "shows what is neither text nor a number"),
        ("{{ liked }}", "shows what is neither text nor a number"),
        ("{{ self }}", "shows what is neither text nor a number"),
        ("{% macro m() %}{% endmacro %}{{ m }}", "Macro may not stand"),
        ("{% set x = item.title ~ item.title %}{{ x }}", "Concat may not stand"),
        ("{% set x = item.title + item.title %}{{ x }}", "operator + is for numbers"),
        ("{% set x = 99999 * 99999 %}{{ x * 2 }}", "operator * is for numbers up to 1e+09 alone"),
        (
            "{% for a in history %}{% for b in history %}{% for c in history %}"
            "{% endfor %}{% endfor %}{% endfor %}",
            "a loop in a loop of a loop may not stand",
        ),
        ("{# nothing #}", "makes an empty prompt"),
        ("{{ history[9].title }}", "has no element 9"),
    ],
)
def test_template_that_names_what_is_not_there_or_runs_code_is_refused(source, message):
    with pytest.raises(DataError, match=r"template 'own\.j2'") as error:
        JinjaTemplate("own.j2", source).render(samples())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_known_has_a_default_and_rounding_is_bounded():
    source = (
        "{{ history[1].author|default('anonymous') }}, {{ 4.5|round(3000000) }} {{ item.title }}"
    )
    (prompt,) = JinjaTemplate("own.j2", source).render(samples())
    assert prompt == "anonymous, 4.5 C"
    for source, text in (
        ("{{ item.genre|default('-') }} {{ user.age|default('?', true) }}", "- 33"),
        ("{% if item.genre is defined %}!{% else %}none{% endif %} {{ item['title'] }}", "none C"),
        ("{{ history|join('; ', attribute='title') }}", "A; B"),
        (
            "{% for past in history[-1:] %}{{ loop.index }}{{ past.title }}{{ loop.last }}"
            "{% endfor %}",
            "1BTrue",
        ),
    ):
        assert JinjaTemplate("own.j2", source).render(samples()) == [text]


def test_template_comes_from_its_file_and_goes_with_its_model(tmp_path):
    (tmp_path / "own.j2").write_text(GOOD, encoding="utf-8")
    model = Recommender(toy_backbone("causal"), find_template(str(tmp_path / "own.j2")))
    scores = model.score(samples())
    model.save(tmp_path / "model")
    (tmp_path / "own.j2").unlink()
    assert Recommender.load(tmp_path / "model").score(samples()) == pytest.approx(scores, abs=1e-6)
    with pytest.raises(DataError, match="cannot be read"):
        find_template(str(tmp_path / "own.j2"))
    with pytest.raises(DataError, match="did you mean 'paper'"):
        find_template("papier")
