"""A client of the API over HTTP, for people and scripts with an API key and no access to Redis. It imports no store."""
