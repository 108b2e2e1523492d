"""The thin client: standard library only, never imports vaultd."""

__version__ = "0.1.0"
