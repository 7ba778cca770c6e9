"""One module a command, imported when the command is called: `add_arguments(parser)` and `run(arguments, settings)`."""
