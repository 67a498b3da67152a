"""Dovecot as the server that people log in at: its reports of logins, and what its configuration says."""
