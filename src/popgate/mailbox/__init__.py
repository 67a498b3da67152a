"""Mailboxes: where delivered mail lies until it is fetched."""
