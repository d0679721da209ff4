"""TLS 1.3 as libp2p speaks it: ``/tls/1.0.0``. Rules: specs/tls.md."""
