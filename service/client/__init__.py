"""The HTTP client: `from service.client import Resight`, or `AsyncResight` for asyncio.

Needs httpx, numpy and Pillow, and nothing of the service.
"""

from service.client.addresses import DEFAULT_URL
from service.client.answers import NotResight, ResightError, Unreachable
from service.client.archives import NewCrop
from service.client.asynchronous import AsyncResight
from service.client.connection import Resight

__all__ = ["DEFAULT_URL", "AsyncResight", "NewCrop", "NotResight", "Resight", "ResightError", "Unreachable"]
