"""One router: in what protocols it can be asked, and whether it has forgotten everything.

Theory of operation: all protocols are searched at the same time. What is found stands in
``found``, the preferred protocol first; the keepers of the ports (``keeper``) wait for it. The
search is repeated when a keeper finds that its router is gone, when the router announces
itself, and as long as no port is mapped, ever more rarely, up to every ``search_interval``::

    search --found--> ports are mapped ---- gone, announced ----.
       ^  `-- nothing, or all refuse -- search_interval -----.  |
       `-----------------------------------------------------+--'
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import trio

from p2pnet.connectivity.portmap.asking import Place, ProtocolName, RouterClient
from p2pnet.connectivity.portmap.epoch import EpochOf
from p2pnet.connectivity.portmap.searching import Speaking, Spoken
from p2pnet.core.complaints import complain
from p2pnet.core.tasks import EXPECTED
from p2pnet.core.watch import Watch
from p2pnet.errors import ProtocolError, describe

logger = logging.getLogger("p2pnet.portmap")

SHORTEST_SEARCH_INTERVAL = 15.0
"""Seconds between two searches, whatever happens."""
SEARCH_SECONDS = 15.0
"""For one protocol, which gives up by itself before that as a rule."""
SHORTEST_NUDGE_INTERVAL = 10.0
"""Seconds between two announcements that are heeded (PM10)."""

Finding = Spoken | str
"""What came of a search: a client, or why there is none."""


class Site:
    """What is known of one router."""

    def __init__(
        self,
        place: Place,
        speaking: Speaking,
        protocols: Sequence[ProtocolName],
        *,
        search_interval: float,
    ) -> None:
        self.place = place
        self.found: Watch[tuple[Spoken, ...]] = Watch(())
        """What it can be asked in, the preferred protocol first."""
        self.findings: dict[ProtocolName, Finding] = {}
        self.restarts = Watch(0)
        """Grows whenever the router may have forgotten its mappings."""
        self.mapped = 0
        """How many ports it maps."""
        self._spoken: dict[ProtocolName, Spoken] = {}
        self._speaking = speaking
        self._protocols = tuple(protocols)
        self._search_interval = search_interval
        self._wanted = trio.Event()
        self._epochs = {protocol: EpochOf(protocol) for protocol in protocols}
        self._nudged_at = -math.inf
        self._noted = ""

    async def run(self) -> None:
        """Search, and search again, until cancelled."""
        patience = SHORTEST_SEARCH_INTERVAL
        while True:
            self._wanted = trio.Event()
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for protocol in self._protocols:
                    nursery.start_soon(self._look_for, protocol)
            await trio.sleep_until(began + SHORTEST_SEARCH_INTERVAL)
            if await self._is_wanted(began + patience):
                patience = SHORTEST_SEARCH_INTERVAL
            else:
                patience = min(2 * patience, self._search_interval)

    async def _is_wanted(self, time: float) -> bool:
        """Wait until a search is wanted, or for a time and as long as ports are mapped then."""
        while True:
            with trio.move_on_at(time):
                await self._wanted.wait()
                return True
            if not self.mapped:
                return False
            time = trio.current_time() + self._search_interval

    async def _look_for(self, protocol: ProtocolName) -> None:
        finding: Finding = "the search took too long"
        with trio.move_on_after(SEARCH_SECONDS):
            finding = await self._search(protocol)
        self.findings[protocol] = finding
        if not isinstance(finding, Spoken):
            return  # What was found before is kept: the keepers know best whether it works.
        if finding.epoch is not None:
            self.hear_epoch(protocol, finding.epoch)
        self._spoken[protocol] = finding
        preferred = sorted(self._spoken, key=self._protocols.index)
        self.found.set(tuple(self._spoken[each] for each in preferred))

    async def _search(self, protocol: ProtocolName) -> Finding:
        try:
            return await self._speaking.look_for(protocol, self.place)
        except EXPECTED as error:
            self.note(error)
            return describe(error)

    def note(self, error: Exception) -> None:
        """Log what the router did wrong, unless it is the same as the last time."""
        text, last = describe(error), self._noted
        self._noted = text
        if isinstance(error, ProtocolError) and text != last:
            complain(logger, f"router {self.place.gateway}: {text}")
        else:
            logger.debug("router %s: %s", self.place.gateway, text)

    def client(self, protocol: ProtocolName) -> RouterClient:
        """Return the client of a protocol that was found; the last one, as pages may move."""
        return self._spoken[protocol].client

    def search_again(self) -> None:
        """Search soon: the router is gone, or another one now."""
        self._wanted.set()

    def hear_epoch(self, protocol: ProtocolName, epoch: int) -> None:
        """Take what the router said of its clock in an answer (PM10)."""
        if self._epochs[protocol].began_anew(epoch, trio.current_time()):
            self._nudge()

    def hear_announcement(self, protocol: ProtocolName, epoch: int) -> None:
        """Take that the router said something unasked: it was restarted, or has moved (PM10)."""
        now = trio.current_time()
        if protocol not in self._epochs:
            return
        is_new = self._epochs[protocol].began_anew(epoch, now)
        if is_new or now >= self._nudged_at + SHORTEST_NUDGE_INTERVAL:
            self._nudge()
            if not self.mapped:
                self.search_again()

    def _nudge(self) -> None:
        self._nudged_at = trio.current_time()
        self.restarts.set(self.restarts.value + 1)
