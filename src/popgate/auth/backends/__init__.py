"""Back ends of authentication; only popgate.app chooses among them."""
