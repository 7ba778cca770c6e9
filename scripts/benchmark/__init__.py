"""The benchmark behind `scripts/bench`: the service against what people use instead, in one run on one host.

targets                              every row with its target and the function that measures it
run, rows/                           the measurements, and what they share
servers/, load/, filling, tools      what is started, what sends the requests, what loads the stores
statistics, dataset, report, host    the arithmetic, the sessions and filters, the table, the versions
"""
