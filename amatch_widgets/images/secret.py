"""What of a place on a server may be shown and written down, and what may not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["hide_secrets", "part_options"]

# The user of a URL, and its query, which may be a signature.
_SECRET = re.compile(r"(?<=://)[^/@\s'\"]+@|\?[^\s'\")\]]+")
# Everything else may be a key to something.
_PUBLIC = frozenset(
    {
        "anon",
        "endpoint_url",
        "profile",
        "requester_pays",
        "use_ssl",
        "account_name",
        "project",
        "host",
        "port",
    }
)
_PUBLIC_CLIENT = frozenset({"endpoint_url", "region_name"})


def hide_secrets(text: str, secret: Mapping[str, Any] | None = None) -> str:
    """Take users and queries out of the URLs in a text, and the values of secret options."""
    text = _SECRET.sub(lambda found: "?..." if found[0].startswith("?") else "", text)
    for value in _texts(secret or {}):
        text = text.replace(value, "...")
    return text


def part_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part options of fsspec into those that may be written down, as JSON, and those that may be secret."""
    public = {key: value for key, value in options.items() if key in _PUBLIC and _is_plain(value)}
    if options.get("token") == "anon":  # of Google: no credentials at all
        public |= {"token": "anon"}
    secret = {key: value for key, value in options.items() if key not in public}
    client = secret.pop("client_kwargs", None)
    if isinstance(client, dict):
        of_client = {
            key: value for key, value in client.items() if key in _PUBLIC_CLIENT and _is_plain(value)
        }
        public |= {"client_kwargs": of_client} if of_client else {}
        rest = {key: value for key, value in client.items() if key not in of_client}
        secret |= {"client_kwargs": rest} if rest else {}
    return public, secret


def _is_plain(value: object) -> bool:
    is_simple = value is None or isinstance(value, bool | int | float | str)
    return is_simple and hide_secrets(str(value)) == str(value)


def _texts(options: Mapping[str, Any]) -> Iterator[str]:
    for value in options.values():
        if isinstance(value, str) and len(value) > 3:  # noqa: PLR2004 - shorter ones are no secret
            yield value
        elif isinstance(value, dict):
            yield from _texts(value)
