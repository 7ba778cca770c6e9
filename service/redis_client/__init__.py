"""The Redis client: multiplexed connections to one Redis, to a cluster, or to the master that Sentinels name.

It is the only importer of `redis` and `hiredis`. redis-py opens connections (address, TLS, AUTH, HELLO); from then on the
transport is ours. Why not redis-py's client: one HMGET a request in the same aiohttp handler, 64 connections, one worker, four
rounds in turn on 2026-11-26 (medians): this client 17,100 requests a second, valkey-glide 2.6.0 12,600 (with a thread of its
own on the second core), redis-py 8.1 6,900, coredis 6.9 6,600. And none of them distinguishes a write that was sent from one
that was not.

    client        RedisClient: commands, retries, errors         multiplexer   one connection that all requests share
    topology      which server a command goes to                 replication   writes that wait for replicas (WAIT)
    standalone    one server                                     node          a server: its reads and its writes
    cluster       Redis Cluster: slots, MOVED, ASK               replies       what Redis's error replies mean
    sentinel      Redis Sentinel: the current master             diagnosis     why Redis is unavailable, for operators
    discovery     what cluster and sentinel share                admin         DBSIZE, SCAN, CLIENT LIST
    url           redis_url, and how to connect to its servers   errors        all errors of this client
"""
