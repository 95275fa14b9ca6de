"""Which addresses this server may be sent to by somebody else's URL: public ones, and no other (SSRF).

A URL is taken apart once, by strict rules, and never handed on as text. Its name is resolved once; all addresses that
come back must be public, and the connection goes to one of them, not to the name: a second answer of the name server
changes nothing. Redirects are not followed.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

Resolve = Callable[[str, int], Awaitable[list[str]]]

PLAIN = re.compile(r"https?://[!-~]+", re.IGNORECASE)
"""ASCII without spaces and controls; everything else differs between parsers."""

NAME = re.compile(r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".intranet", ".lan", ".home.arpa", ".corp", ".home", ".onion",
                    ".localdomain")  # fmt: skip
GLOBAL_UNICAST = IPv6Network("2000::/3")
NOBODYS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"), IPv6Network("3fff::/20"))
"""Teredo and 6to4 carry an IPv4 address inside; the last is for documents."""


class NotPublic(ValueError):
    """The URL does not lead to a public address; the message says why."""


@dataclass(frozen=True)
class Target:
    """A URL, taken apart."""

    scheme: str
    host: str
    """A name in lower case, or an address without brackets."""
    port: int
    path: str
    """With the query."""

    @property
    def host_header(self) -> str:
        """What the receiver expects to be called."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default_port(self.scheme) else f"{host}:{self.port}"


def target_of(url: str, *, allow_private: bool = False) -> Target:
    """A URL taken apart. Raises NotPublic for one that is odd, or that names a private place by itself."""
    if not PLAIN.fullmatch(url) or "\\" in url or "#" in url or len(url) > 2048:
        raise NotPublic("write an http or https URL of plain ASCII characters, without fragment")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise NotPublic("write a URL with a host name and, if need be, a port") from None
    if "@" in parts.netloc or "%" in parts.netloc:
        raise NotPublic("a URL here carries no user name, password or percent sign in its host")
    port = port if port is not None else _default_port(parts.scheme)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = Target(parts.scheme, host, port, path)
    if not allow_private:
        _require_public_shape(target)
    return target


async def pinned_address(target: Target, resolve: Resolve | None = None, *, allow_private: bool = False) -> str:
    """The address to connect to. Raises NotPublic if any address of the name is not public; OSError if it has none."""
    found = await (resolve or resolved)(target.host, target.port)
    if not found:
        raise OSError(f"{target.host} has no address")
    if not allow_private:
        for address in found:
            if not is_public(address):
                raise NotPublic("its name leads to an address that is not public")
    return found[0]


async def resolved(host: str, port: int) -> list[str]:
    """All addresses of a name."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def is_public(address: str) -> bool:
    """Whether anybody on the Internet could be meant: unicast, global, and no tunnel to an address inside it."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    match ip:
        case IPv4Address():
            return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)
        case IPv6Address():
            return ip.is_global and ip in GLOBAL_UNICAST and not any(ip in network for network in NOBODYS)


def _require_public_shape(target: Target) -> None:
    if target.port not in (80, 443) and target.port < 1024:
        raise NotPublic("the port is 80, 443 or above 1023")
    host = target.host
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        if not is_public(host):
            raise NotPublic("the address is not public")
    elif not NAME.fullmatch(host) or host.endswith(PRIVATE_SUFFIXES):
        raise NotPublic("the host needs a full public name, such as hooks.example.com")


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80
