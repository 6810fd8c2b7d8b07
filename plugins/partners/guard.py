"""The one guard against addresses that nobody outside should make the hub connect to.

The same ``Guard`` judges an endpoint when it is saved, when it is tested and at every try: ``look`` its spelling,
``allows`` each address that a connection is really made to (``hub.http`` asks it for names and literals alike).
Refused unless an administrator has allow-listed the network: private, loopback, link-local and metadata, shared
(CGNAT), multicast, reserved and documentation ranges, and every way of writing an IPv4 address inside an IPv6 one.

Source: IANA IPv4 and IPv6 Special-Purpose Address Registries (2025); RFC 6890; WHATWG URL, "ends in a number".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from yarl import URL

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: IPv4 ranges that are not anybody's public server.
_V4_CLOSED = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by a carrier's customers (CGNAT)
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's own agent (Azure)
        "169.254.0.0/16",  # link-local, and the metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; a metadata address too (Oracle)
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
    )
)
#: All public unicast of today; NAT64, mapped, unique-local, link-local and multicast addresses are outside.
_V6_OPEN = IPv6Network("2000::/3")
_V6_CLOSED = tuple(
    IPv6Network(each)
    for each in (
        "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
#: ISATAP: the last 64 bits are 0000:5efe or 0200:5efe and an IPv4 address.
_ISATAP = (0x00005EFE, 0x02005EFE)
_DECIMAL_V4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!$)|$)){4}")
#: What follows the host: nothing, or a colon and ASCII digits; int() takes more.
_PORT = re.compile(r"^(?:\[[^\]]*\]|[^:\[\]]*)(?::[0-9]{0,5})?$")
_NUMBER = re.compile(r"(?:[0-9]+|0[xX][0-9a-fA-F]*)")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
#: Names that mean this machine or its own network by agreement, whatever a resolver says.
_LOCAL_NAMES = ("localhost", "local", "internal", "localdomain", "home.arpa")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an address may not be sent to: a code, and what to do, in Vietnamese and English."""

    code: str
    vi: str
    en: str

    def __str__(self) -> str:
        return f"{self.vi} / {self.en}"


MALFORMED = Refusal(
    "url", "không phải địa chỉ web; ghi https://máy_chủ/đường_dẫn", "not an address; write https://host/path"
)
SCHEME = Refusal("url", "chỉ dùng https; ghi https://máy_chủ/đường_dẫn", "https only; write https://host/path")
PLAIN = Refusal(
    "url_plain",
    "cần https; muốn dùng http thì người quản trị đặt allow_http = true",
    "https is required; http needs allow_http = true, set by an administrator",
)
USERINFO = Refusal(
    "url",
    "không ghi tên hoặc mật khẩu trong địa chỉ; yêu cầu đã được ký",
    "no user name or password in the address; requests are signed instead",
)
FRAGMENT = Refusal("url", "bỏ phần sau dấu #; phần này không được gửi đi", "no #fragment; it is never sent")
PORT = Refusal("url", "cổng không hợp lệ", "the port is not valid")
SPELLING = Refusal(
    "url_spelling",
    "địa chỉ số phải viết bằng bốn số thập phân (203.0.113.7) hoặc [IPv6]",
    "write a numeric address as four decimal numbers (203.0.113.7) or as [IPv6]",
)
NOT_PUBLIC = Refusal(
    "url_not_public",
    "địa chỉ này thuộc mạng nội bộ; người quản trị phải cho phép mạng đó trong allow_networks",
    "this address is on an inside network; an administrator has to list that network in allow_networks",
)


@dataclass(frozen=True, slots=True)
class Guard:
    """What may be connected to. ``networks`` are those an administrator has allow-listed."""

    networks: tuple[Network, ...] = ()
    allow_http: bool = False

    def allows(self, address: Address) -> bool:
        """Whether a connection to this address may be made; what ``hub.http`` asks for every socket."""
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks) or _is_public(address)

    def look(self, text: str) -> URL | Refusal:
        """The address to post to, or why not. Names are looked up when they are connected to, not here."""
        # Before any parser may repair it: what one reads otherwise than another is not an address.
        if not text or any(c <= " " or c in "\\\x7f" for c in text):
            return MALFORMED
        authority = re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0]
        if "@" in authority:
            return USERINFO
        if not _PORT.search(authority):
            return PORT
        try:
            url = URL(text)
            host, port = url.raw_host or "", url.explicit_port
        except ValueError:
            return MALFORMED
        if url.scheme not in ("http", "https"):
            return SCHEME
        if not host or ("[" in authority and ":" not in host):
            return MALFORMED
        if url.raw_fragment or "#" in text:
            return FRAGMENT
        if port == 0:
            return PORT
        refusal = self._host(host)
        if refusal is not None:
            return refusal
        if url.scheme == "http" and not self.allow_http and not is_loopback(host):
            return PLAIN
        return url

    def _host(self, host: str) -> Refusal | None:
        if ":" in host:
            try:
                address = ip_address(host)
            except ValueError:
                return MALFORMED
            # A zone names one of this machine's interfaces; an IPv4 address is written as one.
            if isinstance(address, IPv6Address) and (address.scope_id is not None or address.ipv4_mapped is not None):
                return SPELLING
            return None if self.allows(address) else NOT_PUBLIC
        if _DECIMAL_V4.fullmatch(host):
            return None if self.allows(IPv4Address(host)) else NOT_PUBLIC
        name = host.removesuffix(".").lower()
        labels = name.split(".")
        # Octal, hexadecimal, short and whole-number forms, with or without a dot behind.
        if _NUMBER.fullmatch(labels[-1]):
            return SPELLING
        if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
            return MALFORMED
        if any(name == local or name.endswith("." + local) for local in _LOCAL_NAMES):
            return None if any(IPv4Address("127.0.0.1") in n for n in self.networks if n.version == 4) else NOT_PUBLIC
        return None


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks in CIDR form; raises ``ValueError`` naming the one that is none, or that would open everything."""
    found: list[Network] = []
    for text in texts:
        try:
            network = ip_network(text)
        except ValueError:
            raise ValueError(
                f"{text!r}: ghi mạng dạng 10.1.0.0/16, không có bit nào sau tiền tố"
                f" / {text!r}: write a network as 10.1.0.0/16, with no bits behind the prefix"
            ) from None
        if network.prefixlen < (8 if network.version == 4 else 16):
            raise ValueError(f"{text!r}: quá rộng, tối thiểu /8 (IPv6: /16) / too wide, at least /8 (IPv6: /16)")
        found.append(network)
    return tuple(found)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _V4_CLOSED)
    if address not in _V6_OPEN or any(address in network for network in _V6_CLOSED):
        return False
    low = int(address) & 0xFFFFFFFFFFFFFFFF
    return low >> 32 not in _ISATAP or _is_public(IPv4Address(low & 0xFFFFFFFF))


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by its spelling alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
