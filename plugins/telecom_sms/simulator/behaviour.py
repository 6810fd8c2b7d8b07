"""What a simulated SMSC can be told to do, right and wrong; every field can be changed while it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Behaviour:
    """Shares are between 0 and 1, times in milliseconds."""

    #: Messages are processed, their answers kept back until this is false again.
    withhold: bool = False
    #: Every submit is answered so much later.
    slow_ms: int = 0
    #: Connections are dropped and none is taken.
    down: bool = False
    #: Answered 0x58 by lot, and above so many submits in a second (0: no limit).
    throttle_share: float = 0.0
    rate_per_s: float = 0.0
    #: Answered with ``error_status`` by lot.
    error_share: float = 0.0
    error_status: int = 0x08
    #: Processed and never answered.
    lose_share: float = 0.0
    receipt_delay_ms: int = 300
    #: Receipts that leave before the answer to their submit.
    early_receipt_share: float = 0.0
    #: Phones that can never be reached; which ones follows from the key.
    undeliv_share: float = 0.0
    #: plain, seconds, shuffled, text_error, parameters, or mixed (each in turn).
    receipt_style: str = "plain"
    #: same, hex_then_dec (answer in hexadecimal, receipt in decimal) or dec_then_hex.
    id_style: str = "same"
    #: Receipts that never leave, that leave twice, and whether those that are due leave in any order.
    receipt_lose_share: float = 0.0
    receipt_repeat_share: float = 0.0
    receipt_shuffle: bool = False
    #: A half-open link: the connection stands, and nothing that comes is answered.
    silent: bool = False
    #: Binds of one account at once that send or do both (0: no limit); more are answered 0x0D.
    bind_limit: int = 0
    #: query_sm is answered; else with a generic_nack, as by carriers that do not offer it.
    queries: bool = True
    #: A receipt that was answered with an error, or whose link died, is sent again after this.
    receipt_retry_ms: int = 500
