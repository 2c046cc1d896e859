"""How a worker gets started: a child process, another interpreter, or a container."""
