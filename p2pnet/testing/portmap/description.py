"""What a UPnP internet gateway says it is: devices, services, their actions and variables."""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

Action = tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]
"""Arguments in and out, each a name and its state variable."""

REMOTE = ("NewRemoteHost", "RemoteHost")
OUTSIDE = ("NewExternalPort", "ExternalPort")
TRANSPORT = ("NewProtocol", "PortMappingProtocol")
ENTRY = (
    ("NewInternalPort", "InternalPort"),
    ("NewInternalClient", "InternalClient"),
    ("NewEnabled", "PortMappingEnabled"),
    ("NewPortMappingDescription", "PortMappingDescription"),
    ("NewLeaseDuration", "PortMappingLeaseDuration"),
)
RANGE = (
    ("NewStartPort", "ExternalPort"),
    ("NewEndPort", "ExternalPort"),
    TRANSPORT,
    ("NewManage", "A_ARG_TYPE_Manage"),
)
COUNT = "PortMappingNumberOfEntries"

CONNECTION_1: dict[str, Action] = {
    "SetConnectionType": ((("NewConnectionType", "ConnectionType"),), ()),
    "GetConnectionTypeInfo": (
        (),
        (
            ("NewConnectionType", "ConnectionType"),
            ("NewPossibleConnectionTypes", "PossibleConnectionTypes"),
        ),
    ),
    "RequestConnection": ((), ()),
    "ForceTermination": ((), ()),
    "GetStatusInfo": (
        (),
        (
            ("NewConnectionStatus", "ConnectionStatus"),
            ("NewLastConnectionError", "LastConnectionError"),
            ("NewUptime", "Uptime"),
        ),
    ),
    "GetNATRSIPStatus": (
        (),
        (("NewRSIPAvailable", "RSIPAvailable"), ("NewNATEnabled", "NATEnabled")),
    ),
    "GetGenericPortMappingEntry": (
        (("NewPortMappingIndex", COUNT),),
        (REMOTE, OUTSIDE, TRANSPORT, *ENTRY),
    ),
    "GetSpecificPortMappingEntry": ((REMOTE, OUTSIDE, TRANSPORT), ENTRY),
    "AddPortMapping": ((REMOTE, OUTSIDE, TRANSPORT, *ENTRY), ()),
    "DeletePortMapping": ((REMOTE, OUTSIDE, TRANSPORT), ()),
    "GetExternalIPAddress": ((), (("NewExternalIPAddress", "ExternalIPAddress"),)),
}
CONNECTION_2: dict[str, Action] = CONNECTION_1 | {
    "AddAnyPortMapping": (
        (REMOTE, OUTSIDE, TRANSPORT, *ENTRY),
        (("NewReservedPort", "ExternalPort"),),
    ),
    "DeletePortMappingRange": (RANGE, ()),
    "GetListOfPortMappings": (
        (*RANGE, ("NewNumberOfPorts", COUNT)),
        (("NewPortListing", "A_ARG_TYPE_PortListing"),),
    ),
}
PPP: dict[str, Action] = CONNECTION_1 | {
    "GetLinkLayerMaxBitRates": (
        (),
        (
            ("NewUpstreamMaxBitRate", "UpstreamMaxBitRate"),
            ("NewDownstreamMaxBitRate", "DownstreamMaxBitRate"),
        ),
    ),
}
LINK: dict[str, Action] = {
    "GetCommonLinkProperties": (
        (),
        (
            ("NewWANAccessType", "WANAccessType"),
            ("NewLayer1UpstreamMaxBitRate", "Layer1UpstreamMaxBitRate"),
            ("NewLayer1DownstreamMaxBitRate", "Layer1DownstreamMaxBitRate"),
            ("NewPhysicalLinkStatus", "PhysicalLinkStatus"),
        ),
    ),
}
FORWARDING: dict[str, Action] = {
    "SetDefaultConnectionService": (
        (("NewDefaultConnectionService", "DefaultConnectionService"),),
        (),
    ),
    "GetDefaultConnectionService": (
        (),
        (("NewDefaultConnectionService", "DefaultConnectionService"),),
    ),
}
TYPES = {
    "ExternalPort": "ui2",
    "InternalPort": "ui2",
    COUNT: "ui2",
    "PortMappingLeaseDuration": "ui4",
    "Uptime": "ui4",
    "UpstreamMaxBitRate": "ui4",
    "DownstreamMaxBitRate": "ui4",
    "Layer1UpstreamMaxBitRate": "ui4",
    "Layer1DownstreamMaxBitRate": "ui4",
    "PortMappingEnabled": "boolean",
    "A_ARG_TYPE_Manage": "boolean",
    "RSIPAvailable": "boolean",
    "NATEnabled": "boolean",
}
"""State variables that are not strings."""
ALLOWED = {"PortMappingProtocol": ("TCP", "UDP")}


@dataclass(frozen=True, slots=True)
class Service:
    """A service of a device; nothing of it is evented."""

    kind: str
    version: int
    service_id: str
    path: str
    actions: dict[str, Action]

    @property
    def service_type(self) -> str:
        return service_type(self.kind, self.version)

    @property
    def description_path(self) -> str:
        return f"/{self.path}.xml"

    @property
    def control_path(self) -> str:
        return f"/control/{self.path}"


@dataclass(frozen=True, slots=True)
class Device:
    """A device in the tree of a gateway."""

    kind: str
    version: int
    unique_name: str
    services: tuple[Service, ...]
    devices: tuple[Device, ...] = ()

    @property
    def device_type(self) -> str:
        return f"urn:schemas-upnp-org:device:{self.kind}:{self.version}"

    def tree(self) -> tuple[Device, ...]:
        """Return the device and all in it."""
        return (self, *(inner for device in self.devices for inner in device.tree()))


def service_type(kind: str, version: int) -> str:
    return f"urn:schemas-upnp-org:service:{kind}:{version}"


def gateway(number: int, *, version: int, wan_ppp: bool) -> Device:
    """Describe an internet gateway whose devices are named after a number of 48 bits."""
    if wan_ppp:
        connection = Service("WANPPPConnection", 1, "WANPPPConn1", "connection", PPP)
    else:
        actions = CONNECTION_2 if version == 2 else CONNECTION_1
        connection = Service("WANIPConnection", version, "WANIPConn1", "connection", actions)
    link = Service("WANCommonInterfaceConfig", 1, "WANCommonIFC1", "link", LINK)
    forwarding = Service("Layer3Forwarding", 1, "L3Forwarding1", "forwarding", FORWARDING)

    def name(part: int) -> str:
        return f"uuid:70327070-6e65-4000-8{part:03x}-{number:012x}"

    inner = Device("WANConnectionDevice", version, name(3), (connection,))
    wan = Device("WANDevice", version, name(2), (link,), (inner,))
    return Device("InternetGatewayDevice", version, name(1), (forwarding,), (wan,))


def describe_root(device: Device, url: str) -> bytes:
    """Write the description a control point fetches first."""
    return (
        '<?xml version="1.0"?>\n<root xmlns="urn:schemas-upnp-org:device-1-0">'
        "<specVersion><major>1</major><minor>0</minor></specVersion>"
        f"{describe_device(device, url)}</root>\r\n"
    ).encode()


def describe_device(device: Device, url: str) -> str:
    services = "".join(
        f"<service><serviceType>{service.service_type}</serviceType>"
        f"<serviceId>urn:upnp-org:serviceId:{service.service_id}</serviceId>"
        f"<SCPDURL>{service.description_path}</SCPDURL>"
        f"<controlURL>{service.control_path}</controlURL><eventSubURL></eventSubURL></service>"
        for service in device.services
    )
    inner = "".join(describe_device(inner, "") for inner in device.devices)
    return (
        f"<device><deviceType>{device.device_type}</deviceType>"
        f"<friendlyName>Simulated {device.kind}</friendlyName>"
        "<manufacturer>p2pnet</manufacturer><modelName>p2pnet.testing</modelName>"
        f"<UDN>{device.unique_name}</UDN>"
        f"<serviceList>{services}</serviceList>"
        + (f"<deviceList>{inner}</deviceList>" if inner else "")
        + (f"<presentationURL>{escape(url)}</presentationURL>" if url else "")
        + "</device>"
    )


def describe_service(service: Service) -> bytes:
    """Write the actions of a service and the variables they speak of."""
    actions, variables = "", dict[str, None]()
    for name, (inputs, outputs) in service.actions.items():
        arguments = ""
        for direction, pairs in (("in", inputs), ("out", outputs)):
            for argument, variable in pairs:
                variables[variable] = None
                arguments += (
                    f"<argument><name>{argument}</name><direction>{direction}</direction>"
                    f"<relatedStateVariable>{variable}</relatedStateVariable></argument>"
                )
        listed = f"<argumentList>{arguments}</argumentList>" if arguments else ""
        actions += f"<action><name>{name}</name>{listed}</action>"
    table = "".join(describe_variable(name) for name in variables)
    return (
        '<?xml version="1.0"?>\n<scpd xmlns="urn:schemas-upnp-org:service-1-0">'
        "<specVersion><major>1</major><minor>0</minor></specVersion>"
        f"<actionList>{actions}</actionList>"
        f"<serviceStateTable>{table}</serviceStateTable></scpd>\r\n"
    ).encode()


def describe_variable(name: str) -> str:
    values = "".join(f"<allowedValue>{value}</allowedValue>" for value in ALLOWED.get(name, ()))
    return (
        f'<stateVariable sendEvents="no"><name>{name}</name>'
        f"<dataType>{TYPES.get(name, 'string')}</dataType>"
        + (f"<allowedValueList>{values}</allowedValueList>" if values else "")
        + "</stateVariable>"
    )
