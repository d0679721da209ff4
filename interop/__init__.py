"""The interop matrix."""
