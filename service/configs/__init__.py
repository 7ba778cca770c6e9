"""The pure core: a session's configs as they are stored, indexed and matched. No I/O in here."""
