"""PCP, RFC 6887: NAT-PMP's successor, which carriers speak, too."""
