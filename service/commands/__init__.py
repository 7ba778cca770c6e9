"""One module for each command, imported when it is called: `add_arguments(parser)` and `run(arguments, settings)`."""
