"""The API: the table of routes, a module of handlers for each group of routes, and the JSON of requests and responses."""
