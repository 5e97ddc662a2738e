"""Every speed that the project claims, with its peers beside it: a command a question."""


class BenchmarkError(RuntimeError):
    """Something cannot be measured here; the message says why."""
