"""The thin client: standard library only, never imports vaultd."""
