"""The empty tags, shared by all that have none."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["NO_TAGS"]

NO_TAGS: Mapping[str, Any] = MappingProxyType({})
