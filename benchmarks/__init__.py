"""How fast the shipped hub delivers, beside a bare client on the same machine."""
