"""`moa batch`: answers on this machine, through jobs of providers, or on Ray."""
