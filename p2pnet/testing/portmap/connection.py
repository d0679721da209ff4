"""The service of a UPnP gateway that maps ports: WANIPConnection 1 and 2, WANPPPConnection.

Values come as text and are untrusted. Version 1 keeps leases of duration 0 for ever; in
version 2 a lease lasts a week at most, which is also what 0 stands for, and what another
protocol or a flow of the NAT occupies is told apart from a conflict of two mappings.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from xml.sax.saxutils import escape

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.packet import TransportName
from p2pnet.testing.portmap.leases import Lease, Leases, Refusal, Wish
from p2pnet.testing.portmap.settings import PortMapConfig
from p2pnet.testing.portmap.soap import UpnpError

Arguments = Mapping[str, str]
Values = dict[str, str]

LONGEST_LEASE = 604_800
"""A week, the most of WANIPConnection:2."""
MAX_LISTED = 1_000
WILDCARDS = ("", "*", "0.0.0.0")
TRANSPORTS: dict[str, TransportName] = {"TCP": "tcp", "UDP": "udp"}
BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
BIT_RATE = "100000000"
PORT_LIST = "urn:schemas-upnp-org:gw:WANIPConnection"


class Connection:
    """Does the actions; each takes the client's address, its arguments and the time."""

    def __init__(self, leases: Leases, config: PortMapConfig) -> None:
        self._leases = leases
        self._config = config
        self._is_second = config.igd_version == 2 and not config.wan_ppp
        self.actions: dict[str, Callable[[str, Arguments, float], Values]] = {
            "SetConnectionType": self._set_connection_type,
            "GetConnectionTypeInfo": self._connection_type,
            "RequestConnection": self._request_connection,
            "ForceTermination": self._force_termination,
            "GetStatusInfo": self._status,
            "GetNATRSIPStatus": self._nat_status,
            "GetLinkLayerMaxBitRates": self._bit_rates,
            "GetGenericPortMappingEntry": self._generic_entry,
            "GetSpecificPortMappingEntry": self._specific_entry,
            "AddPortMapping": self._add,
            "AddAnyPortMapping": self._add_any,
            "DeletePortMapping": self._delete,
            "DeletePortMappingRange": self._delete_range,
            "GetListOfPortMappings": self._list,
            "GetExternalIPAddress": self._external_address,
        }

    # ---- the connection ------------------------------------------------------------------

    def _set_connection_type(self, client: str, arguments: Arguments, now: float) -> Values:
        raise UpnpError(731 if self._is_second else 501)

    def _connection_type(self, client: str, arguments: Arguments, now: float) -> Values:
        return {"NewConnectionType": "IP_Routed", "NewPossibleConnectionTypes": "IP_Routed"}

    def _request_connection(self, client: str, arguments: Arguments, now: float) -> Values:
        return {}

    def _force_termination(self, client: str, arguments: Arguments, now: float) -> Values:
        raise UpnpError(606)

    def _status(self, client: str, arguments: Arguments, now: float) -> Values:
        return {
            "NewConnectionStatus": (
                "Disconnected" if self._leases.outside_address is None else "Connected"
            ),
            "NewLastConnectionError": "ERROR_NONE",
            "NewUptime": str(self._leases.epoch(now)),
        }

    def _nat_status(self, client: str, arguments: Arguments, now: float) -> Values:
        return {"NewRSIPAvailable": "0", "NewNATEnabled": "1"}

    def _bit_rates(self, client: str, arguments: Arguments, now: float) -> Values:
        return {"NewUpstreamMaxBitRate": BIT_RATE, "NewDownstreamMaxBitRate": BIT_RATE}

    def _external_address(self, client: str, arguments: Arguments, now: float) -> Values:
        address = self._leases.outside_address
        if address is None:
            raise UpnpError(501)
        return {"NewExternalIPAddress": address}

    # ---- port mappings: looked at --------------------------------------------------------

    def _generic_entry(self, client: str, arguments: Arguments, now: float) -> Values:
        live = self._leases.live(now)
        index = number(arguments["NewPortMappingIndex"])
        if index >= len(live):
            raise UpnpError(713)
        lease = live[index]
        return {
            "NewRemoteHost": "",
            "NewExternalPort": str(lease.outside.port),
            "NewProtocol": lease.transport.upper(),
        } | entry(lease, now)

    def _specific_entry(self, client: str, arguments: Arguments, now: float) -> Values:
        return entry(self._find(arguments, now), now)

    def _find(self, arguments: Arguments, now: float) -> Lease:
        check_remote_host(arguments)
        port = number(arguments["NewExternalPort"])
        lease = self._leases.at(transport_of(arguments), port, now)
        if lease is None:
            raise UpnpError(714)
        return lease

    def _in_range(self, client: str, arguments: Arguments, now: float) -> list[Lease]:
        first, last = number(arguments["NewStartPort"]), number(arguments["NewEndPort"])
        if first > last:
            raise UpnpError(733)
        transport = transport_of(arguments)
        manages = boolean(arguments["NewManage"]) and self._config.any_host
        return [
            lease
            for lease in sorted(self._leases.live(now), key=lambda lease: lease.outside.port)
            if lease.transport == transport
            and first <= lease.outside.port <= last
            and (manages or lease.inside.host == client)
        ]

    def _list(self, client: str, arguments: Arguments, now: float) -> Values:
        found = self._in_range(client, arguments, now)
        if not found:
            raise UpnpError(730)
        most = number(arguments["NewNumberOfPorts"]) or MAX_LISTED
        listed = "".join(list_entry(lease, now) for lease in found[: min(most, MAX_LISTED)])
        return {
            "NewPortListing": (
                f'<p:PortMappingList xmlns:p="{PORT_LIST}">{listed}</p:PortMappingList>'
            )
        }

    # ---- port mappings: made and deleted -------------------------------------------------

    def _add(self, client: str, arguments: Arguments, now: float) -> Values:
        wish = self._wish(client, arguments, exact=True)
        if wish.port == 0:
            raise UpnpError(716)
        outcome = self._leases.grant_port(wish, now)
        if isinstance(outcome, Refusal):
            raise UpnpError(self._code(outcome, wish, now))
        return {}

    def _add_any(self, client: str, arguments: Arguments, now: float) -> Values:
        outcome = self._leases.grant_port(self._wish(client, arguments, exact=False), now)
        if isinstance(outcome, Refusal):
            raise UpnpError(REFUSALS_2[outcome])
        return {"NewReservedPort": str(outcome.outside.port)}

    def _delete(self, client: str, arguments: Arguments, now: float) -> Values:
        lease = self._find(arguments, now)
        if lease.inside.host != client and not self._config.any_host:
            raise UpnpError(606)
        self._leases.release(lease)
        return {}

    def _delete_range(self, client: str, arguments: Arguments, now: float) -> Values:
        found = self._in_range(client, arguments, now)
        if not found:
            raise UpnpError(730)
        for lease in found:
            self._leases.release(lease)
        return {}

    def _wish(self, client: str, arguments: Arguments, *, exact: bool) -> Wish:
        check_remote_host(arguments)
        port = number(arguments["NewExternalPort"])
        transport = transport_of(arguments)
        inside_port = number(arguments["NewInternalPort"])
        if inside_port == 0:
            raise UpnpError(732 if self._is_second else 402)
        inside = Endpoint(ipv4(arguments["NewInternalClient"]), inside_port)
        if not boolean(arguments["NewEnabled"]):  # kept by some routers, and of no use to anyone
            raise UpnpError(501)
        if len(arguments["NewPortMappingDescription"]) > self._config.max_description:
            raise UpnpError(605)
        seconds = self._seconds(arguments["NewLeaseDuration"])
        if inside.host != client and not self._config.any_host:
            raise UpnpError(606)
        return Wish(
            transport=transport,
            inside=inside,
            port=port,
            exact=exact,
            seconds=seconds,
            protocol="upnp",
            description=arguments["NewPortMappingDescription"],
        )

    def _seconds(self, text: str) -> int | None:
        seconds = number(text, bits=32)
        if self._config.only_permanent:
            if seconds:
                raise UpnpError(725)
            return None
        if self._is_second:
            return min(seconds or LONGEST_LEASE, LONGEST_LEASE)
        return seconds or None

    def _code(self, refusal: Refusal, wish: Wish, now: float) -> int:
        if not self._is_second:
            return REFUSALS_1[refusal]
        if refusal is Refusal.TAKEN:
            holder = self._leases.at(wish.transport, wish.port, now)
            if holder is None or holder.protocol != "upnp":
                return 729
        return REFUSALS_2[refusal]


REFUSALS_1 = {
    Refusal.NOT_AUTHORIZED: 606,
    Refusal.NO_NETWORK: 501,
    Refusal.TAKEN: 718,
    Refusal.NO_PORT: 501,
    Refusal.FULL: 501,
    Refusal.QUOTA: 501,
}
REFUSALS_2 = REFUSALS_1 | {
    Refusal.NO_PORT: 728,
    Refusal.FULL: 728,
    Refusal.QUOTA: 728,
}


def number(text: str, *, bits: int = 16) -> int:
    """Read a ui2, or a ui4."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) >> bits:
        raise UpnpError(402)
    return int(text)


def boolean(text: str) -> bool:
    value = BOOLEANS.get(text.strip().lower())
    if value is None:
        raise UpnpError(402)
    return value


def ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text.strip()))
    except ValueError:
        raise UpnpError(402) from None


def transport_of(arguments: Arguments) -> TransportName:
    transport = TRANSPORTS.get(arguments["NewProtocol"].strip().upper())
    if transport is None:
        raise UpnpError(402)
    return transport


def check_remote_host(arguments: Arguments) -> None:
    if arguments["NewRemoteHost"].strip() not in WILDCARDS:
        raise UpnpError(726)


def entry(lease: Lease, now: float) -> Values:
    return {
        "NewInternalPort": str(lease.inside.port),
        "NewInternalClient": lease.inside.host,
        "NewEnabled": "1",
        "NewPortMappingDescription": lease.description,
        "NewLeaseDuration": str(lease.seconds_left(now)),
    }


def list_entry(lease: Lease, now: float) -> str:
    values = {
        "NewRemoteHost": "",
        "NewExternalPort": str(lease.outside.port),
        "NewProtocol": lease.transport.upper(),
        "NewInternalPort": str(lease.inside.port),
        "NewInternalClient": lease.inside.host,
        "NewEnabled": "1",
        "NewDescription": lease.description,
        "NewLeaseTime": str(lease.seconds_left(now)),
    }
    inner = "".join(f"<p:{name}>{escape(value)}</p:{name}>" for name, value in values.items())
    return f"<p:PortMappingEntry>{inner}</p:PortMappingEntry>"
