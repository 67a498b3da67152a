"""Other people's servers and programs: each module speaks to one kind, and none knows another."""
