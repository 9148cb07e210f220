"""The MAC of `run.json`: whether a record is as the holder of the controller's key wrote it.

The hashes in a record show damage. Whoever can write the folder can renew them as well; the MAC
shows that, since nobody can renew it without the key.
"""

import hmac
import json
import secrets
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..core.contents import is_same
from ..core.derived_keys import derived_key

FIELD = "mac"
"""Of `run.json`; the MAC is over all other fields."""
SALT_BYTES = 16
KEY_CHECK_BYTES = 8
"""Two keys share a check of this size with a probability of 5·10⁻²⁰."""


class MacState(Enum):
    """What the MAC of a record says, as a sentence."""

    HOLDS = "run.json is as it was written under this controller key"
    CHANGED = "run.json was changed since it was written under this controller key"
    OTHER_KEY = "run.json has a MAC under another controller key; name that one to have it checked"
    NO_KEY = "run.json has a MAC, and no controller key is at hand to check it"
    NONE = "run.json has no MAC: anyone who can write the folder could have changed this record"


class MacRecord(BaseModel):
    """HMAC-SHA256 of a record, under a key that is derived from the controller's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    salt: str = Field(description="of the key's check, so that two runs do not tell a common key")
    key: str = Field(description="a value that says under which key")
    value: str = Field(description="the MAC, in hexadecimal")


def mac_of(values: Mapping[str, Any], controller_key: bytes) -> MacRecord:
    """The MAC of a record's JSON values."""
    salt = secrets.token_bytes(SALT_BYTES)
    check = _key_check(controller_key, salt)
    return MacRecord(salt=salt.hex(), key=check, value=_mac(values, controller_key))


def mac_state(values: Mapping[str, Any], controller_key: bytes | None) -> MacState:
    """Whether the MAC in a record's JSON values holds."""
    if values.get(FIELD) is None:
        return MacState.NONE
    if controller_key is None:
        return MacState.NO_KEY
    try:
        record = MacRecord.model_validate(values[FIELD])
        check = _key_check(controller_key, bytes.fromhex(record.salt))
    except (ValidationError, ValueError):
        return MacState.CHANGED
    if not is_same(record.key, check):
        return MacState.OTHER_KEY
    holds = is_same(record.value, _mac(values, controller_key))
    return MacState.HOLDS if holds else MacState.CHANGED


def _mac(values: Mapping[str, Any], controller_key: bytes) -> str:
    covered = {name: value for name, value in values.items() if name != FIELD}
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"))
    # A key of its own, so that the MAC says nothing of the requests' HMACs.
    key = derived_key(controller_key, b"e2urec run record")
    return hmac.digest(key, text.encode(), "sha256").hex()


def _key_check(controller_key: bytes, salt: bytes) -> str:
    check = derived_key(controller_key, b"e2urec key of a run record" + salt)
    return check[:KEY_CHECK_BYTES].hex()
