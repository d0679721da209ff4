"""Generated from protos/ (see README.md there); imported by messages.py files only."""
