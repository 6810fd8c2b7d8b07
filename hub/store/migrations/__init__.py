"""One Alembic history per owner: the core's and each plugin's own folder and version table."""
