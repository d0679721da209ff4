"""Rule A12 of specs/addresses.md: what dnspython makes of the answers of a name server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import dns.asyncresolver
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio

import p2pnet.core.dns
from p2pnet.core.dns import MAX_RECORDS, MAX_TXT_BYTES, lookup_dns
from p2pnet.core.env import SystemNetwork

pytestmark = pytest.mark.sockets

Zone = dict[tuple[str, str], list[str]]
Answer = Callable[[dns.message.QueryMessage], dns.message.Message | None]


def answer_from(zone: Zone) -> Answer:
    names = {name for name, _ in zone}

    def answer(query: dns.message.QueryMessage) -> dns.message.Message:
        reply = dns.message.make_response(query)
        question = query.question[0]
        name, kind = str(question.name), dns.rdatatype.to_text(question.rdtype)
        if name not in names:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif (name, kind) in zone:
            reply.answer.append(dns.rrset.from_text_list(name, 60, "IN", kind, zone[name, kind]))
        return reply

    return answer


@asynccontextmanager
async def name_server(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> AsyncGenerator[None, None]:
    """Answer what this test asks of the DNS, on loopback."""
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    await sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]

    def configured() -> dns.asyncresolver.Resolver:
        resolver = system_resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], port
        return resolver

    async def serve() -> None:
        while True:
            data, client = await sock.recvfrom(4096)
            query = dns.message.from_wire(data)
            assert isinstance(query, dns.message.QueryMessage)
            if (reply := answer(query)) is not None:
                await sock.sendto(reply.to_wire(max_size=65535), client)

    system_resolver = dns.asyncresolver.Resolver
    monkeypatch.setattr(dns.asyncresolver, "Resolver", configured)
    with sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield
            nursery.cancel_scope.cancel()


ZONE: Zone = {
    ("a.example.", "A"): ["1.2.3.4", "1.2.3.5"],
    ("a.example.", "AAAA"): ["2600::1"],
    ("_dnsaddr.a.example.", "TXT"): ['"dnsaddr=/ip4/1.2.3.4" "/tcp/1"', '"v=spf1 -all"'],
}


async def test_records_come_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    async with name_server(monkeypatch, answer_from(ZONE)):
        assert sorted(await lookup_dns("a.example", "A")) == ["1.2.3.4", "1.2.3.5"]
        assert await SystemNetwork().lookup("a.example", "AAAA") == ("2600::1",)
        assert sorted(await lookup_dns("_dnsaddr.a.example", "TXT")) == [
            "dnsaddr=/ip4/1.2.3.4/tcp/1",
            "v=spf1 -all",
        ]


async def test_what_does_not_exist_is_an_empty_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with name_server(monkeypatch, answer_from(ZONE)):
        assert await lookup_dns("nowhere.example", "A") == ()
        assert await lookup_dns("a.example", "TXT") == ()


async def test_a12_no_more_than_so_many_records_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zone: Zone = {("a.example.", "A"): [f"1.2.3.{n}" for n in range(100)]}
    async with name_server(monkeypatch, answer_from(zone)):
        assert len(await lookup_dns("a.example", "A")) == MAX_RECORDS == 32


async def test_a12_a_long_text_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = " ".join(['"' + "x" * 128 + '"'] * 8)
    too_long = longest + ' "y"'
    zone: Zone = {("a.example.", "TXT"): [longest, too_long, '"z"']}
    async with name_server(monkeypatch, answer_from(zone)):
        found = await lookup_dns("a.example", "TXT")
    assert sorted(found) == ["x" * MAX_TXT_BYTES, "z"]


async def test_text_that_is_not_utf_8_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    zone: Zone = {("a.example.", "TXT"): ['"\\255\\254"']}
    async with name_server(monkeypatch, answer_from(zone)):
        assert await lookup_dns("a.example", "TXT") == ("\ufffd\ufffd",)


async def test_a_server_that_fails_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(query: dns.message.QueryMessage) -> dns.message.Message:
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.SERVFAIL)
        return reply

    async with name_server(monkeypatch, fail):
        with pytest.raises(OSError, match="DNS: a"):
            await lookup_dns("a.example", "A")


async def test_a12_a_server_that_is_silent_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p2pnet.core.dns, "LOOKUP_SECONDS", 0.05)
    async with name_server(monkeypatch, lambda query: None):
        with pytest.raises(OSError, match="DNS: a"):
            await lookup_dns("a.example", "A")


@pytest.mark.parametrize(
    "name",
    [
        "a" * 64 + ".example",
        ".".join(["a" * 60] * 5),
        "a..example",
        ".",
        "",
        "\\999.example",
        "\ud800.example",
        "xn--\u0378.example",
        "\u0378.example",
        "a\0b.example",
    ],
)
async def test_a_strange_name_is_an_os_error_or_does_not_exist(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with name_server(monkeypatch, answer_from(ZONE)):
        try:
            found = await lookup_dns(name, "A")
        except OSError as error:
            told = str(error)
        else:
            told = ""
            assert found == ()
    assert told == "" or told.startswith("DNS: ")
