"""The HTTP client: `from service.client import Resight`. Needs httpx and numpy, and nothing of the service."""

from service.client.answers import NotResight, ResightError, Unreachable
from service.client.connection import DEFAULT_URL, Resight

__all__ = ["DEFAULT_URL", "NotResight", "Resight", "ResightError", "Unreachable"]
