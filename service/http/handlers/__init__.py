"""The handlers, one file a resource: parse, call the store, answer."""
