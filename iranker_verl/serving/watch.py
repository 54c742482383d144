"""A check of the engine every few seconds, so that no request waits for an engine that is dead or stopped."""

from __future__ import annotations

import asyncio
import logging

from iranker_verl.errors import first_line
from iranker_verl.inference.ranker import AsyncRanker

LOG = logging.getLogger("uvicorn.error")
EVERY_S = 2.0
PATIENCE_S = 5.0  # for the engine's own health check, which takes milliseconds


class EngineWatch:
    """Runs ``ranker.check_alive`` again and again. ``reason`` is what is wrong, or None."""

    def __init__(self, ranker: AsyncRanker) -> None:
        self._ranker = ranker
        self.reason: str | None = None
        self.failed = asyncio.Event()

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(EVERY_S)

    async def check(self) -> None:
        """Check once. An engine that answers again is healthy again."""
        before = self.reason
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._ranker.check_alive()
        except TimeoutError:
            self.reason = "the engine does not answer; restart the server"
        except Exception as error:
            self.reason = f"the engine is not running ({first_line(error)}); restart the server"
        else:
            self.reason = None
        if self.reason:
            if self.reason != before:
                LOG.error("%s", self.reason)
            self.failed.set()
        else:
            self.failed.clear()
