"""What is in a mail message: header fields, addresses, MIME structure, text. Pure functions on octets."""
