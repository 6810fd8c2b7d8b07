"""Keys of the installation: what is sealed, what is hashed, and with what."""
