"""Where grants are kept: back ends of popgate.grants.store. Chosen only in popgate.app."""
