"""Inputs that no command can use, made from seeds: tables, settings, recipes, requests, prompts."""

import gzip
import io
import json
import random
import typing
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from pydantic import BaseModel

from e2urec.experiments.recipe import Recipe
from e2urec.methods import all_methods

HEADER = ["user", "item", "title", "rating", "time"]
DEEP = 20_000
"""Brackets one inside another: more than any parser's recursion bears."""


@dataclass(frozen=True)
class Case:
    """A command that must be refused.

    Attributes:
        name: what is wrong.
        words: of the command line; `{folder}`, `{data}`, `{model}` and `{run}` are filled in.
        files: name in the case's folder → bytes.
        may_pass: the input is odd, and a command may as well be able to use it.
    """

    name: str
    words: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    may_pass: bool = False

    def command(self, **places: Path) -> list[str]:
        """The words with the places filled in."""
        words = []
        for word in self.words:
            # Not str.format: settings hold braces of their own.
            for name, path in places.items():
                word = word.replace("{" + name + "}", str(path))
            words.append(word)
        return words


def cases() -> list[Case]:
    """All of them, in an order that is always the same."""
    return [
        *_cells(),
        *_tables(),
        *_archives(),
        *_settings(),
        *_recipes(),
        *_early(),
        *_methods(),
        *_requests(),
        *_prompts(),
        *_places(),
        *_mutations(),
    ]


# --- tables


def _rows(users: int = 12, rows: int = 14, *, rating: object = None) -> list[list[object]]:
    source = random.Random(0)
    return [
        [f"u{user}", item, f"Movie {item}", rating or source.randint(1, 5), 1000 + 7 * number]
        for user in range(users)
        for number, item in enumerate(source.sample(range(40), rows))
    ]


def _csv(rows: list[list[object]], header: list[str] = HEADER) -> bytes:
    lines = [",".join(map(str, row)) for row in [header, *rows]]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def _json_lines(rows: list[list[object]]) -> bytes:
    lines = [json.dumps(dict(zip(HEADER, row, strict=True))) for row in rows]
    return "\n".join(lines).encode()


def _train(source: str, *settings: str) -> tuple[str, ...]:
    words = ["train", "--data", source, "--model", "{model}", "--out", "{folder}/out"]
    for setting in ("data.history=3", "tuning.schedule.epochs=1", "scores.pairs=0", *settings):
        words += ["--set", setting]
    return tuple(words)


def _cells() -> Iterator[Case]:
    """One cell of a table that cannot be used, in each format."""
    bad = {
        "rating": ["", "x", "nan", "inf", "-1", "6", "1e999", "9" * 400, "½", "4,5", "0x4", "[4]"],
        "time": ["", "x", "nan", "inf", "-1", "1e30", "9" * 400, "9" * 19, "2999-01-01", "25:61"],
        "user": ["", " ", "\t"],
        "item": ["", " ", "\t"],
        "title": ["", "  "],
    }
    for column, values in bad.items():
        for value in values:
            rows = _rows()
            rows[60][HEADER.index(column)] = f'"{value}"'
            text = value[:9]
            yield Case(f"csv {column} {text!r}", _train("{folder}/r.csv"), {"r.csv": _csv(rows)})
            rows[60][HEADER.index(column)] = value
            data = _json_lines(rows)
            yield Case(f"jsonl {column} {text!r}", _train("{folder}/r.jsonl"), {"r.jsonl": data})
    for name, value in {
        "object": {"a": 1},
        "huge number": 10**5000,
        "inexact number": 1e300,
        "half a letter": "\ud800",
        "infinity": float("inf"),
        "list of objects": [{}],
    }.items():
        for column in HEADER:
            rows = _rows()
            rows[60][HEADER.index(column)] = value
            text = _json_text(rows)
            yield Case(
                f"jsonl {column} {name}",
                _train("{folder}/r.jsonl"),
                {"r.jsonl": text},
                may_pass=column in ("user", "item", "title"),
            )


def _json_text(rows: list[list[object]]) -> bytes:
    lines = []
    for row in rows:
        cells = []
        for name, cell in zip(HEADER, row, strict=True):
            # Python writes no integer of thousands of digits, but a file may hold one.
            is_huge = isinstance(cell, int) and cell > 10**4000
            text = "1" + "0" * 5000 if is_huge else json.dumps(cell)
            cells.append(f'"{name}": {text}')
        lines.append("{" + ", ".join(cells) + "}")
    return "\n".join(lines).encode()


def _tables() -> Iterator[Case]:
    """Whole tables that cannot be used."""
    good = _csv(_rows())
    nested = b'{"user": ' + b"[" * DEEP + b"]" * DEEP + b"}\n"
    tables = {
        "empty.csv": b"",
        "header.csv": _csv([]),
        "one-row.csv": _csv(_rows(1, 1)),
        "few-rows.csv": _csv(_rows(1, 5)),
        "one-user.csv": _csv(_rows(1, 20)),
        "two-users.csv": _csv(_rows(2, 6)),
        "all-liked.csv": _csv(_rows(rating=5)),
        "none-liked.csv": _csv(_rows(rating=1)),
        "no-title.csv": _csv(_rows(), ["user", "item", "name", "rating", "time"]),
        "twice.csv": _csv(_rows(), ["user", "item", "item", "rating", "time"]),
        "semicolons.csv": good.replace(b",", b";"),
        "utf-16.csv": good.decode().encode("utf-16"),
        "nul.csv": good[:300] + b"\0" + good[300:],
        "latin-1.csv": good.replace(b"Movie", "Füm".encode("latin-1")),
        "mac.csv": good.replace(b"\n", b"\r"),
        "open-quote.csv": good.replace(b",Movie", b',"Movie', 1),
        "short-row.csv": good + b"u1,3\n",
        "long-row.csv": good + b"u1,3,a,4,5,6\n",
        "surrogate.csv": good.replace(b"Movie 3", b"\xed\xa0\x80"),
        "noise.csv": random.Random(1).randbytes(5000),
        "noise.parquet": random.Random(2).randbytes(5000),
        "noise.arrow": random.Random(3).randbytes(5000),
        "noise.feather": b"ARROW1\0\0" + random.Random(4).randbytes(500),
        "noise.jsonl": random.Random(5).randbytes(500),
        "noise.zip": random.Random(6).randbytes(500),
        "empty.parquet": b"",
        "empty.arrow": b"",
        "empty.zip": b"",
        "empty.jsonl": b"",
        "cut.parquet": _parquet()[:-100],
        "deep.jsonl": nested,
        "list.jsonl": b"[1, 2]\n" * 50,
        "other-keys.jsonl": b'{"a": 1}\n' * 50,
        "table.xlsx": b"PK\x03\x04",
    }
    for name, data in tables.items():
        yield Case(f"table {name}", _train("{folder}/" + name), {name: data})
        looks = ("data", "{folder}/" + name, "--set", "model.name={model}")
        can_look = name in ("one-user.csv", "two-users.csv", "all-liked.csv", "none-liked.csv")
        yield Case(f"look at {name}", looks, {name: data}, may_pass=can_look)
    long = _rows()
    long[3][2] = "long " * 1_000_000
    yield Case("title of 5 MB", _train("{folder}/r.csv"), {"r.csv": _csv(long)}, may_pass=True)
    long[3][2] = '{{ "x" * 9 }}\u202e\x1b[2J'
    yield Case("title of codes", _train("{folder}/r.csv"), {"r.csv": _csv(long)}, may_pass=True)


def _parquet() -> bytes:
    sink = io.BytesIO()
    pl.DataFrame(_rows(), schema=HEADER, orient="row", strict=False).write_parquet(sink)
    return sink.getvalue()


def _archives() -> Iterator[Case]:
    """Zips and gzips that unpack to too much, lie, or hold no data set."""
    bomb = b"1::1::5::1\n" * 200_000
    archives = {
        "bomb": {"ratings.dat": bomb, "movies.dat": b"1::A::B\n", "users.dat": b"1::F::1::1::1\n"},
        "traversal": {"../../ratings.dat": b"1::1::5::1\n", "/etc/movies.dat": b"1::A::B\n"},
        "two": {"a/ratings.dat": b"1::1::5::1\n", "b/ratings.dat": b"1::1::5::1\n"},
        "other": {"readme": b"hello"},
    }
    for name, members in archives.items():
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        words = _train("{folder}/a.zip", "data.unpacked_gb=0.001")
        yield Case(f"zip {name}", words, {"a.zip": sink.getvalue()})
        yield Case(f"cut zip {name}", words, {"a.zip": sink.getvalue()[:-40]})
    packed = gzip.compress(b'{"user_id": "a"}\n' * 100)
    for name, data in {"cut": packed[:-9], "no": b"hello", "wrong": packed}.items():
        files = {"goodreads_interactions_x.json.gz": data, "goodreads_books_x.json.gz": data}
        yield Case(f"gzip {name}", _train("{folder}"), files)


# --- settings


ODD = [
    '"text"',
    "-1",
    "0",
    "1e308",
    "nan",
    "inf",
    "-inf",
    "1" + "0" * 30,
    "1" + "0" * 5000,
    "[]",
    "[1, [2, [3]]]",
    "[" * 300 + "]" * 300,
    "{}",
    "{a = {b = 1}}",
    "2020-01-01",
    "true",
    '"' + "x" * 10_000 + '"',
    '"\\u0000"',
    "\udcff",
    "none",
]
"""Values of a setting, as TOML; most settings can use none of them."""


def _leaves(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The settings below a part of a recipe."""
    for name, info in model.model_fields.items():
        inner = _part(info.annotation)
        if inner is None:
            yield path + name
        else:
            yield from _leaves(inner, f"{path}{name}.")


def _part(annotation: object) -> type[BaseModel] | None:
    for kind in (annotation, *typing.get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _settings() -> Iterator[Case]:
    """Every setting of a recipe with a few odd values, each value many times."""
    source = random.Random(7)
    leaves = list(_leaves(Recipe))
    for place, leaf in enumerate(leaves):
        # Three values each, so that each value meets settings of every kind.
        for value in [ODD[place % len(ODD)], *source.sample(ODD, 2)]:
            name = f"--set {leaf}={value[:12]!a}"
            # Later settings win: what is odd is not made good again.
            words = (*_train("{data}"), "--set", f"{leaf}={value}")
            yield Case(name, words, may_pass=True)
    for text in (
        "x",
        "=",
        "=3",
        "data=3",
        "data.rows",
        "a.b.c=1",
        "." * 5000 + "=1",
        "data..rows=1",
        "data.rows.x=1",
        "tuning.lora.rank.x=1",
        "compare.requests.0.ratio=1",
        "\udcff=\udcff",
        "data.rows=\n[x]\ny=1",
        "data.options.x=" + "[" * DEEP,
        "data.options.x=" + '"' * 7,
    ):
        yield Case(f"--set {text[:20]!a}", (*_train("{data}"), "--set", text))


def _recipes() -> Iterator[Case]:
    """Recipe files that are no recipe."""
    recipes = {
        "noise": random.Random(8).randbytes(300),
        "utf-16": "seed = 1\n".encode("utf-16"),
        "no TOML": b"seed: 1\n",
        "twice": b"seed = 1\nseed = 2\n",
        "deep": b"seed = " + b"[" * DEEP + b"]" * DEEP,
        "deep tables": b"[" + b".".join([b"a"] * DEEP) + b"]\nb = 1\n",
        "huge number": b"seed = 1" + b"0" * 5000,
        "list": b"data = [1]\n",
        "number": b"data = 1\n",
        "unknown": b"[dta]\nrows = 1\n",
        "unknown key": b"[tuning.schedule]\nlearningrate = 1\n",
        "unknown key in list": b"[[compare.requests]]\nrtio = 1\n",
        "method": b'[method]\nname = "x"\n',
        "compare": b'[compare]\nmethods = ["e2urec", "x"]\n',
        "compare settings": b"[compare.settings.e2urec]\nx = 1\n",
        "compare seeds": b"[compare]\nseeds = []\n",
        "surrogate": b'[data]\nsource = "\\ud800"\n',
        "letters": b'[data]\nsource = "\\u202e\\u0000"\n',
        "long name": b'[data]\nsource = "' + b"a" * 5000 + b'"\n',
        "long template": b'[data]\ntemplate = "' + b"a" * 5000 + b'.j2"\n',
        "long model": b'[model]\nname = "' + b"a" * 5000 + b'"\n',
        "address": b'[data]\nsource = "ftp://x/y"\n[data.options]\nquery = "SELECT 1"\n',
        "bad address": b'[data]\nsource = "mysql://[x/y"\n[data.options]\nquery = "SELECT 1"\n',
        "bad port": b'[data]\nsource = "mysql://a@h:x/y"\n[data.options]\nquery = "SELECT 1"\n',
    }
    # What only another command reads is no fault.
    of_another = {
        "train": ("method", "compare", "compare settings"),
        "demo": ("compare", "compare settings"),
        "compare": ("method",),
    }
    for name, data in recipes.items():
        for command, others in of_another.items():
            if name in others:
                continue
            words = ["{folder}/r.toml"] if command == "compare" else ["--recipe", "{folder}/r.toml"]
            for key, value in {"data.source": "{data}", "model.name": "{model}"}.items():
                # Settings of a command go before those of a recipe, and would mend them.
                if f"{key.split('.')[1]} = ".encode() not in data:
                    words += ["--set", f"{key}={value}"]
            yield Case(
                f"{command} recipe {name}",
                (command, *words, "--out", "{folder}/out"),
                {"r.toml": data},
            )
    templates = {
        "syntax": b"{% for %}",
        "call": b"{{ item.title.upper() }}",
        "noise": random.Random(9).randbytes(50),
        "deep": b"{{ " + b"(" * 3000 + b"1" + b")" * 3000 + b" }}",
        "huge": b"{{ 9 ** 9 ** 9 }}",
        "unknown": b"{{ item.nme }}",
        "digits": b"{{ 1" + b"0" * 5000 + b" }}",
        "empty": b"",
    }
    for name, data in templates.items():
        words = _train("{data}", "data.template={folder}/t.j2")
        yield Case(f"template {name}", words, {"t.j2": data}, may_pass=name == "empty")


def _early() -> Iterator[Case]:
    """Settings that no training could end well with."""
    for setting in (
        "data.fractions=[0.6, 0.4, 0]",
        "data.fractions=[1, 0, 0]",
        "data.fractions=[0, 0.5, 0.5]",
        "data.fractions=[0.001, 0.5, 0.499]",
        "data.unseen=0",
        "data.unseen=0.01",
        "data.min_history=1000",
        "data.last=1",
        "data.last=3",
        "columns.liked_above=5",
        "columns.liked_above=0",
        "tuning.schedule.learning_rate=1e30",
        "tuning.schedule.learning_rate=1e308",
        "tuning.lora.rank=1000000000",
        "tuning.schedule.epochs=1" + "0" * 12,
        "model.layers=99",
        "model.name={folder}",
        "data.template=nosuch",
        "data.since=2999-01-01",
        "data.until=1960-01-01",
    ):
        yield Case(f"train {setting}", (*_train("{data}"), "--set", setting))


def _methods() -> Iterator[Case]:
    """Settings of methods."""
    source = random.Random(11)
    for name, method in all_methods().items():
        leaves = list(_leaves(method))
        if name in ("sisa", "receraser", "apa"):
            continue
        for leaf in leaves:
            for value in source.sample(ODD, 1):
                words = ("unlearn", "{run}", "--dry-run", "--method", name, "--set")
                text = f"{leaf}={value}"
                yield Case(f"{name} {text[:30]!a}", (*words, text), may_pass=True)
    for words in (
        ("--method", "x"),
        ("--method", "\udcff"),
        ("--preset", "x"),
        ("--set", "x"),
        ("--set", "a.b.c=1"),
        ("--set", "lora.rank.x=1"),
        ("--set", "lora=1"),
        ("--set", "lora.rank=1", "--set", "lora.rank.x=2"),
        ("--set", "lora.rank=1000000000", "--out", "{folder}/out"),
        ("--set", "learning_rate=1e30", "--out", "{folder}/out"),
        ("--method", "neggrad", "--set", "learning_rate=1e30", "--out", "{folder}/out"),
        ("--forget-ratio", "2"),
        ("--forget-ratio", "nan"),
        ("--forget-ratio", "x"),
        ("--unit", "x"),
        ("--seed", "1.5"),
        ("--key-file", "{folder}"),
        ("--key-file", "{folder}/none"),
        ("--out", "{run}"),
        ("--out", "{data}/x"),
        ("--out", "{folder}/" + "a" * 300),
    ):
        dry = () if "--out" in words else ("--out", "{folder}/out")
        yield Case(f"unlearn {' '.join(words)[:40]!a}", ("unlearn", "{run}", *words, *dry))


# --- requests and prompts


def _requests() -> Iterator[Case]:
    """Files that name nobody, too much, or nobody can say whom."""
    requests = {
        "empty.txt": b"",
        "comment.txt": b"# nobody\n",
        "blank.txt": b"\n \n\t\n",
        "unknown.txt": b"nobody\n",
        "noise.txt": random.Random(12).randbytes(200),
        "nul.txt": b"u1\0\nu2\n",
        "latin.txt": "ü1\n".encode("latin-1"),
        "utf-16-no-mark.txt": "u1\nu2\n".encode("utf-16-le"),
        "utf-16-cut.txt": "u1\n".encode("utf-16")[:-1],
        "utf-32.txt": "u1\n".encode("utf-32"),
        "surrogate.txt": b"\xed\xa0\x80\n",
        "all.txt": "".join(f"u{user}\n" for user in range(99)).encode(),
        "long.txt": b"u" * 3_000_000,
        "list.csv": b"u1\nu2\n",
        "hash.csv": b"# user\nuser\n#u1\n",
        "quote.csv": b'user\n"u1\n',
        "short.csv": b"user,item\nu1\n",
        "twice.csv": b"user,user\nu1,u2\n",
        "title.csv": b"user,title\nu1,A\n",
        "empty.csv": b"",
        "header.csv": b"user\n",
        "deep.jsonl": b"[" * DEEP + b"]" * DEEP,
        "deep-object.jsonl": b'{"user": ' * DEEP + b"1" + b"}" * DEEP,
        "huge.jsonl": b'{"user": 1' + b"0" * 5000 + b"}\n",
        "twice.jsonl": b'{"user": "u1", "user": "u2"}\n',
        "twice-item.jsonl": b'{"user": "u1", "item": 1, "item": 2}\n',
        "surrogate.jsonl": b'{"user": "\\ud800"}\n',
        "float.jsonl": b'{"user": 1.0}\n',
        "nan.jsonl": b'{"user": NaN}\n',
        "bool.jsonl": b'{"user": true}\n',
        "list.jsonl": b'{"user": ["u1"]}\n',
        "array.jsonl": b'["u1"]\n',
        "case.jsonl": b'{"User": "u1"}\n',
        "comment.jsonl": b'# x\n{"user": "u1"}\n',
        "broken.jsonl": b'{"user": "u1"\n',
        "null.jsonl": b'{"user": null}\n',
    }
    for name, data in requests.items():
        words = ("unlearn", "{run}", "--request", "{folder}/" + name)
        yield Case(f"request {name}", (*words, "--out", "{folder}/out"), {name: data})
        yield Case(f"dry request {name}", (*words, "--dry-run"), {name: data})
    for name in ("{folder}", "{folder}/none", "\udcff", "a" * 5000, "/dev/null", "{data}/x"):
        words = ("unlearn", "{run}", "--request", name, "--out", "{folder}/out")
        yield Case(f"request at {name[:20]!a}", words)


def _prompts() -> Iterator[Case]:
    """Prompts that `score` cannot read."""
    examples = {
        "empty": b"",
        "blank": b"\n\n",
        "noise": random.Random(13).randbytes(100),
        "utf-16 without its mark": '{"prompt": "x"}'.encode("utf-16-le"),
        "text": b"hello\n",
        "list": b'["x"]\n',
        "number": b"5\n",
        "deep": b"[" * DEEP,
        "deep object": b'{"prompt": ' * DEEP,
        "no prompt": b'{"prompts": "x"}\n',
        "null prompt": b'{"prompt": null}\n',
        "number prompt": b'{"prompt": 5}\n',
        "list prompt": b'{"prompt": ["x"]}\n',
        "empty prompt": b'{"prompt": ""}\n',
        "blank prompt": b'{"prompt": " \\n"}\n',
        "half a letter": b'{"prompt": "\\ud800"}\n',
        "huge number": b'{"prompt": 1' + b"0" * 5000 + b"}\n",
        "twice": b'{"prompt": "a", "prompt": "b"}\n',
        "broken": b'{"prompt": "x"\n',
        "second line": b'{"prompt": "x"}\n{}\n',
    }
    for name, data in examples.items():
        words = ("score", "{run}", "--examples", "{folder}/e.jsonl")
        yield Case(f"score {name}", words, {"e.jsonl": data})
    for name in ("{folder}", "{folder}/none", "\udcff", "a" * 5000):
        yield Case(f"score at {name[:20]!a}", ("score", "{run}", "--examples", name))
    odd = b'{"prompt": "' + b"x " * 100_000 + b'"}\n{"prompt": "a\\u2028b\x7f"}\n'
    words = ("score", "{run}", "--examples", "{folder}/e.jsonl")
    yield Case("score long", words, {"e.jsonl": odd}, may_pass=True)


def _places() -> Iterator[Case]:
    """Run folders that are none, and options that are none."""
    for place in ("{folder}", "{folder}/none", "{folder}/r.csv", "\udcff", "a" * 5000, ""):
        for words in (
            ("show", place),
            ("evaluate", place),
            ("evaluate", "{run}", "--against", place),
            ("rehearse", place),
            ("score", place, "--examples", "{data}"),
            ("unlearn", place, "--dry-run"),
            ("prepare", place, "--dry-run"),
            ("discard", place),
        ):
            yield Case(f"{words[0]} at {place[:20]!a}", words, {"r.csv": b"x"})
    for words in (
        ("fetch", "x"),
        ("fetch", "\udcff"),
        ("fetch",),
        ("x",),
        ("train",),
        ("train", "--out"),
        ("train", "--x"),
        ("train", "--out", "{folder}/out", "--seed", "1" + "0" * 5000),
        ("evaluate", "{run}"),
        ("evaluate", "{run}", "--shadows", "1"),
        ("evaluate", "{run}", "--shadows", "-2"),
        ("rehearse", "{run}", "--unit", "items"),
        ("rehearse", "{run}", "--size", "0"),
        ("rehearse", "{run}", "--size", "1" + "0" * 30),
        ("rehearse", "{run}", "--times", "1" + "0" * 30),
        ("rehearse", "{run}", "--tolerance", "nan"),
        ("rehearse", "{run}", "--candidate", "x"),
        ("rehearse", "{run}", "--candidate", "\udcff=1"),
        ("prepare", "{run}", "--set", "scores.pairs=0", "--dry-run"),
        ("prepare", "{run}", "--set", "seed=3", "--dry-run"),
        ("prepare", "{run}", "--set", "scores.pairs=1" + "0" * 30, "--out", "{folder}/out"),
        ("compare", "{folder}"),
        ("compare", "{folder}/none", "--estimate"),
        ("demo", "--forget-ratio", "nan", "--out", "{folder}/out"),
        ("demo", "--out", "{run}"),
    ):
        yield Case(f"{' '.join(words)[:40]!a}", words)


def _mutations() -> Iterator[Case]:
    """A whole table, a request and prompts with a few bytes changed."""
    table = _csv(_rows())
    parquet = _parquet()
    for seed in range(30):
        source = random.Random(100 + seed)
        data = bytearray(parquet if seed % 2 else table)
        for _ in range(source.choice([1, 3, 30])):
            data[source.randrange(len(data))] = source.randrange(256)
        name = "m.parquet" if seed % 2 else "m.csv"
        words = ("data", "{folder}/" + name, "--set", "model.name={model}")
        yield Case(f"mutation {seed}", words, {name: bytes(data)}, may_pass=True)
