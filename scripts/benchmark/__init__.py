"""The benchmark behind `scripts/bench`: the service beside what people use instead, in one run on one machine.

    targets, statistics, dataset, report, plot    pure: the rows and their targets, the sessions, the table and the plot
    tools, servers/                               what is started: the service, its peers, and what Debian brings
    load/, filling                                what is done to them: requests from wrk, one at a time, and bulk loading
    run, rows/                                    the measurements
"""
