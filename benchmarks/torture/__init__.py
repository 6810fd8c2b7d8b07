"""Faults done to a hub on purpose, and what must still be true afterwards: ``make torture``."""
