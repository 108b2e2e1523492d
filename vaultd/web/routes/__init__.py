"""The control API's routes, a file for each collection of interface.md §6."""
