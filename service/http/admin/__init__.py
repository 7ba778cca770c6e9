"""The admin port: metrics and health of the whole server, from a process of its own."""
