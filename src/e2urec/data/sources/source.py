"""What a source of raw data is. Each file of this folder may define one; it is found by itself."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ...core.errors import DataError, did_you_mean
from ..interactions import Interactions
from .files import Files
from .reading import Columns, Reading


class Source(BaseModel, ABC):
    """A kind of raw data. Its fields are its own settings: a recipe's `[data.options]`.

    Attributes:
        name: what messages call it; no two sources share one.
        expects: the data that it reads, for somebody whose data no source recognises.
        packaged: names of data sets of this kind that can be fetched.
        fixed_columns: the data say which column is what. `[columns]` may then hold nothing but
            `liked_above`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    expects: ClassVar[str]
    packaged: ClassVar[tuple[str, ...]] = ()
    fixed_columns: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def recognises(cls, files: Files) -> bool:
        """Whether `files` are of this kind. No two sources may recognise the same files."""

    @abstractmethod
    def read(self, files: Files, reading: Reading, columns: Columns) -> Interactions:
        """Read the data.

        Args:
            files: what `recognises` was true of.
            reading: settings that every source heeds.
            columns: which column is what.

        Raises:
            DataError: the data are incomplete or malformed, or a row cannot be used.
        """

    @classmethod
    def configure(cls, options: Mapping[str, Any]) -> Self:
        """Return the source with the settings of `[data.options]`; None leaves one at its default.

        Raises:
            DataError: a setting is not of this source, or has a wrong type.
        """
        # `--set data.options.genre=none` is the way to leave out what a recipe file sets
        settings = {key: value for key, value in options.items() if value is not None}
        fields = list(cls.model_fields)
        for key, value in settings.items():
            if key not in fields:
                nearest = did_you_mean(key, fields) if fields else ""
                raise DataError(
                    f"data.options.{key} {value!r}: is not for {cls.name}; leave it out{nearest}"
                )
        try:
            return cls(**settings)
        except ValidationError as error:
            # one line for one fault: the next shows once this one is corrected
            fault = error.errors()[0]
            key = ".".join(str(part) for part in fault["loc"])
            reason = fault["msg"].splitlines()[0].lower()
            raise DataError(f"data.options.{key} = {fault['input']!r}: {reason}") from error

    def check_columns(self, columns: Columns) -> None:
        """Raise DataError for parts of `[columns]` that would do nothing."""
        if not self.fixed_columns:
            return
        only_liked_above = Columns(liked_above=columns.liked_above)
        if columns != only_liked_above:
            raise DataError(f"[columns]: {self.name} has its own; leave out all but liked_above")
