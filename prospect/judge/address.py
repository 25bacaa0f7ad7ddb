"""A server's address: what requests are sent to, and the part of it that may be written down.

User, password and query of a URL may be credentials. They go into requests and nowhere else: ledger, results and
messages have ``public``, which is the URL without them.
"""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from prospect.errors import UserError

_WHOLE_PATHS = ("/chat/completions", "/completions", "/responses", "/models", "/embeddings")
_SHORTEST_SECRET = 4  # characters; what is shorter hides in any text


@dataclass(frozen=True, slots=True)
class Address:
    """``public`` has scheme, host, port and path. ``secrets``: every spelling of the credentials that a server may
    repeat in its messages."""

    public: str
    _user: str = field(default="", repr=False)
    _query: str = field(default="", repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The longest first."""
        values = [self._user, *self._user.partition(":")[::2], *(value for _, value in parse_qsl(self._query))]
        found = {spelling for value in values for spelling in (value, unquote(value))}
        found.add(base64.b64encode(unquote(self._user).encode()).decode())  # as the header of basic authentication
        return tuple(sorted((text for text in found if len(text) >= _SHORTEST_SECRET), key=len, reverse=True))

    @property
    def exposes(self) -> bool:
        """Whether anybody on the way to the server can read what is sent: plain http to another machine."""
        parts = urlsplit(self.public)
        return parts.scheme == "http" and not _is_here(parts.hostname or "")

    def others(self) -> tuple[Address, ...]:
        """Where the API may be, if there is none here: under ``/v1`` of this path, or of the host."""
        root = "{0.scheme}://{0.netloc}".format(urlsplit(self.public))
        found = dict.fromkeys(f"{start}/v1" for start in (self.public.removesuffix("/v1"), root))
        return tuple(replace(self, public=public) for public in found if public != self.public)

    def url(self, path: str) -> str:
        """Where a request goes; ``path`` may have a query of its own."""
        scheme, _, rest = self.public.partition("://")
        path, _, own = path.partition("?")
        query = "&".join(filter(None, (self._query, own)))
        return f"{scheme}://{self._user}{'@' * bool(self._user)}{rest}{path}{'?' * bool(query)}{query}"


def address_of(text: str) -> Address:
    """A base URL as the user gave it.

    Raises:
        UserError: it is none, or the address of one of the API's calls; says what was probably meant.
    """
    text = text.strip()
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UserError(f"--base-url: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        bare = text.removeprefix("//").partition("?")[0].rpartition("@")[2]
        if "://" in bare:
            raise UserError(f"--base-url {bare}: neither http:// nor https://")
        scheme = "http" if _is_here(bare.partition("/")[0].partition(":")[0]) else "https"
        raise UserError(f"--base-url {bare}: no http:// or https:// at its start; did you mean {scheme}://{bare}?")
    public = _public(parts, port)
    for whole in _WHOLE_PATHS:
        if public.endswith(whole):
            raise UserError(
                f"--base-url {public}: is the address of one call; did you mean {public.removesuffix(whole)}?"
            )
    return Address(public, parts.netloc.rpartition("@")[0], parts.query)


def _public(parts: SplitResult, port: int | None) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else parts.netloc.rpartition("@")[2].partition(":")[0]
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def _is_here(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
