"""Measurements of the whole: each a command that prints what the README claims."""
