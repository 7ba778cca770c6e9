"""The store: sessions, users and projects in Redis. Every write is one Lua script, see `lua/`."""
