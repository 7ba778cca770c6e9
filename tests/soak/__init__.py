"""The soak behind `scripts/soak`: random operations by several clients with a model beside them, while faults happen.

wire, responses         HTTP by hand, and responses decoded as far as they are looked at
values                random configs and filters
states, sessions      the model of a session: the states in which it may be, and what responses tell of them
owned                 the model of users, and of a client's part in what all clients write to
deeds                 each request about a session, and what it does in every state
client, *_operations, shared, lists, work    what a client does
server, faults, memory                       the server, what happens to it, and what it takes
ending, report        the store held to the model at the end, and the figures
"""
