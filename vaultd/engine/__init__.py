"""The rules in motion: asyncio and model only."""
