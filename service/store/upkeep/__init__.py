"""Maintenance of a whole store: start, sweep, check, repartition."""
