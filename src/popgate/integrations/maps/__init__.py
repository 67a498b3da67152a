"""Files of the addresses that may relay, for mail servers that look clients up in a map by themselves."""
