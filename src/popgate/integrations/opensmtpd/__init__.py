"""OpenSMTPD asks popgate whether a client may relay, by a table program of its own."""
