"""Which phone a number means, whose network it was given to, and whether an SMS may go there at all."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, Literal, NamedTuple

#: Eleven-digit mobile prefixes of before 2018 and what they became. Source: the operators' plan of September 2018.
_RENUMBERED: Final[dict[str, str]] = {
    **{f"016{n}": f"03{n}" for n in range(2, 10)},
    "0120": "070", "0121": "079", "0122": "077", "0126": "076", "0128": "078",
    "0123": "083", "0124": "084", "0125": "085", "0127": "081", "0129": "082",
    "0186": "056", "0188": "058", "0199": "059",
}  # fmt: skip
#: Whom a prefix was given to; since 2018 a number may have moved, so this predicts and does not know.
_NETWORKS: Final[dict[str, str]] = {
    prefix: network
    for network, prefixes in {
        "viettel": "032 033 034 035 036 037 038 039 086 096 097 098",
        "mobifone": "070 076 077 078 079 089 090 093",
        "vinaphone": "081 082 083 084 085 088 091 094",
        "vietnamobile": "052 056 058 092",
        "gmobile": "059 099",
        "itel": "087",
        "reddi": "055",
    }.items()
    for prefix in prefixes.split()
}
NETWORKS: Final = tuple(dict.fromkeys(_NETWORKS.values()))

Refusal = Literal["address_invalid", "number_premium", "country_not_allowed"]
#: A Vietnamese mobile number in any of the ways people write it.
_MOBILE: Final = re.compile(r"(?:\+?84|0084|0)([35789][0-9]{8})")
#: Numbers that bill whoever is reached or writes: 1900, 1800, and the four-digit services.
_SERVICE: Final = re.compile(r"(?:\+?84|0)?(?:19|18)00[0-9]{2,6}|[0-9]{3,5}")


class Number(NamedTuple):
    """A phone that takes SMS: digits with the country's code, without "+"."""

    msisdn: str
    country: str
    #: The network its prefix was given to, "" where nobody knows.
    network: str


def read_number(address: str, countries: Collection[str] = ("VN",)) -> Number | Refusal:
    """The phone behind an address as people and Excel write it, or why none may be written to.

    Args:
        countries: ISO codes of the countries that may be reached.
    """
    compact = re.sub(r"[ .\-()/]", "", address)
    if not re.fullmatch(r"\+?[0-9]{3,20}", compact):
        return "address_invalid"
    renewed = _as_since_2018(compact)
    found = _MOBILE.fullmatch(renewed)
    if found is not None and "VN" in countries:
        # A prefix that nobody was given is no phone yet; carriers would bill the try.
        network = _NETWORKS.get("0" + found[1][:2])
        return Number("84" + found[1], "VN", network) if network else "address_invalid"
    if _SERVICE.fullmatch(compact):
        return "number_premium"
    return _read_abroad(renewed, countries)


def _as_since_2018(compact: str) -> str:
    national = re.sub(r"^(?:\+?84|0084)(?=1[0-9]{9}$)", "0", compact)
    if len(national) == 11 and national[:4] in _RENUMBERED:
        return _RENUMBERED[national[:4]] + national[4:]
    return compact


def _read_abroad(compact: str, countries: Collection[str]) -> Number | Refusal:
    import phonenumbers
    from phonenumbers import PhoneNumberType as Kind

    try:
        parsed = phonenumbers.parse("+" + compact[2:] if compact.startswith("00") else compact, "VN")
    except phonenumbers.NumberParseException:
        return "address_invalid"
    if not phonenumbers.is_valid_number(parsed):
        return "address_invalid"
    kind = phonenumbers.number_type(parsed)
    if kind in (Kind.PREMIUM_RATE, Kind.SHARED_COST):
        return "number_premium"
    country = phonenumbers.region_code_for_number(parsed) or ""
    if country not in countries:
        return "country_not_allowed"
    if kind not in (Kind.MOBILE, Kind.FIXED_LINE_OR_MOBILE) or country == "VN":
        return "address_invalid"
    return Number(f"{parsed.country_code}{phonenumbers.national_significant_number(parsed)}", country, "")


def to_msisdn(address: str) -> str | None:
    """84 and nine digits, the way carriers want it; None for anything but a Vietnamese mobile number."""
    number = read_number(address)
    return number.msisdn if isinstance(number, Number) else None


def masked(msisdn: str) -> str:
    """As operators may see it: ``0912***456``."""
    national = "0" + msisdn[2:] if msisdn.startswith("84") else msisdn
    return f"{national[:4]}***{national[-3:]}" if len(national) > 7 else "***"
