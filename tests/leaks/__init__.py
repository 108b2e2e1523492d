"""Seeded leaks and the scanner that finds canaries."""
