"""What sends the requests: wrk, redis-benchmark, an open loop, and one connection with one request at a time."""
