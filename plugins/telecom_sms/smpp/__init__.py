"""A small asyncio client of SMPP 3.4: codec, alphabets, receipts and one bound session. Knows nothing of the hub."""
