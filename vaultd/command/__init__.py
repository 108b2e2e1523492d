"""Each command of `vaultd`, which cli.py calls by name, and what they share: what may be typed, what runs already."""
