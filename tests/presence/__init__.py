"""Idle, suspend and screen lock: a fake logind on a bus of the tests' own, and the daemon that listens."""
