"""Deliberate errors about requests that the simulation must notice."""
from tests.simulation.mutants import Mutation, noting_in
ALL: dict[str, Mutation] = {}
mutation = noting_in(ALL)
