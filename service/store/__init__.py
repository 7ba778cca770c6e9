"""The store: everything that touches Redis. Every write is one Lua script, see `lua/`."""
