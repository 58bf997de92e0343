"""The same job done with the tools that people would otherwise take, to be measured beside the relay in one run."""
