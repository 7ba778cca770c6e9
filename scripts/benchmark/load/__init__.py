"""What sends requests: wrk, redis-benchmark, a load that does not wait, and one request at a time."""
