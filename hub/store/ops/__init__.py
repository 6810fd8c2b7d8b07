"""What happens in the ledger, written once for both engines: plain functions over an open transaction."""
