"""One module for each command, imported when it is called; its `command` is what click runs, and returns the exit status."""
