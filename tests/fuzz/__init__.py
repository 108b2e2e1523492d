"""Hostile bytes for every reader of ours: guided by coverage in `make fuzz`, bounded and repeatable in `make test`.

Rule (issue 5, security.md §6): whatever comes in, the outcome is a typed error or success. No 500, no unhandled
exception, no canary and no byte of a request in a reply or a log, no growth, and the next good request is answered.
"""
