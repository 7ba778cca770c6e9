"""What the API does: the table of routes, a module for each group of routes, and what goes over the wire."""
