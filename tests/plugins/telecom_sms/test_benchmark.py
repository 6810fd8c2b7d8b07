"""The benchmark's own parts: a yardstick that is wrong makes every number wrong."""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter

from benchmarks.sms import measure, segments_of, texts
from plugins.telecom_sms.text import measure as size_of


def test_half_of_the_texts_are_gsm7_and_each_alphabet_has_one_two_and_three_segments_evenly() -> None:
    sizes = Counter((size_of(text).encoding, size_of(text).segments) for text in texts(1200))
    assert sizes == {(alphabet, segments): 200 for alphabet in ("GSM-7", "UCS-2") for segments in (1, 2, 3)}
    assert segments_of(texts(1200)) == 2400
    assert len(set(texts(1200))) == 1200


def test_both_clients_have_every_segment_answered_by_the_bare_smsc() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = asyncio.run(measure(messages=24, window=5, rounds=1))
    assert found["segments"] == 48
    assert min(found["ours_submit_per_s"], found["smpplib_submit_per_s"], found["sink_only_per_s"]) > 0
