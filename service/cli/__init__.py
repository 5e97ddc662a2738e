"""The command `resight`."""
