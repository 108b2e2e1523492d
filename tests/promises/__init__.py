"""Every promise of SECURITY.md with its control, its tests, and the break that each of those tests must notice."""
