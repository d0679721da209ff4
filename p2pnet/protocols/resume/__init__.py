"""Resume: streams that outlive their connection. Rules: specs/resume.md."""

from p2pnet.protocols.resume.service import Resume, ResumeService

__all__ = ["Resume", "ResumeService"]
