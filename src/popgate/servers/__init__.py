"""Servers: the asyncio shells that run protocol engines on real connections."""
