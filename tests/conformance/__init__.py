"""Scripted dialogues that any IMAP server must hold, and what runs them."""
