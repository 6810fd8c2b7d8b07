"""Names a PostgreSQL database without its secrets."""

from __future__ import annotations

import re

from hub.errors import ConfigError

_ADDRESS = re.compile(r"postgres(?:ql)?://(?:[^/?#@]*@)?(?P<server>[^/?#@]*)/(?P<database>[^/?#@]*)(?:\?[^#@]*)?")


def place(url: str) -> str:
    """``server/database`` of the address, for messages.

    Raises: ConfigError when it is no address of PostgreSQL's.
    """
    match = _ADDRESS.fullmatch(url)
    if match is None:
        # An unescaped sign of a password may have ended up anywhere: nothing of the text is repeated.
        raise ConfigError(
            "địa chỉ cơ sở dữ liệu viết sai: cần postgresql://NGƯỜI_DÙNG@MÁY:CỔNG/TÊN; ký tự đặc biệt trong mật khẩu"
            " viết dạng %XX / the database's address is written wrongly: postgresql://USER@HOST:PORT/NAME is needed;"
            " signs like @ and / in a password are written %XX"
        )
    return f"{match['server'] or 'socket'}/{match['database']}"
