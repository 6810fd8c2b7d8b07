"""Union Hub: events come in, deliveries go out, every try is on record."""

__version__ = "0.1.0"
