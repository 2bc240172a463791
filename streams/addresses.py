"""Which network addresses an image reference may lead to.

References come from outside, so by default they reach public addresses only: not this machine, not
its network, not a cloud's metadata service. The address that was checked is the one connected to,
because the connector asks the resolver here and uses its answer (no second look-up that a hostile
name server could answer differently).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from aiohttp.abc import AbstractResolver, ResolveResult

from streams.name_lookup import PooledResolver

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that IANA has given out; outside it lie unique local, link-local, the former site-local,
IPv4-compatible and local NAT64 addresses, some of which `ipaddress` calls global."""
_LOOK_PUBLIC = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # IETF protocols, and Oracle's metadata service
    ipaddress.IPv4Network("192.88.99.0/24"),  # relays to IPv6, out of use (RFC 7526)
    ipaddress.IPv4Network("168.63.129.16/32"),  # the host below an Azure machine
)


class ForbiddenAddressError(OSError):
    """A host name or address leads where references may not go."""


class AddressRules:
    """Global unicast addresses, and those in the networks that the settings allow."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def permits(self, address: Address) -> bool:
        """Whether a connection to `address` may be made.

        IPv6 addresses that carry an IPv4 address (mapped, 6to4, Teredo, NAT64) are judged by the
        address they lead to.
        """
        if any(
            address.version == network.version and address in network for network in self._allowed
        ):
            return True
        if isinstance(address, ipaddress.IPv6Address):
            if address.scope_id is not None:
                return False
            embedded = _embedded_ipv4(address)
            if embedded is not None:
                return self.permits(embedded)
            if address not in _GLOBAL_UNICAST:
                return False
        elif any(address in network for network in _LOOK_PUBLIC):
            return False
        return address.is_global and not address.is_multicast

    def check_literal(self, host: str) -> None:
        """Refuse a host that is an address, in any spelling, and is not permitted.

        The resolver is not asked for literal addresses, so they are judged before connecting.

        Raises:
            ForbiddenAddressError
        """
        address = _literal_address(host)
        if address is None and ":" in host:
            # Clients take it for an address and hand it to the system's resolver, which would
            # look it up past the checks here.
            raise ForbiddenAddressError(f"'{host}' has a colon, but is no IPv6 address")
        if address is not None and not self.permits(address):
            raise ForbiddenAddressError(_refusal(host, address))


class CheckedResolver(AbstractResolver):
    """Resolves names and keeps only the permitted addresses."""

    def __init__(self, rules: AddressRules, resolver: AbstractResolver | None = None) -> None:
        self._rules = rules
        self._resolver = resolver or PooledResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises `ForbiddenAddressError` when no address of `host` is permitted."""
        found = await self._resolver.resolve(host, port, family)
        permitted = [
            result for result in found if self._rules.permits(ipaddress.ip_address(result["host"]))
        ]
        if not permitted:
            addresses = ", ".join(sorted({result["host"] for result in found})) or "no address"
            raise ForbiddenAddressError(_refusal(host, addresses))
        return permitted

    async def close(self) -> None:
        await self._resolver.close()


def _refusal(host: str, address: object) -> str:
    return (
        f"'{host}' leads to {address}, which is no public address; if references may point "
        "there, add its network to fetch.allow_networks"
    )


def _literal_address(host: str) -> Address | None:
    """The address that `host` spells: dotted, IPv6, or the decimal, octal and hexadecimal forms
    that the C library takes as well."""
    text = host.strip("[]").rstrip(".")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(text))
    except (OSError, ValueError):  # a zero byte within, or no ASCII
        return None


def _embedded_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None
