"""Engage's documented facts, one test each, against any Engage: the simulator, or the one that the environment names.

    python -m pytest tests/conformance                                     the simulator
    ENGAGE_BASE_URL=… ENGAGE_API_KEY=… python -m pytest tests/conformance  another one

Against another one, ENGAGE_CONTACT is the e-mail address of a registered contact, whom Engage may mail. Without it no
action is sent that could be accepted. What only a simulator can be brought to do is skipped there. The orders that
the tests make are deleted in the end. A simulator may be named, too: it must take any key.

    target.py             the Engage under test
    wire.py               what our client really sends to it
    test_facts.py         the facts, by plain HTTP
    test_client_facts.py  the same facts, as our client sends and reads them
    test_mutations.py     for each fact a simulator or a client that gets it wrong (…_mutants.py), and is caught

The facts, their numbers and how sure each one is: docs/engage.md.
"""
