"""The servers that the benchmark starts, a module each: the service, and those that it is compared with."""
