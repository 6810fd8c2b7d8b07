"""A carrier's SMSC to try things against: a process of its own, with its own reading of SMPP and its own log.

It shares no code with the client, so that one misreading of the standard cannot pass on both sides.
"""
