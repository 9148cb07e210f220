"""The documentation is true of the code: generated pages, commands, recipes, links, figures."""

import inspect
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

import e2urec
from docs_scripts import DOCS, script
from e2urec.cli.app import app
from e2urec.data import sources
from e2urec.data.sources.files import Files
from e2urec.evaluation.measures import all_measures
from e2urec.experiments.recipe import Recipe, parse_settings
from e2urec.methods import build, suited_preset
from e2urec.runs.record import FORMAT, RunRecord

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
WRITTEN_ANEW = "run: python docs/generate.py"

GENERATED = script("generate").pages()


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of `page` in `language`."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def commands() -> list[tuple[str, str]]:
    """Page and line of every e2urec command that a reader is told to type."""
    lines = [
        (page.name, line.removeprefix("$ "))
        for page in PAGES
        for block in blocks(page, "console")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [(page, line) for page, line in lines if re.search(r"^e2urec |-m e2urec ", line)]


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_reference_pages_say_what_the_code_says(path):
    assert path.read_text(encoding="utf-8") == GENERATED[path], WRITTEN_ANEW


def test_every_command_is_on_the_page_of_commands():
    group = typer.main.get_command(app)
    page = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## `e2urec (.*)`$", page, re.M)) == set(group.commands)


def test_every_option_on_the_page_of_commands_is_one_of_the_command():
    group = typer.main.get_command(app)
    page = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    _, *sections = re.split(r"^## `e2urec (.*)`$", page, flags=re.M)
    for name, section in zip(sections[::2], sections[1::2], strict=True):
        options = {
            option
            for parameter in group.commands[name].params
            for option in parameter.opts
            if option.startswith("--")
        }
        listed = set(re.findall(r"^\| `(--[a-z-]+)`", section, re.M))
        assert listed == options - {"--help"}, name


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda value: value[:60])
def test_commands_in_the_pages_exist_and_take_these_options(page, line):
    words = shlex.split(line)
    launched = [k for k, word in enumerate(words) if word == "e2urec" and words[k - 1] == "-m"]
    start = launched[-1] if launched else 0
    name, *arguments = words[start + 1 :]
    command = typer.main.get_command(app).commands[name]
    given = command.make_context(name, list(arguments)).params
    settings = given.get("settings") or []
    if name == "unlearn":
        values = parse_settings(settings)
        suited = suited_preset(given["method"], values, has_scores=False)
        build(given["method"], values, given["preset"] or suited)
    else:
        Recipe().updated(settings)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_recipes_in_the_pages_can_be_read(page):
    for block in blocks(page, "toml"):
        values = tomllib.loads(block)
        if "project" in values:  # an entry point of somebody else's package
            continue
        recipe = Recipe.build(values, place=page.name)
        if recipe.data.options:
            source = sources.recognise(Files(recipe.data.source, recipe.data.limit))
            source.configure(recipe.data.options)


def test_tutorial_shows_its_recipe_as_it_is():
    (shown,) = blocks(DOCS / "tutorial.md", "toml")
    recipe = (ROOT / "recipes" / "tutorial.toml").read_text(encoding="utf-8")
    assert recipe.split("\n", 1)[1] == shown, "all but the first line, a comment"


def test_outputs_of_the_tutorial_are_put_below_their_commands():
    page = "```console\n$ a \\\n    --b\n```\n\n<!-- output: two | four -->\n```text\nold\n```\n"
    lines = []

    def answer(block):
        lines.extend(block)
        return "one\ntwo\nthree\nfour\n"

    filled = script("run_tutorial").filled(page, answer)
    assert lines == ["a      --b"]
    assert filled == page.replace("old", "two\nthree")


@pytest.mark.parametrize("marks", ["", ": two", ": two | four", ": | four"])
def test_output_of_a_command_that_prints_nothing_is_empty_and_can_be_filled_again(marks):
    page = f"```console\n$ a\n```\n\n<!-- output{marks} -->\n```text\ntwo\n```\n"
    module = script("run_tutorial")
    empty = module.filled(page, lambda block: "")
    assert empty == page.replace("two\n```", "```")
    assert module.filled(empty, lambda block: "two\n") == page


@pytest.mark.parametrize("page", ["tutorial.md", "how-to/import-walk.md"])
def test_page_shows_an_output_wherever_it_announces_one(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    outputs = re.findall(r"<!-- output.*? -->\n```text\n(.*?)```", text, re.S)
    assert len(outputs) == text.count("<!-- output")
    assert outputs
    assert all(outputs)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\((?!http)([^)#\s]+)", text):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_of_the_repository_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"\b(?:src|benchmarks|recipes|tests)/[\w./-]*\w\.(?:py|toml)", text):
        assert (ROOT / path).is_file(), path


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"([\w/-]+\.md)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_every_public_name_says_what_it_is():
    for name in e2urec.__all__:
        value = getattr(e2urec, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        assert inspect.getdoc(value), name
        members = vars(value) if inspect.isclass(value) else {}
        # A default of a field may be a function; the docstring of the class says what it is.
        fields = members.get("__dataclass_fields__", {})
        for member, function in members.items():
            if inspect.isfunction(function) and not member.startswith("_") and member not in fields:
                assert inspect.getdoc(function), f"{name}.{member}"


def test_page_of_measures_has_every_measure_with_its_columns():
    page = (DOCS / "concepts" / "measures.md").read_text(encoding="utf-8")
    section = page.split("## Names in the results")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|", section, re.M))
    assert list(rows) == [measure.name for measure in all_measures()]
    for measure in all_measures():
        # Where columns are another measure's, the page says so.
        columns = rows.get(rows[measure.name].removeprefix("as ").strip("`"), rows[measure.name])
        assert re.findall(r"`(\w+)`", columns) == [column.key for column in measure.columns]


def test_page_of_run_folders_has_every_key_of_a_record():
    page = (DOCS / "reference" / "run-folder.md").read_text(encoding="utf-8")
    section = page.split("## `run.json`")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) == set(RunRecord.model_fields)
    assert f"the number of this layout, {FORMAT};" in section


def test_picture_of_the_result_is_drawn_from_its_figures():
    report = json.loads((DOCS / "figures.json").read_text(encoding="utf-8"))
    drawing = script("draw_result").draw(report)
    picture = (DOCS / "assets" / "result.svg").read_text(encoding="utf-8")
    assert picture == drawing, "run: python docs/draw_result.py"


def test_readme_says_the_picture_in_words():
    report = json.loads((DOCS / "figures.json").read_text(encoding="utf-8"))
    words = script("draw_result").in_words(report)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f'alt="{words}"' in readme, "run: python docs/draw_result.py"


def test_figures_of_the_picture_were_measured():
    report = json.loads((DOCS / "figures.json").read_text(encoding="utf-8"))
    page = (DOCS / "evidence" / "performance.md").read_text(encoding="utf-8")
    assert "python benchmarks/unlearning.py --original RUN --retrained RUN --retrained RUN" in page
    for panel in script("draw_result").panels_of(report):
        for text in panel.texts.values():
            # The ends of the scale of M_auc are so by definition.
            assert text in ("–", "0", "1") or text in page, text
        for low, high in panel.intervals.values():
            assert f"[{low:.2f}, {high:.2f}]" in page


def benchmark_report(**variants: float) -> dict[str, object]:
    """What benchmarks/unlearning.py prints of these variants, with so many seconds each."""
    quality = {"original": {"auc": {"value": 0.66}}}
    for name, seconds in variants.items():
        memory = {"value": seconds / 1000, "low": 0.0, "high": 0.5}
        quality[name] = {"memory_auc": memory, "auc": {"value": 0.65}}
    records = {
        f"{name}, 20%": {"seconds": {}, "total": seconds, "bytes": seconds * 1e6}
        for name, seconds in variants.items()
    }
    return {"headline": {}, "variants": records, "quality": quality}


def test_picture_is_drawn_from_what_the_benchmark_prints_with_the_released_passes():
    drawing = script("draw_result")
    report = benchmark_report(
        published=166.0, published_two_passes=1396.0, default=33.0, retrain=192.0
    )
    memory, utility, seconds, megabytes = drawing.panels_of(report)
    names = ["nothing done", "published algorithm", "e2urec", "retrained"]
    assert list(utility.texts) == names
    assert dict(memory.texts) == dict(zip(names, ["1", "0.17", "0.03", "0"], strict=True))
    assert memory.intervals == {"published algorithm": (0.0, 0.5), "e2urec": (0.0, 0.5)}
    assert utility.texts["nothing done"] == "0.660"
    assert list(seconds.texts.values()) == ["–", "166", "33", "192"]
    assert seconds.ends == (0.0, 192.0)
    assert megabytes.texts["e2urec"] == "33"
    assert drawing.draw(report).count("published algorithm</text>") == 4


def test_picture_names_two_joint_passes_where_the_released_ones_were_not_measured():
    drawing = script("draw_result")
    report = benchmark_report(published_two_passes=1396.0, default=33.0, retrain=192.0)
    assert "published (2 joint) 1,396" in drawing.in_words(report)
    assert "published algorithm" not in drawing.draw(report)
