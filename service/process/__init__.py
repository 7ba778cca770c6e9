"""The processes of a server: the supervisor, its workers, the embedded Redis, the data directory and what the system limits."""
