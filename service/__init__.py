"""Session Config Cache: session configs for fleets of agents, kept exactly, in Redis.

The layers, from the top: `cli` and `commands`, `process` (supervisor, workers, embedded Redis), `http` (aiohttp), `store` (the
keyspace and its Lua scripts), `redis_client`, and `configs` (pure: the stored document, its index terms, containment). Imports
point down only; `tests/unit/test_layers.py` checks that.
"""

__version__ = "0.1.0"
