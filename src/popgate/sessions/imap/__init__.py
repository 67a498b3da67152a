"""What an IMAP connection is answered: folders, messages, searches, and what changes meanwhile."""

from popgate.sessions.imap.session import ImapPolicy, ImapServices, ImapSession

__all__ = ["ImapPolicy", "ImapServices", "ImapSession"]
