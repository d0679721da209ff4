"""Noise XX as libp2p speaks it: ``/noise``. Rules: specs/noise.md."""

from p2pnet.security.noise.driver import Noise, NoiseSecurity, NoiseStream

__all__ = ["Noise", "NoiseSecurity", "NoiseStream"]
