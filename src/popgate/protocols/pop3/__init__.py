"""The POP3 server engine."""
