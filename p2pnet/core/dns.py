"""DNS look-ups: the one door to dnspython. Bounds: specs/addresses.md (A12)."""

from __future__ import annotations

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver

LOOKUP_SECONDS = 5.0
MAX_RECORDS = 32
MAX_TXT_BYTES = 1024


async def lookup_dns(name: str, kind: str) -> tuple[str, ...]:
    """Ask the system's name servers for records of one kind.

    Returns at most 32 records; an empty tuple if the name or the kind does not exist.

    Raises:
        OSError: if no name server answers, or the name is not a valid one.
    """
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
