"""relay-ctrl's programs, under their names: started once a connection, so nothing is imported in vain."""
