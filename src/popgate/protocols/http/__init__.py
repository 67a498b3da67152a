"""HTTP/1.1 as a server: an engine without I/O around h11, for small requests with small answers."""
