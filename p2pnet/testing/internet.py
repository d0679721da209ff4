"""Realms: address spaces in which packets find their way; the public internet is one.

A realm is a star without size: each machine or router is plugged in over its own link. Homes
behind a NAT are realms of their own, joined to the outer one by a router::

    alice --link-- [home LAN] --router with a NAT--link-- [public internet] --link-- relay
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.ground import Ground
from p2pnet.testing.links import Link
from p2pnet.testing.packet import Packet
from p2pnet.testing.trace import Hop


class Plug:
    """Where a machine or a router is plugged into a realm."""

    def __init__(
        self, name: str, realm: Realm, link: Link, deliver: Callable[[Packet], None]
    ) -> None:
        self.name = name
        self.realm = realm
        self.link = link
        self.deliver = deliver
        self.is_out = False
        """Pulled out: what is still on its way is lost."""

    def send(self, packet: Packet) -> None:
        self.realm.send(self, packet)


class Realm:
    """Who has which address, and the way of packets between them."""

    def __init__(self, name: str, ground: Ground) -> None:
        self.name = name
        self.gateway: Plug | None = None
        """Takes what is for no address of this realm."""
        self._timeline = ground.timeline
        self._trace = ground.trace
        self._plugs: dict[str, Plug] = {}
        self._partition: dict[Plug, int] = {}

    # ---- who is where --------------------------------------------------------------------

    def assign(self, address: str, plug: Plug) -> None:
        """Give an address to a plug.

        Raises:
            ValueError: if it is another's.
        """
        if self._plugs.setdefault(address, plug) is not plug:
            raise ValueError(f"{address} is given to {self._plugs[address].name}")

    def withdraw(self, plug: Plug) -> None:
        """Take all addresses of a plug back, and pull it out."""
        plug.is_out = True
        self._plugs = {address: own for address, own in self._plugs.items() if own is not plug}

    def release(self, address: str) -> None:
        """Take one address back."""
        self._plugs.pop(address, None)

    def partition(self, *groups: tuple[Plug, ...]) -> None:
        """Let packets pass within a group only; who is in none is in one with the others."""
        self._partition = {plug: number for number, group in enumerate(groups, 1) for plug in group}

    def heal(self) -> None:
        """End the partition."""
        self._partition = {}

    # ---- packets -------------------------------------------------------------------------

    def send(self, sender: Plug, packet: Packet) -> None:
        """Carry a packet from a plug to whoever has its destination."""
        receivers: list[Plug | None]
        if is_multicast(packet.destination):
            receivers = [plug for plug in dict.fromkeys(self._plugs.values()) if plug is not sender]
        else:
            receivers = [self._plugs.get(packet.destination.host, self.gateway)]
        for receiver in receivers:
            self._send(sender, receiver, packet)

    def _send(self, sender: Plug, receiver: Plug | None, packet: Packet) -> None:
        now = trio.current_time()
        times = sender.link.up.carry(packet, now)
        fate = times if isinstance(times, str) else self._obstacle(sender, receiver)
        name = receiver.name if receiver is not None else "nowhere"
        self._trace.record(Hop(now, sender.name, name, packet, fate))
        if fate or isinstance(times, str) or receiver is None:
            return
        for time in times:
            if receiver.link.quality.is_plain:
                self._descend(sender, receiver, packet, time)
            else:
                descend = partial(self._descend, sender, receiver, packet, time)
                self._timeline.at(time, descend)

    def _obstacle(self, sender: Plug, receiver: Plug | None) -> str:
        if receiver is None or receiver is sender:
            return "no route"
        if self._partition.get(sender, 0) != self._partition.get(receiver, 0):
            return "partitioned"
        return ""

    def _descend(self, sender: Plug, receiver: Plug, packet: Packet, now: float) -> None:
        times = receiver.link.down.carry(packet, now)
        if isinstance(times, str):
            self._trace.record(Hop(now, sender.name, receiver.name, packet, times))
            return
        for time in times:
            self._timeline.at(time, partial(arrive, receiver, packet))


def arrive(receiver: Plug, packet: Packet) -> None:
    if not receiver.is_out:
        receiver.deliver(packet)


def is_multicast(destination: Endpoint) -> bool:
    return destination.host.startswith(("224.", "239.", "ff0"))
