"""Key files: PN6, PN7. Their vectors are on specs/pnet.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet import presets
from p2pnet.security.pnet import BadPreSharedKey, PreSharedKey
from p2pnet.security.pnet.key import MAX_FILE_BYTES

SECRET = bytes(range(32))
HEAD = b"/key/swarm/psk/1.0.0/\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD,
        HEAD + b"/base16/",
        HEAD + b"/base16/\n",
        HEAD + b"/base16/\n" + b"00" * 31,
        HEAD + b"/base16/\n" + b"00" * 33,
        HEAD + b"/base16/\n" + b"0g" * 32,
        HEAD + b"/base16/\n" + b"00" * 32 + b"\nmore",
        HEAD + b"/base64/\n" + b"A" * 43,
        HEAD + b"/base64/\n" + b"A" * 42 + b"=",
        HEAD + b"/base64/\n" + b"A" * 43 + b"=*",
        HEAD + b"/base32/\n" + b"A" * 52,
        HEAD + b"/bin/\n" + bytes(31),
        HEAD + b"/bin/\n" + bytes(34),
        b"/key/swarm/psk/2.0.0/\n/base16/\n" + b"00" * 32,
        HEAD + b"/base16/\n" + b"00" * 32 + b" " * MAX_FILE_BYTES,
    ],
)
def test_what_is_no_key_file_is_refused(data: bytes) -> None:
    """PN6."""
    with pytest.raises(BadPreSharedKey):
        PreSharedKey.parse(data)


@given(
    st.binary(max_size=100),
    st.sampled_from(
        [b"", HEAD, *(HEAD + b"/%s/\n" % encoding for encoding in (b"bin", b"base16", b"base64"))]
    ),
)
def test_garbage_is_a_key_or_refused(data: bytes, head: bytes) -> None:
    """PN6."""
    try:
        key = PreSharedKey.parse(head + data)
    except BadPreSharedKey:
        return
    assert len(key.secret) == 32


@given(st.binary(min_size=32, max_size=32))
def test_what_is_written_reads_as_the_same(secret: bytes) -> None:
    """PN6."""
    key = PreSharedKey(secret)
    assert PreSharedKey.parse(key.encode()) == key
    assert PreSharedKey.parse(HEAD + b"/bin/\n" + secret) == key
    assert PreSharedKey.parse(HEAD + b"/bin/\n" + secret + b"\n") == key


def test_a_file_is_read_and_no_more_of_it_than_a_key_can_need(tmp_path: Path) -> None:
    """PN6."""
    path = tmp_path / "swarm.key"
    path.write_text(PreSharedKey(SECRET).encode())
    assert PreSharedKey.from_file(path) == PreSharedKey.from_file(str(path)) == PreSharedKey(SECRET)
    with pytest.raises(FileNotFoundError):
        PreSharedKey.from_file(tmp_path / "none")
    with pytest.raises(BadPreSharedKey, match="1024"):
        PreSharedKey.from_file("/dev/zero")


def test_the_key_is_in_no_repr_and_in_no_error() -> None:
    """PN7."""
    key = PreSharedKey(SECRET)
    shown = repr(key) + str(key) + repr(replace(presets.minimal(), private_network=key))
    assert key.fingerprint() in repr(key)
    for secret in (SECRET.hex(), repr(SECRET)[2:20]):
        assert secret not in shown
    with pytest.raises(BadPreSharedKey) as caught:
        PreSharedKey.parse(HEAD + b"/base16/\n" + b"c0ffee" * 10 + b"zz")
    assert "c0ffee" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(BadPreSharedKey, match="32 bytes, not 31"):
        PreSharedKey(SECRET[1:])
