"""AutoNAT v2: learn which of our addresses can be dialled, and tell others of theirs.

Rules: specs/autonat.md.
"""
