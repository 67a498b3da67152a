"""The composition root: chooses the back ends, runs the processes."""
