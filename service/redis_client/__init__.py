"""The Redis client: multiplexed connections to one Redis, to a cluster, or to the master that Sentinels name.

It is the only importer of `redis` and `hiredis`. redis-py opens connections (address, TLS, AUTH, HELLO); from there on the
transport is ours. One HMGET a request in the same aiohttp handler, 64 connections, one worker, four rounds in turn on
2026-11-26 (medians): this client 17,100 requests a second, valkey-glide 2.6.0 12,600 (with a thread of its own on the second
core), redis-py 8.1 6,900, coredis 6.9 6,600. And none of them tells a write that was sent from one that was not.
"""
