"""Hold a transport, a security or a muxer of your own against what p2pnet relies on.

For whoever writes a part. As one test for each rule, with pytest and pytest-trio::

    import pytest
    from p2pnet.testing.conformance import muxer_cases
    from my_package import Mplex

    @pytest.mark.parametrize(("rule", "check"), muxer_cases())
    async def test_mplex(rule, check, autojump_clock):
        await check(Mplex())

or all of them in one go, in any trio run::

    await check_muxer(Mplex())
    await check_security(Tls())
    await check_transport(WebSocket(), listen="/ip4/127.0.0.1/tcp/0/ws", env=Env.system())

Whatever is wrong is raised as one ConformanceFailure: it names the rules that are broken, with
what each demands and what happened instead. Muxers and securities are tried on streams in
memory; a transport on the network of the Env it is given, so that a machine of a ``World`` can
be the place, or loopback. A plug-in that hangs takes half a minute for each rule, and no time
at all under ``autojump_clock``. One that swallows its cancellation hangs the check, too.
"""

from p2pnet.testing.conformance.judging import ConformanceFailure
from p2pnet.testing.conformance.muxer import MuxerCheck, check_muxer, muxer_cases
from p2pnet.testing.conformance.security import SecurityCheck, check_security, security_cases
from p2pnet.testing.conformance.transport import TransportCheck, check_transport, transport_cases

__all__ = [
    "ConformanceFailure",
    "MuxerCheck",
    "SecurityCheck",
    "TransportCheck",
    "check_muxer",
    "check_security",
    "check_transport",
    "muxer_cases",
    "security_cases",
    "transport_cases",
]
