"""The processes of a server: supervisor, workers, embedded Redis, data directory, and the system's limits on them."""
