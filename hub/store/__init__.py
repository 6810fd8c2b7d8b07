"""The ledger on disk: one Protocol, one engine per database."""
