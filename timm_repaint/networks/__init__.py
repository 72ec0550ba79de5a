"""The networks E, G and D, their SPADE blocks, and what turns label maps into their inputs."""
