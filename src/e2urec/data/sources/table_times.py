"""Times of the user's own tables: numbers, or ISO dates and times."""

import polars as pl

# how many make a second
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}
# eight digits that can be a date, such as 20200131
COMPACT_DATE = r"^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$"
SPELLINGS = (
    # 2020-01-31 12:30
    (r"^(\d{4}-\d\d-\d\d) ", "${1}T"),
    # 12:30:00Z, 12:30:00 UTC
    (r" ?(?:[zZ]|UTC)$", "+00:00"),
    # 12:30:00+01
    (r"(T.*[+-]\d\d)$", "${1}:00"),
    # 12:30:00+0100
    (r"(T.*[+-]\d\d)(\d\d)$", "${1}:${2}"),
    # 12:30 without seconds
    (r"(T\d\d:\d\d)($|[+-])", "${1}:00${2}"),
)
"""Ways to write a time, and the one way that Polars parses, in the order that they build on."""
TIME = "%Y-%m-%dT%H:%M:%S%.f"


def seconds(times: pl.Series, unit: str) -> pl.Series:
    """Times as whole seconds since 1970, in text.

    A number counts in `unit`; a date or time is in UTC unless it says otherwise. What is neither
    stays as it is: the check of the interactions names it in its error, with its row.
    """
    from_dates = _seconds_of_dates(times).cast(pl.String)
    numbers = times.cast(pl.Float64, strict=False)
    whole_seconds = (numbers / UNITS[unit]).floor()
    from_numbers = whole_seconds.cast(pl.Int64, strict=False).cast(pl.String)
    seconds = from_dates.fill_null(from_numbers)
    return seconds.fill_null(times)


def _seconds_of_dates(times: pl.Series) -> pl.Series:
    """Seconds since 1970 where there is an ISO date or time, null elsewhere."""
    text = _one_spelling(times)
    seconds = pl.Series(values=[None] * len(times), dtype=pl.Int64)
    for parse in (_with_zone, _without_zone, _days):
        # most tables write all their times in one way: the others need not be tried
        if seconds.null_count():
            seconds = seconds.fill_null(parse(text))
    return seconds


def _one_spelling(times: pl.Series) -> pl.Series:
    # eight digits may be a number of seconds too, so they are dates only if all of them can be
    is_compact = times.drop_nulls().str.contains(COMPACT_DATE)
    if is_compact.all():
        times = times.str.replace(r"^(\d{4})(\d\d)(\d\d)$", "${1}-${2}-${3}")
    for pattern, replacement in SPELLINGS:
        times = times.str.replace(pattern, replacement)
    return times


def _with_zone(text: pl.Series) -> pl.Series:
    moments = text.str.to_datetime(f"{TIME}%:z", strict=False, time_unit="us")
    return moments.dt.epoch("s")


def _without_zone(text: pl.Series) -> pl.Series:
    moments = text.str.to_datetime(TIME, strict=False, time_unit="us")
    return moments.dt.epoch("s")


def _days(text: pl.Series) -> pl.Series:
    days = text.str.to_date("%Y-%m-%d", strict=False)
    return days.dt.epoch("s")
