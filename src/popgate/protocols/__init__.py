"""Sans-IO protocol engines: bytes in, events out, replies in, bytes out."""
