"""How requests come in and responses go out, whatever the API: protocol, limits, admission, dispatch."""
