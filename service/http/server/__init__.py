"""The HTTP server under the API: protocol, limits, admission control, dispatch. It imports nothing of the API."""
