"""Which plantml this is. `pyproject.toml` reads the version from here."""

__version__ = "0.1.0"
