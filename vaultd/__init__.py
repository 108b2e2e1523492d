"""vaultd: a per-user AWS credential daemon. The house is described in README § How it works."""

__version__ = "0.1.0"
