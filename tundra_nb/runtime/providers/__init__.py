"""Providers: one adapter per wire format behind one contract, and the transport under them."""
