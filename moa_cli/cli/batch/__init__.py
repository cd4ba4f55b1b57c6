"""`moa batch`: on this machine, by the jobs of providers, or on Ray."""
