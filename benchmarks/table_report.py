"""The page of all tables, its picture, and the table of the README, from the cells alone.

    python benchmarks/table_report.py

Reads what `table_cells.py` wrote under `docs/results/`, and writes `docs/results.md`,
`docs/results.svg` and the README between `<!-- results -->` and `<!-- /results -->`. Nothing in
them is written by hand.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from common import option_parser
from e2urec.core.errors import E2URecError
from report_parts import MISSING, figure_text, markdown, put_into
from table_cells import FOLDER, OURS
from table_groups import (
    Cost,
    Group,
    Values,
    missing,
    read_groups,
    retraining_range,
    retraining_seconds,
)
from table_plot import draw

PAGE = Path("docs/results.md")
PICTURE = Path("docs/results.svg")
README = Path("README.md")
MARK = "results"

COLUMNS = {
    "M_auc": ("memory_auc", 2),
    "M_auc within users": ("memory_within", 2),
    "alignment": ("alignment_ratio", 2),
    "retained memory": ("retained_memory_share", 2),
    "test AUC − original's": ("utility_auc_difference", 3),
    "test AUC − retrained's": ("utility_auc_to_retrained", 3),
    "JS to retrained": ("distance_js_answers", 4),
}
"""Figures of the page: heading, name and decimals."""
MUCH_LONGER = 1.5
"""From so many times the seconds of the same work on, seconds are called unsure."""
TITLES = {
    "retrained-1": "retrained, first",
    "placebo-temperature": "placebo: softened",
    "placebo-retain": "placebo: tuned on D_r",
}
"""Models besides the methods that have a row."""

INTRODUCTION = """# The tables

All methods on the same rows, from the same originals, against the same retrained models, with
settings chosen by the same number of trials on users of no other request. This page, its picture
and the table of the README are made from the files in `docs/results/` by
`python benchmarks/table_report.py`; `python benchmarks/table_cells.py` made each of these files
from a finished comparison, and each has the settings that were chosen, all trials, and the command
of every row. [How a comparison works](how-to/compare-methods.md);
[what the measures say](concepts/measures.md).

M_auc is what is left of the memory of the forgotten rows: 0 as retrained, 1 as if nothing had been
done, below 0 beyond retraining. Intervals are 95%, over users. † marks methods that are exact by
construction; the sharded ones among them are another architecture, so that their distance to
retrained models is that, and no memory. Seconds are of one request with everything that it needs:
teachers, augmented models, and the preparation of methods that train originals of their own. ‡
marks what learns from out-of-fold scores, which are made once for an original: their seconds stand
above each table, and the share of a retraining is told with them, too, as if they were made for
this request alone. A retraining's seconds are the mean, with the shortest and the longest of the
same work in brackets.

The headroom is by how much a retrained model's AUC on D_f is below the original's. The smaller it
is, the less there was to forget, and the wider are M_auc's intervals.

*Against e2urec* tells only what holds on every seed that was measured: the paired difference on the
same rows has one sign on all of them, and none of its 95% intervals contains 0. Where it says "no
difference shown", either may be the better one. Nearer and farther are of |M_auc|; *retained
memory* below 1 is no loss of recommendations by itself. Of fewer than 15 users intervals are too
short, so that nothing is told there of |M_auc|."""
PICTURE_WORDS = (
    "Memory left against the change of the test AUC, a panel for each table: its first request, a "
    "point for each method and seed. Grey: |M_auc| up to 0.25. Hollow: exact methods."
)
README_WORDS = (
    "**All methods on the same rows** ([all figures, intervals and other requests]"
    "(docs/results.md)): one request of each table, means over the seeds measured so far. "
    "M_auc: 0 as retrained, 1 as if nothing had been done. † is exact by construction; ‡ needs "
    "out-of-fold scores as well, which are made once for an original. The headroom is what there "
    "was to forget: where it is small, M_auc is unsure. Seconds are left out where retrainings of "
    "the same work differ by more than half."
)

# --- the page


def page(groups: Sequence[Group]) -> str:
    """The whole page."""
    parts = [INTRODUCTION, missing(groups), f"![{PICTURE_WORDS}]({PICTURE.name})"]
    for table in dict.fromkeys(group.table for group in groups):
        own = [group for group in groups if group.table == table]
        parts.append(f"## {table}")
        parts.append("\n".join(dict.fromkeys(note for group in own for note in notes(group))))
        for group in own:
            parts += section(group)
    return "\n\n".join(parts) + "\n"


def section(group: Group) -> list[str]:
    """The part of one request."""
    rows = []
    for name in [*group.methods, *TITLES]:
        rows += [row(group, name, seed) for seed in group.models(name)]
    headings = [
        "method",
        "seed",
        *COLUMNS,
        "seconds",
        "of a retraining",
        "verdict",
        "against e2urec",
    ]
    used = [
        place
        for place, heading in enumerate(headings)
        if heading not in COLUMNS or any(cells[place] != MISSING for cells in rows)
    ]
    rows = [[cells[place] for place in used] for cells in rows]
    example = next((name for name in group.methods if name != OURS), OURS)
    return [
        f"### {group.table}: {group.first['request_words']}",
        "\n".join(facts(cell) for cell in group.cells.values()),
        "\n".join(markdown([headings[place] for place in used], rows)),
        f"One row again, here that of `{example}`; the cells have the command of every row:",
        f"```console\n$ {next(iter(group.models(example).values()))['repeat']}\n```",
    ]


def row(group: Group, name: str, seed: int) -> list[str]:
    """The line of a model and seed."""
    cell = group.cells[seed]
    model = cell["models"][name]
    figures = model["figures"]
    cost = Cost.of(cell, name)
    is_method = name in group.methods
    return [
        title(group, name),
        str(seed),
        *(figure_text(figures.get(key), digits) for key, digits in COLUMNS.values()),
        MISSING if cost is None else f"{cost.seconds:.1f}",
        MISSING if cost is None else share_text(cost.share, cost.whole_share),
        model["verdict"] or MISSING,
        group.against_ours(name) if is_method else MISSING,
    ]


def title(group: Group, name: str) -> str:
    """A model's name; exact methods and those that need out-of-fold scores are marked."""
    exact = "†" if group.is_exact(name) else ""
    scores = "‡" if any(cost.scores for cost in group.costs(name)) else ""
    return f"{TITLES.get(name, name)}{exact}{scores}"


def facts(cell: Values) -> str:
    """What a seed's rows are, and what there was to forget."""
    rows = cell["rows"]
    scores = cell["models"]["original"]["cost"]["seconds"].get("scores")
    parts = [
        f"{rows['forget']:,} rows of {rows['forgotten_users']:,} users forgotten",
        f"{rows['test']:,} test rows",
        f"headroom {figure_text(cell['figures'].get('headroom_auc'), 3)}",
        f"test AUC of the original {figure_text(original_auc(cell), 3)}",
        f"of the control {cell['control_test_auc']:.3f}",
        retraining_text(cell),
    ]
    if scores is not None:
        parts.append(f"out-of-fold scores {scores:.1f} s, once for all requests")
    if cell["request"]["pick"] != "random":
        parts.append(f"users picked by the original of seed {cell['first_seed']}")
    jobs = max(model["cost"]["jobs"] for model in cell["models"].values())
    if jobs > 1:
        parts.append(f"made by up to {jobs} jobs at once, so that seconds cannot be compared")
    failed = "".join(f" {name} failed ({why})." for name, why in cell["failed"].items())
    return f"- Seed {cell['seed']}: {', '.join(parts)}.{failed}"


def retraining_text(cell: Values) -> str:
    """How long a retraining took, and between what times the same work was done."""
    shortest, longest = retraining_range(cell)
    seconds = f"{retraining_seconds(cell):.1f} s ({shortest:.1f} to {longest:.1f} s)"
    why = " beside other work, so that no second here says much" if is_of_busy(cell) else ""
    return f"a retraining {seconds}{why}"


def is_of_busy(cell: Values) -> bool:
    """Whether the machine had so much else to do that seconds cannot be compared."""
    shortest, longest = retraining_range(cell)
    return longest > MUCH_LONGER * shortest


def original_auc(cell: Values) -> Values:
    """Test AUC of the original."""
    figure: Values = cell["models"]["original"]["figures"]["utility_auc"]
    return figure


def notes(group: Group) -> list[str]:
    """Where, with what and how long the comparisons of a table ran."""
    lines = []
    for cell in group.cells.values():
        where = "; ".join(cell["machines"]) or "a machine that was not noted"
        hours = "an unknown time" if cell["hours"] is None else f"{cell['hours']:.1f} h"
        versions = ", ".join(f"{name} {text}" for name, text in cell["versions"].items())
        settings = "settings as given"
        if cell["recipe"]["compare"]["trials"] > 1:
            settings = f"settings chosen on seed {cell['first_seed']}"
        lines.append(f"- `{cell['command']}`: {hours} on {where}, with {versions}; {settings}.")
    return lines


# --- the README


def short_table(groups: Sequence[Group]) -> str:
    """The first request of each table, means over its seeds."""
    by_table: dict[str, Group] = {}
    for group in groups:
        by_table.setdefault(group.table, group)
    # Where there is most to forget, figures are surest.
    firsts = dict(sorted(by_table.items(), key=lambda item: -mean_headroom(item[1])))
    methods = dict.fromkeys(name for group in firsts.values() for name in group.methods)
    headings = ["method"]
    for table, group in firsts.items():
        name = table.removeprefix("table-")
        headings += [
            f"{name}, {group.first['request_words']} (headroom {mean_headroom(group):.3f}): M_auc",
            "test AUC change",
            "of a retraining",
        ]
    rows = []
    for name in methods:
        cells = [next(title(group, name) for group in firsts.values() if name in group.methods)]
        for group in firsts.values():
            cells.append(mean_text(group.values(name, "memory_auc"), ".2f"))
            cells.append(mean_text(group.values(name, "utility_auc_difference"), "+z.3f"))
            is_busy = any(is_of_busy(cell) for cell in group.cells.values())
            cells.append(MISSING if is_busy else mean_share_text(group.costs(name)))
        rows.append(cells)
    return "\n".join([README_WORDS, "", *markdown(headings, rows)])


def mean_headroom(group: Group) -> float:
    """How much of the AUC is memory, in the mean over seeds."""
    return float(mean(cell["figures"]["headroom_auc"]["value"] for cell in group.cells.values()))


def share_text(share: float, whole_share: float) -> str:
    """A share of a retraining, and what it is with out-of-fold scores where they are needed."""
    if share == whole_share:
        return f"{share:.1%}"
    return f"{share:.1%} (with scores {whole_share:.1%})"


def mean_share_text(costs: Sequence[Cost]) -> str:
    """The same in the mean over seeds."""
    if not costs:
        return MISSING
    return share_text(mean(cost.share for cost in costs), mean(cost.whole_share for cost in costs))


def mean_text(values: Sequence[float], form: str) -> str:
    """The mean, or a dash."""
    return f"{mean(values):{form}}" if values else MISSING


# --- the command line


def options(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    parser.add_argument("--cells", type=Path, default=FOLDER, help="folder of all cells")
    parser.add_argument("--page", type=Path, default=PAGE, help="the picture lies beside it")
    parser.add_argument("--readme", type=Path, default=README, help="Markdown with the marks")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Read the arguments; write page, picture and README."""
    arguments = options(words)
    try:
        groups = read_groups(arguments.cells)
        text = page(groups)
        # First, as it may be refused: nothing is written then.
        put_into(arguments.readme, {MARK: short_table(groups)})
    except E2URecError as error:
        raise SystemExit(f"error: {error}") from error
    arguments.page.write_text(text, encoding="utf-8")
    picture = arguments.page.with_name(PICTURE.name)
    picture.write_text(draw(groups), encoding="utf-8")
    print(f"wrote {arguments.page}, {picture} and a table into {arguments.readme}")


if __name__ == "__main__":
    main()
