"""The soak behind `scripts/soak`: random operations by several clients, compared with a model, while faults are injected.

values                           random configs and filters
states, sessions                 the model of a session: the states in which it may be, and how responses narrow them
ownership                        the model of users, and of a client's members in what all clients write to
operations                       each request about a session, and what it does in every state
context, client                  fault windows and statistics; one client's sessions and connection
*_operations, shared, lists, work    what a client does
soak, faults, memory             the schedule, the faults, the memory of the processes
verify, report                   the comparison of store and model at the end; the output
"""
