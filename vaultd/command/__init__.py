"""What the commands of `vaultd` are made of (cli.py): what may be typed, what runs already, how it is printed."""
