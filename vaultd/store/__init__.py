"""keyring and cryptography live here and nowhere else."""
