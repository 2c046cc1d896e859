"""Inference backends: the contract, one file an implementation, and the scripted one."""
