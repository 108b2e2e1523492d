"""aiohttp lives here (and its runner in daemon.py)."""
