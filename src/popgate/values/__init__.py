"""The few values that every package shares: no clock, no I/O, no protocol."""
