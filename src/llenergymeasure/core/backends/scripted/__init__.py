"""The scripted backend: set latencies, token counts and failures against known energy."""
