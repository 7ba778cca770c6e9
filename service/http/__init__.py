"""HTTP: a server of our own on aiohttp's protocol, and the API that it serves. Nothing else imports aiohttp."""
