"""DNS look-ups: the one door to dnspython. Bounds: specs/addresses.md (A12).

It is imported by the first look-up: it brings whatever HTTP and QUIC libraries there are, and
would take a fifth of the time in which p2pnet starts.
"""

from __future__ import annotations

LOOKUP_SECONDS = 5.0
MAX_RECORDS = 32
MAX_TXT_BYTES = 1024


async def lookup_dns(name: str, kind: str) -> tuple[str, ...]:
    """Ask the system's name servers for records of one kind.

    Returns at most 32 records; an empty tuple if the name or the kind does not exist.

    Raises:
        OSError: if no name server answers, or the name is not a valid one.
    """
    import dns.asyncresolver  # noqa: PLC0415
    import dns.exception  # noqa: PLC0415
    import dns.rdatatype  # noqa: PLC0415
    import dns.resolver  # noqa: PLC0415

    try:
        resolver = dns.asyncresolver.Resolver()
        answer = await resolver.resolve(name, kind, lifetime=LOOKUP_SECONDS, search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return ()
    except dns.exception.DNSException as error:
        raise OSError(f"DNS: {name}: {error}") from error
    records = []
    for record in list(answer)[:MAX_RECORDS]:
        if answer.rdtype == dns.rdatatype.TXT:
            text = b"".join(record.strings)[: MAX_TXT_BYTES + 1]
            if len(text) <= MAX_TXT_BYTES:
                records.append(text.decode(errors="replace"))
        else:
            records.append(record.to_text())
    return tuple(records)
