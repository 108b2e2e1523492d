"""What the composition root (daemon.py) is made of: the order of a start, of lock and unlock, of an end."""
